"""SettingsForm: every field of a recipe, generated from its schema and the table of knobs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ipywidgets as W

from glmlab.engines.base import KnobStatus
from glmlab.errors import RecipeError
from glmlab.memory import known_model
from glmlab.recipe import Recipe
from glmlab.rules import Finding, apply_fix
from glmlab.units import counted
from glmlab.widgets.field_row import FieldRow
from glmlab.widgets.findings import field_of
from glmlab.widgets.look import GONE, look, show, style_of
from glmlab.widgets.notice import Notice
from glmlab.widgets.recipe_fields import GROUPS, RecipeField, recipe_fields
from glmlab.widgets.style import stylesheet

_LEAST_SEARCHED = 2  # letters; one finds nearly everything


class SettingsForm(W.VBox):
    """The fields of a recipe in groups that open one by one. What cannot be is refused beside its field.

    Parameters
    ----------
    recipe : Recipe
        What is edited. Recipes are immutable: each valid edit makes a new one.
    notice : Notice, optional
        Where errors are shown that belong to no field; a place of its own by default.
    """

    def __init__(self, recipe: Recipe, *, notice: Notice | None = None) -> None:
        self.notice = notice or Notice()
        self._recipe = recipe
        self._callbacks: list[Callable[[Recipe], None]] = []
        self._refused: dict[str, Any] = {}  # field -> value that waits for another field to allow it
        self._wrong: set[str] = set()  # fields that show something else than the recipe has
        self._findings: dict[str, list[Finding]] = {}
        self._engine: Mapping[str, KnobStatus] | None = None
        self._rows: dict[str, FieldRow] = {}
        self.find = W.Text(
            description="Find setting",
            placeholder="part of a name or of what it does",
            tooltip="Shows the settings whose name or help has this text; empty shows the groups",
            style={"description_width": "90px"},
            layout=look(width="420px", max_width="100%"),
        )
        self.only_set = W.Checkbox(
            description="Only what is set or has a finding",
            tooltip="Leave out the settings that have their default and that no rule speaks of",
            indent=False,
            layout=look(width="auto", margin="0 0 0 12px"),
        )
        self._sections = {name: _Section(name, self.notice.guarded(self._toggled)) for name in GROUPS}
        self.find.observe(self.notice.guarded(self._filter), names="value")
        self.only_set.observe(self.notice.guarded(self._filter), names="value")
        bar = W.HBox([self.find, self.only_set], layout=look(flex_flow="row wrap"))
        children = [stylesheet(), bar, *self._sections.values()]
        super().__init__([*children, self.notice] if notice is None else children)
        self._count()

    # ------------------------------------------------------------------ the recipe
    @property
    def recipe(self) -> Recipe:
        """The last valid one."""
        return self._recipe

    @recipe.setter
    def recipe(self, recipe: Recipe) -> None:
        self._refused.clear()
        self._wrong.clear()
        self._recipe = recipe
        self._refresh()

    def on_change(self, callback: Callable[[Recipe], None]) -> None:
        """Call back with the new recipe after each edit that made one."""
        self._callbacks.append(callback)

    def row(self, name: str) -> FieldRow:
        """The row of a field, made where nobody has looked at it yet."""
        if name not in self._rows:
            fields = recipe_fields()
            group = next(group for group, names in GROUPS.items() if name in names)
            for each in GROUPS[group]:
                self._rows[each] = FieldRow(
                    fields[each], self.notice.guarded(self._edited), self.notice.guarded(self._fixed)
                )
            self._sections[group].fill([self._rows[each] for each in GROUPS[group]])
            self._refresh(GROUPS[group])
        return self._rows[name]

    # ------------------------------------------------------------------ what others say of it
    def show_findings(self, findings: Sequence[Finding]) -> None:
        """Put findings beside the fields that cause them. From any thread: no widget is made."""
        self._findings = {}
        for finding in findings:
            if (name := field_of(finding, self._recipe)) is not None:
                self._findings.setdefault(name, []).append(finding)
        for name, row in tuple(self._rows.items()):
            row.show_findings(self._findings.get(name, ()))
        self._count()

    def lock(self, knobs: Mapping[str, KnobStatus] | None) -> None:
        """While an engine runs: what it cannot change is locked, with the reason.

        Parameters
        ----------
        knobs : mapping or None
            What :meth:`Engine.knobs` says; None frees all fields.
        """
        self._engine = knobs
        for row in tuple(self._rows.values()):
            self._bound(row)

    def locked_change(self, changes: Mapping[str, Any]) -> str:
        """Why some changes cannot be made while the engine runs; empty where they can.

        Parameters
        ----------
        changes : mapping
            Fields of the recipe, and what they shall be.
        """
        fields = recipe_fields()
        reasons = [
            f"{name}: {why}" for name in changes if (why := locked_because(fields[name], self._engine))
        ]
        return "; ".join(reasons)

    # ------------------------------------------------------------------ edits
    def _edited(self, name: str, entered: Any) -> None:
        self._refused.pop(name, None)
        self._wrong.discard(name)
        try:
            value = recipe_fields()[name].read(entered) if isinstance(entered, str) else entered
            if name == "model":
                known_model(value)  # a name that is nothing is refused here, not by the engine
            recipe = self._with(name, value)
        except RecipeError as error:
            self._wrong.add(name)
            self.row(name).show_error(str(error).removeprefix(f"recipe {self._recipe.name}: "))
            self._count()
            return
        self._accept(recipe)

    def _with(self, name: str, value: Any) -> Recipe:
        """The recipe with this edit, and with those refused before that now can be, too."""
        if self._refused:
            try:
                both = self._recipe.replace(**self._refused, **{name: value})
            except RecipeError:
                pass
            else:
                self._wrong -= set(self._refused)
                self._refused.clear()
                return both
        try:
            return self._recipe.replace(**{name: value})
        except RecipeError:
            self._refused[name] = value
            raise

    def _fixed(self, finding: Finding) -> None:
        self._accept(apply_fix(self._recipe, finding))

    def _accept(self, recipe: Recipe) -> None:
        changed = recipe != self._recipe
        self._recipe = recipe
        self._refresh()
        self.notice.clear()
        if changed:
            for callback in self._callbacks:
                callback(recipe)

    # ------------------------------------------------------------------ what is shown
    def _refresh(self, names: Sequence[str] | None = None) -> None:
        """Show the recipe in the rows that there are; what was refused stays as it was entered."""
        differs = self._recipe.model_dump(exclude_defaults=True)
        for name in names or tuple(self._rows):
            row = self._rows[name]
            if name not in self._wrong:
                row.show_value(getattr(self._recipe, name), name in differs)
            row.show_findings(self._findings.get(name, ()))
            self._bound(row)
        self._count()

    def _bound(self, row: FieldRow) -> None:
        row.lock(locked_because(row.field, self._engine))
        row.lock_fix(self.locked_change)
        row.limit(allowed_here(row.field, self._recipe, self._engine))

    def _toggled(self, section: _Section) -> None:
        if section.is_open:
            self.row(GROUPS[section.name][0])
        self._filter()

    def _filter(self, _: Any = None) -> None:
        """Show the rows that are searched for; all of the open groups where none is."""
        words = self.find.value.lower().split() if len(self.find.value) >= _LEAST_SEARCHED else []
        is_filtered = bool(words) or self.only_set.value
        differs = self._recipe.model_dump(exclude_defaults=True)
        for group, names in GROUPS.items():
            section = self._sections[group]
            wanted = [name for name in names if self._is_wanted(name, words, differs)]
            if is_filtered and wanted:
                self.row(wanted[0])
            for name in names:
                if name in self._rows:
                    show(self._rows[name], name in wanted)
            section.reveal(bool(wanted) or not is_filtered, is_filtered)

    def _is_wanted(self, name: str, words: Sequence[str], differs: Mapping[str, Any]) -> bool:
        field = recipe_fields()[name]
        text = f"{name} {name.replace('_', ' ')} {field.help}".lower()
        if not all(word in text for word in words):
            return False
        return not self.only_set.value or name in differs or name in self._findings or name in self._wrong

    def _count(self) -> None:
        """Write into each group's line how much of it is set, and whether something is said there."""
        differs = self._recipe.model_dump(exclude_defaults=True)
        for group, section in self._sections.items():
            names = GROUPS[group]
            findings = sum(len(self._findings.get(name, ())) for name in names)
            wrong = len(self._wrong.intersection(names))
            words = [
                f"{len(names)} settings",
                f"{sum(name in differs for name in names)} set",
                counted(findings, "finding") if findings else "",
                f"{wrong} not valid" if wrong else "",
            ]
            section.say(", ".join(word for word in words if word))


class _Section(W.VBox):
    """A group of rows below the button that shows and hides them."""

    def __init__(self, name: str, on_toggle: Callable[[_Section], None]) -> None:
        self.name = name
        self._words = ""
        self._is_forced = False  # open since something was searched for and found here
        self._on_toggle = on_toggle
        self.button = W.ToggleButton(
            layout=look(width="100%", margin="3px 0 0"), style=style_of(W.ToggleButton)
        )
        self.body = W.VBox(layout=look(margin="0 0 6px 6px"), _dom_classes=(GONE,))
        self.button.observe(self._pressed, names="value")
        super().__init__([self.button, self.body], layout=look(), _dom_classes=("glmlab-section",))

    @property
    def is_open(self) -> bool:
        return bool(self.button.value)

    def fill(self, rows: Sequence[FieldRow]) -> None:
        self.body.children = tuple(rows)

    def say(self, words: str) -> None:
        self._words = words
        self._write()

    def reveal(self, here: bool, forced: bool) -> None:
        """Show it at all, and its rows where it is open or a search found some."""
        show(self, here)
        show(self.body, here and (forced or self.is_open))
        self._is_forced = forced
        self._write()

    def _pressed(self, _: Any) -> None:
        self._write()
        self._on_toggle(self)

    def _write(self) -> None:
        is_open = self.is_open or self._is_forced
        verb = "Found in" if self._is_forced else "Hide" if is_open else "Show"
        self.button.icon = "angle-down" if is_open else "angle-right"
        self.button.description = f"{verb}: {self.name} ({self._words})"
        self.button.tooltip = "Shows and hides the settings of this group"


def locked_because(field: RecipeField, engine: Mapping[str, KnobStatus] | None) -> str:
    """Why a field cannot be changed while an engine runs; empty where it can.

    Parameters
    ----------
    field : RecipeField
        Which field.
    engine : mapping or None
        What the engine's ``knobs()`` says; None where none runs.
    """
    if engine is None or field.reach == "label":
        return ""
    if field.reach == "rebuild":
        return "needs a new engine; close the running one first"
    status = engine.get(field.name)
    if status is None:
        return "the running engine has no such knob"
    return "" if status.live else f"the running engine cannot change it: {status.why}"


def allowed_here(field: RecipeField, recipe: Recipe, engine: Mapping[str, KnobStatus] | None) -> str:
    """What a field can be, as far as engine or model say more than the schema; empty where they do not."""
    status = None if engine is None else engine.get(field.name)
    if status is not None and status.live:
        return f"the running engine takes {status.allowed}, under Play"
    if field.name not in ("tensor_parallel", "max_model_len"):
        return ""
    try:
        model = known_model(recipe.model)
        if field.name == "max_model_len":
            return f"1 to {model.max_model_len:,}, the model's own"
        return f"{', '.join(map(str, model.tensor_parallel_choices))} with this model"
    except RecipeError:  # its sizes are not known
        return ""
