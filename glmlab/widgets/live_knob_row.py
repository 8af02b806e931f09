"""One live knob of a running engine: its value, and what this engine takes in its place."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets as W

from glmlab.dimension import same_value
from glmlab.engines.base import KnobStatus
from glmlab.errors import KnobError, RecipeError
from glmlab.widgets.look import GONE, look, show, style_of
from glmlab.widgets.recipe_fields import RecipeField
from glmlab.widgets.style import LABEL_WIDTH, framed, html


class LiveKnobRow(W.VBox):
    """A list of values, or a field for a number or a text, whichever the engine asks for.

    It is made before the engine runs and filled when it answers, which may be in another thread.

    Parameters
    ----------
    field : RecipeField
        The knob, as a field of the recipe.
    """

    def __init__(self, field: RecipeField) -> None:
        self.field = field
        self.status: KnobStatus | None = None
        shared: dict[str, Any] = {"description": field.name, "tooltip": f"{field.name}: {field.help}"}
        shared["layout"] = look(width="420px", max_width="100%")
        width = {"description_width": LABEL_WIDTH}
        self.choice = W.Dropdown(options=[], **shared, style=style_of(W.Dropdown, **width))
        self.entry = W.Text(continuous_update=False, **shared, style=style_of(W.Text, **width))
        self._about = html(flex="1 1 260px", padding="0 0 0 12px")
        row = W.HBox(
            [self.choice, self.entry, self._about],
            layout=look(flex_flow="row wrap", align_items="center"),
        )
        super().__init__([row], layout=look(flex="0 0 auto"), _dom_classes=(GONE,))

    def fill(self, status: KnobStatus | None) -> None:
        """Show what the engine says now. What a user has chosen but not applied stays chosen.

        Parameters
        ----------
        status : KnobStatus or None
            None, or one that is not live, takes the row away.
        """
        kept = self.chosen if self.is_changed else None
        self.status = status
        live = status is not None and status.live
        show(self, live)
        if status is None or not live:
            return
        value = status.value if kept is None else kept
        is_list = self._is_list
        show(self.choice, is_list)
        show(self.entry, not is_list)
        if is_list:
            values = tuple(status.values or ())
            options = [(self.field.written(each), each) for each in values]
            if self.choice.options != tuple(options):
                self.choice.options = options
            match = [each for each in values if same_value(each, value)]
            self.choice.value = match[0] if match else None
        else:
            self.entry.value = (
                value if isinstance(value, str) and kept is not None else self.field.written(value)
            )
        default = f", vLLM's own {self.field.written(status.default)}" if status.default is not None else ""
        now = f"now <b>{escape(self.field.written(status.value))}</b>{escape(default)}"
        # A list shows what it has itself.
        allowed = "" if is_list else f"; {escape(status.allowed)}"
        allowed += f" ({escape(status.why)})" if status.why else ""
        self._about.value = framed(f'{now}{allowed}<div class="glmlab-dim">{escape(self.field.help)}</div>')

    @property
    def chosen(self) -> Any:
        """What the control holds: a value, or text as it was typed."""
        return self.choice.value if self._is_list else self.entry.value

    @property
    def value(self) -> Any:
        """The value that is asked for.

        Raises
        ------
        KnobError
            If what was typed is of another kind, or nothing was. Whether the engine takes it is the
            engine's to say.
        """
        if self._is_list:
            if self.choice.value is None:
                raise KnobError(f"{self.field.name}: choose one of {self._allowed}")
            return self.choice.value
        text = self.entry.value.strip()
        if not text:
            raise KnobError(f"{self.field.name}: is empty; this engine takes {self._allowed}")
        try:
            return self.field.read(text)
        except RecipeError as error:
            raise KnobError(f"{error}; this engine takes {self._allowed}") from None

    @property
    def is_changed(self) -> bool:
        """Whether something else is chosen than what is in force."""
        if self.status is None or not self.status.live:
            return False
        now = self.status.value
        return (
            not same_value(self.chosen, now) if self._is_list else self.entry.value != self.field.written(now)
        )

    def put_back(self, value: Any) -> None:
        """Choose a value that was in force before; nothing happens where the engine cannot take it now."""
        if self.status is None or not self.status.live or not self.status.allows(value):
            return
        if self._is_list:
            self.choice.value = value
        else:
            self.entry.value = self.field.written(value)

    @property
    def _is_list(self) -> bool:
        return self.status is not None and self.status.values is not None and not self.status.form

    @property
    def _allowed(self) -> str:
        return "nothing" if self.status is None else self.status.allowed
