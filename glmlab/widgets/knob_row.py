"""KnobRow: one knob of a study's space: moved or not, over which values; or why it cannot be."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import Any

import ipywidgets as W

from glmlab.engines.base import KnobStatus
from glmlab.knob_table import Knob
from glmlab.knobs import word
from glmlab.recipe import Recipe
from glmlab.widgets.field import refusal_html
from glmlab.widgets.knob_entry import HOWS, KnobEntry, suggested
from glmlab.widgets.look import look, style_of
from glmlab.widgets.style import framed, html

_NARROW = {"description_width": "initial"}


class KnobRow(W.HBox):
    """A tick, and fields for the values of one knob.

    The fields are made when the knob is first ticked: a study moves a few of three dozen.

    Parameters
    ----------
    knob : Knob
        What it is about.
    recipe : Recipe
        The baseline.
    on_change : callable
        Called without arguments when a field changed.
    """

    def __init__(self, knob: Knob, recipe: Recipe, on_change: Callable[[], Any]) -> None:
        self.knob, self._recipe, self._on_change = knob, recipe, on_change
        self._status: KnobStatus | None = None
        self._is_setting = False
        self.refusal = ""
        self.tick = W.Checkbox(
            value=False,
            description=knob.name,
            tooltip=f"{knob.help} ({knob.reach})",
            indent=False,
            layout=look(width="17.5em", margin="0 0.5em 0 0"),
            style=style_of(W.Checkbox),
        )
        self._about = html(self._known, flex="1 1 18em")
        self._fields: dict[str, Any] = {}
        super().__init__(
            [self.tick, self._about],
            layout=look(flex_flow="row wrap", align_items="center", margin="1px 0"),
        )
        self.tick.observe(lambda _: self._ticked(), names="value")

    # ------------------------------------------------------------------ what is asked for
    @property
    def entry(self) -> KnobEntry | None:
        """The fields as they stand; ``None`` where the knob is not moved."""
        if not self.tick.value:
            return None
        return KnobEntry(
            how=self._fields["how"].value,
            text=self._fields["text"].value,
            low=self._fields["low"].value,
            high=self._fields["high"].value,
            step=self._fields["step"].value,
        )

    def set(self, entry: KnobEntry | None) -> None:
        """Fill the fields in; ``None``: the knob is not moved."""
        self._is_setting = True
        try:
            if entry is not None:
                for name, field in self._made().items():
                    field.value = getattr(entry, name)
            self.tick.value = entry is not None
        finally:
            self._is_setting = False
        self._arrange()

    def move(self, text: str) -> None:
        """Move the knob over values as one would type them."""
        self.set(KnobEntry(text=text))
        self._on_change()

    # ------------------------------------------------------------------ what is known of it
    def know(self, recipe: Recipe, status: KnobStatus | None) -> None:
        """Take the baseline, and what an engine said that it could do with the knob."""
        self._recipe, self._status = recipe, status
        self._tell()

    @property
    def locked(self) -> str:
        """Why this engine cannot change it; empty where it can, or where nobody asked it."""
        return self._status.why or "it did not say why" if self._status and not self._status.live else ""

    def refuse(self, why: str) -> None:
        """Say what is wrong with its values, or with an empty text that nothing is."""
        if why != self.refusal:
            self.refusal = why
            self._tell()

    def _tell(self) -> None:
        # A knob that is moved already stays within reach, so that it can be let go.
        self.tick.disabled = bool(self.locked) and not self.tick.value
        tooltip = f"{self.knob.help} ({self.knob.reach})"
        self.tick.tooltip = f"{tooltip}; locked: {self.locked}" if self.locked else tooltip
        self._about.value = refusal_html(self.refusal) if self.refusal else framed(self._known)

    @property
    def _known(self) -> str:
        """What stands beside the tick while nothing is refused."""
        now = getattr(self._recipe, self.knob.name)
        words = "the engine's choice" if now is None else word(now)
        if self.locked:
            text = f"<b>locked:</b> {escape(self.locked)}"
        else:
            text = f"now <b>{escape(words)}</b> · {escape(self.knob.help)}"
        return f"<span class='glmlab-dim'>{text}</span>"

    # ------------------------------------------------------------------ fields
    def _made(self) -> dict[str, Any]:
        if not self._fields:
            name = self.knob.name
            hows = HOWS if self.knob.kind == "int" else ("values", "as YAML")
            now = getattr(self._recipe, name)
            low = now if isinstance(now, int) and not isinstance(now, bool) else 1
            self._fields = {
                "how": W.Dropdown(
                    options=hows,
                    description="as",
                    tooltip=f"How the values of {name} are given",
                    style=_NARROW,
                    layout=look(width="auto"),
                ),
                "text": W.Text(
                    suggested(self.knob, self._recipe, self._status),
                    description="values",
                    placeholder="with commas between them",
                    tooltip=f"Values of {name}, with commas between; the recipe's own is tried in any case",
                    continuous_update=False,
                    style=_NARROW,
                    layout=look(width="24em"),
                ),
                **{
                    which: W.IntText(
                        value,
                        description=which,
                        tooltip=f"{name}: {says}",
                        continuous_update=False,
                        style=_NARROW,
                        layout=look(width="9em"),
                    )
                    for which, value, says in (
                        ("low", low, "lowest value"),
                        ("high", low * 2, "highest value"),
                        ("step", 1, "from one value to the next"),
                    )
                },
            }
            self._fields["how"].observe(lambda _: self._arrange(), names="value")
            for field in self._fields.values():
                field.observe(lambda _: self._changed(), names="value")
        return self._fields

    def _ticked(self) -> None:
        self._arrange()
        self._changed()

    def _arrange(self) -> None:
        """Show the fields that count."""
        if not self.tick.value:
            self.refusal = ""
            self.children = (self.tick, self._about)
        else:
            fields = self._made()
            names = {"values": ("text",), "as YAML": ("text",), "range": ("low", "high", "step")}
            shown = names.get(fields["how"].value, ("low", "high"))
            self.children = (self.tick, fields["how"], *(fields[name] for name in shown), self._about)
        self._tell()

    def _changed(self) -> None:
        if not self._is_setting:
            self._on_change()
