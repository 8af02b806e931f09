"""One field of a recipe as a row of the form: its control, what it can be, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import ipywidgets as W

from glmlab.catalog import list_models
from glmlab.rulebook.backends import known_backends
from glmlab.rules import Finding, change_text
from glmlab.widgets.findings import Locked, finding_html, never_locked
from glmlab.widgets.look import look, show
from glmlab.widgets.recipe_fields import LEFT_OPEN, FieldReach, RecipeField
from glmlab.widgets.style import LABEL_WIDTH, action, framed, html

_REACH: dict[FieldReach, str] = {
    "live": "a running engine can take another value",
    "rebuild": "another value needs a new engine",
    "label": "no engine is told; nothing that runs changes",
}


class FieldRow(W.VBox):
    """A control with reach, range, default and help beside it, errors and findings below.

    Parameters
    ----------
    field : RecipeField
        What it edits.
    on_edit : callable
        Gets the field's name and what the user chose, or the text that was typed.
    on_fix : callable
        Gets the finding whose change the user wants.
    """

    def __init__(
        self,
        field: RecipeField,
        on_edit: Callable[[str, Any], None],
        on_fix: Callable[[Finding], None],
    ) -> None:
        self.field = field
        self._on_edit, self._on_fix = on_edit, on_fix
        self._showing = False
        self._is_set = False
        self._locked = self._limit = self._error = ""
        self._findings: tuple[Finding, ...] = ()
        self._fix_locked: Locked = never_locked
        self.control = _control(field)
        self.control.observe(self._edited, names="value")
        self._about = html(flex="1 1 260px", padding="0 0 0 12px")
        self._message = html()
        self.fix = action("Apply fix", "wrench")
        self.fix.on_click(self._fix_clicked)
        line = W.HBox(
            [self.control, self._about], layout=look(flex_flow="row wrap", align_items="flex-start")
        )
        super().__init__([line, self._message, self.fix], layout=look(overflow="hidden", flex="0 0 auto"))
        self.add_class("glmlab-field")
        self._describe()
        self._report()

    # ------------------------------------------------------------------ what is shown
    def show_value(self, value: Any, is_set: bool) -> None:
        """Put a recipe's value into the control; what was wrong is gone.

        Parameters
        ----------
        value : object
            Of the recipe.
        is_set : bool
            Whether it differs from the default.
        """
        self._showing = True
        try:
            chosen = isinstance(self.control, W.Dropdown)
            self.control.value = value if chosen else self.field.written(value)
        finally:
            self._showing = False
        self._is_set = is_set
        self._describe()
        self.show_error("")

    def show_error(self, line: str) -> None:
        """Say why what was entered does not count; empty where it does."""
        self._error = line
        self._report()

    def show_findings(self, findings: Sequence[Finding]) -> None:
        """Show what the rules say of this field."""
        self._findings = tuple(findings)
        self._report()

    def lock(self, why: str) -> None:
        """Let nobody change it, for a reason; without a reason it is free again."""
        self._locked = why
        self.control.disabled = bool(why)
        self._describe()

    def lock_fix(self, locked: Locked) -> None:
        """Say which changes of findings cannot be made now; see :meth:`FindingsPanel.lock`."""
        self._fix_locked = locked
        self._report()

    def limit(self, allowed: str) -> None:
        """Say what it can be here, in place of what it can be at all."""
        if allowed != self._limit:
            self._limit = allowed
            self._describe()

    # ------------------------------------------------------------------ inside
    def _describe(self) -> None:
        field = self.field
        facts = [self._limit or field.range, f"default: {field.default_text}" if field.default_text else ""]
        said = "; ".join(escape(fact) for fact in facts if fact)
        mark = "<b>set</b> " if self._is_set else ""
        reach = f'class="glmlab-badge glmlab-{field.reach}" title="{_REACH[field.reach]}"'
        locked = f"<div><b>locked:</b> {escape(self._locked)}</div>" if self._locked else ""
        help_line = f'<div class="glmlab-dim">{escape(field.help)}</div>'
        self._about.value = framed(f"{mark}<span {reach}>{field.reach}</span> {said}{locked}{help_line}")

    def _report(self) -> None:
        parts = []
        if self._error:
            parts.append(
                f'<div class="glmlab-card glmlab-error" role="alert">Not taken: {escape(self._error)}</div>'
            )
        parts += [finding_html(each) for each in self._findings]
        self._message.value = framed("".join(parts))
        show(self._message, bool(parts))
        fixable = self._fixable()
        if fixable is not None and fixable.change is not None:
            self.fix.description = f"Apply fix: {change_text(fixable.change)}"
            locked = self._fix_locked(fixable.change)
            self.fix.tooltip = locked or f"{fixable.fix} (rule {fixable.id})"
            self.fix.disabled = bool(locked)
        show(self.fix, fixable is not None)

    def _fixable(self) -> Finding | None:
        return next((each for each in self._findings if each.change is not None), None)

    def _edited(self, change: Any) -> None:
        if not self._showing:
            self._on_edit(self.field.name, change["new"])

    def _fix_clicked(self, _: Any) -> None:
        if (finding := self._fixable()) is not None:
            self._on_fix(finding)


def _control(field: RecipeField) -> W.Widget:
    """The control of a field; all are native inputs with their label."""
    shared: dict[str, Any] = {
        "description": field.name,
        "tooltip": f"{field.name}: {field.help}",
        "style": {"description_width": LABEL_WIDTH},
        "layout": look(width="470px", max_width="100%"),
    }
    if field.kind in ("flag", "choice"):
        return W.Dropdown(options=_options(field), **shared)
    shared |= {"continuous_update": False, "placeholder": field.default_text}
    if field.kind == "mapping" or field.name == "notes":
        return W.Textarea(rows=2, **shared)
    if known := _suggestions(field.name):
        return W.Combobox(options=known, ensure_option=False, **shared)
    return W.Text(**shared)


def _options(field: RecipeField) -> list[tuple[str, Any]]:
    values: list[Any] = [True, False] if field.kind == "flag" else list(field.choices)
    words = [(field.written(value), value) for value in values]
    return [(LEFT_OPEN, None), *words] if field.optional else words


def _suggestions(name: str) -> tuple[str, ...]:
    """What the field is usually set to, where other values can be meant as well."""
    if name == "model":
        return list_models()
    backends = known_backends()
    found = {
        "attention_backend": backends.attention,
        "moe_backend": backends.moe,
        "linear_backend": backends.linear,
    }.get(name, ())
    return tuple(sorted(found))
