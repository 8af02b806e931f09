"""Setup: a model, a machine and every setting; whether it fits and what it runs into, as one changes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from html import escape
from pathlib import Path
from threading import Lock
from typing import Any

import ipywidgets as W

from glmlab.engines.base import KnobStatus
from glmlab.errors import InputError
from glmlab.footprint.advice_line import Advice
from glmlab.gpus import Gpu
from glmlab.hardware import Machine
from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe
from glmlab.rules import Finding, apply_fix
from glmlab.ticker import Worker
from glmlab.widgets.findings import FindingsPanel, summary
from glmlab.widgets.judgement import Judgement, judge
from glmlab.widgets.look import look
from glmlab.widgets.machine_picker import MachinePicker
from glmlab.widgets.memory_panel import MemoryPanel
from glmlab.widgets.model_picker import ModelPicker, readable_recipes
from glmlab.widgets.notice import Notice
from glmlab.widgets.settings_form import SettingsForm
from glmlab.widgets.style import framed, html, stylesheet, title

FIRST_RECIPE = "tiny-glm4-moe"
_OWN = ""  # the option of the list of recipes that stands for a changed one


class Setup(W.VBox):
    """Choose what to run and on what. Fit and rules follow each change, in the background.

    Parameters
    ----------
    recipe : Recipe, str, Path or mapping, optional
        What to begin with: a recipe, its name, a file, or its keys and values.
    gpu : Gpu or str, optional
        What it is judged for; this machine's by default.
    count : int, optional
        How many of them.
    here : Machine, optional
        This machine; looked at by default.
    """

    def __init__(
        self,
        recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
        *,
        gpu: Gpu | str | None = None,
        count: int | None = None,
        here: Machine | None = None,
    ) -> None:
        found = find_recipe(recipe or FIRST_RECIPE)
        self.notice = Notice()
        self._callbacks: list[Callable[[Setup], None]] = []
        self._worker = Worker("setup")
        self._guard = Lock()
        self._serial = 0  # of the last change; what was computed for an earlier one is dropped
        self._pending: Future[None] | None = None
        self._showing = False
        self._known_recipes = readable_recipes()
        self._judgement: Judgement | None = None
        self.recipes = W.Dropdown(
            description="Start from",
            options=[("the recipe below, as it is", _OWN), *((name, name) for name in self._known_recipes)],
            value=_OWN,
            tooltip="Replaces all settings by those of a recipe that ships with glmlab or is in GLMLAB_DATA",
            style={"description_width": "90px"},
            layout=look(width="auto"),
        )
        self.model = ModelPicker(found.model, notice=self.notice)
        self.machine = MachinePicker(gpu, count, notice=self.notice, here=here)
        self.memory = MemoryPanel()
        self.speed = html()
        self.findings = FindingsPanel()
        self.form = SettingsForm(found, notice=self.notice)
        guarded = self.notice.guarded
        self.recipes.observe(guarded(self._recipe_chosen), names="value")
        self.model.on_change(self._model_picked)
        self.machine.on_change(self._changed)
        self.memory.on_advice(guarded(self._advice_taken))
        self.findings.on_fix(guarded(self._fixed))
        self.form.on_change(self._edited)
        super().__init__(
            [stylesheet(), self.notice, self._choices(), *self._judged_parts(), title("Settings"), self.form]
        )
        self._mark_recipe(found)
        self._show(judge(found, self.gpu, self.count), self._serial)

    def _choices(self) -> W.HBox:
        half = {"flex": "1 1 380px", "width": "auto", "min_width": "0", "margin": "0 12px 0 0"}
        left = W.VBox([title("Model"), self.model], layout=look(**half))
        right = W.VBox([title("Recipe"), self.recipes, title("Machine"), self.machine], layout=look(**half))
        return W.HBox([left, right], layout=look(flex_flow="row wrap"))

    def _judged_parts(self) -> list[W.Widget]:
        return [title("Memory"), self.memory, self.speed, title("Findings"), self.findings]

    # ------------------------------------------------------------------ what is chosen
    @property
    def recipe(self) -> Recipe:
        """The last valid recipe."""
        return self.form.recipe

    @recipe.setter
    def recipe(self, recipe: Recipe | str | Path | Mapping[str, Any]) -> None:
        self._take(find_recipe(recipe))

    @property
    def gpu(self) -> Gpu | None:
        """What it is judged for."""
        return self.machine.gpu

    @property
    def count(self) -> int:
        """How many GPUs."""
        return self.machine.count

    @property
    def judgement(self) -> Judgement | None:
        """Fit and findings as last shown."""
        return self._judgement

    def on_change(self, callback: Callable[[Setup], None]) -> None:
        """Call back, with this Setup, after the recipe, the GPU or their number changed."""
        self._callbacks.append(callback)

    def lock(self, knobs: Mapping[str, KnobStatus] | None) -> None:
        """While an engine runs, lock what it cannot change; None frees everything.

        Parameters
        ----------
        knobs : mapping or None
            What :meth:`Engine.knobs` says.
        """
        self.form.lock(knobs)
        self.memory.lock(self.form.locked_change)
        self.findings.lock(self.form.locked_change)
        for control in (self.recipes, self.model.search, self.model.listing, self.model.use):
            control.disabled = knobs is not None

    def wait(self, timeout_s: float = 60.0) -> Judgement:
        """Return once fit and findings are those of what is chosen now; for scripts and tests.

        Parameters
        ----------
        timeout_s : float
            Until then at most.
        """
        with self._guard:
            pending = self._pending
        if pending is not None:
            pending.result(timeout_s)
        assert self._judgement is not None
        return self._judgement

    def __repr__(self) -> str:
        """What stands where no front end shows widgets."""
        said = (self.memory.line, summary(self.findings.findings))
        return f"Setup({self.recipe.name}: {'; '.join(each.rstrip('.') for each in said)})"

    def close(self) -> None:
        """Take it off the page and end its thread."""
        if (worker := getattr(self, "_worker", None)) is not None:  # one never finished is closed, too
            worker.close()
        super().close()

    # ------------------------------------------------------------------ what the user does
    def _recipe_chosen(self, change: Any) -> None:
        if not self._showing and change["new"] != _OWN:
            self._take(find_recipe(change["new"]))

    def _model_picked(self, name: str) -> None:
        self._take(with_model(self.recipe, name))

    def _edited(self, recipe: Recipe) -> None:
        if recipe.model != self.model.model:
            self.model.model = recipe.model
        self._mark_recipe(recipe)
        self._changed()

    def _fixed(self, finding: Finding) -> None:
        self._take(apply_fix(self.recipe, finding))

    def _advice_taken(self, advice: Advice) -> None:
        changes = dict(advice.changes)
        recipe = with_model(self.recipe, changes.pop("model", self.recipe.model))
        recipe = recipe.replace(**changes) if changes else recipe
        if advice.gpus != self.count:
            self.machine.count = advice.gpus
        self._take(recipe)

    def _take(self, recipe: Recipe) -> None:
        """Show another recipe everywhere."""
        self.model.model = recipe.model
        self.form.recipe = recipe
        self.notice.clear()
        self._mark_recipe(recipe)
        self._changed()

    def _mark_recipe(self, recipe: Recipe) -> None:
        """Say in the list of recipes whether this is one of them."""
        known = recipe.name if self._known_recipes.get(recipe.name) == recipe else _OWN
        self._showing = True
        try:
            self.recipes.value = known
        finally:
            self._showing = False

    # ------------------------------------------------------------------ judging
    def _changed(self) -> None:
        with self._guard:
            self._serial += 1
            asked = (self.recipe, self.gpu, self.count, self._serial)
            self._pending = self._worker.submit(self._judge, *asked)
        for callback in self._callbacks:
            callback(self)

    def _judge(self, recipe: Recipe, gpu: Gpu | None, count: int, serial: int) -> None:
        """In the background: only for the last of several quick changes."""
        if serial != self._serial:
            return
        try:
            self._show(judge(recipe, gpu, count), serial)
        except Exception as error:  # noqa: BLE001 (nobody else would hear of it)
            self.notice.tell(error)

    def _show(self, found: Judgement, serial: int) -> None:
        if serial != self._serial:
            return
        self._judgement = found
        if found.fit is None:
            self.memory.say(found.no_fit, "notes" if found.gpu is None else "error")
        else:
            self.memory.show_fit(found.fit)
        table = "" if found.speed is None else found.speed._repr_html_()
        self.speed.value = framed(table or escape(found.no_speed))
        if found.no_findings:
            self.findings.say(found.no_findings)
        else:
            self.findings.show_findings(found.findings, found.recipe)
        self.form.show_findings(found.findings)


def with_model(recipe: Recipe, model: str) -> Recipe:
    """A recipe for another model, with the other settings as they are.

    Its name becomes the model's, since it is no longer what the old name stands for. Notes and a method of
    quantization go: they are of the other checkpoint.

    Parameters
    ----------
    recipe : Recipe
        As it was.
    model : str
        The other model.
    """
    if model == recipe.model:
        return recipe
    fields = recipe.model_dump(exclude_unset=True) | {"model": model, "name": _name_of(model)}
    fields = {key: value for key, value in fields.items() if key not in ("quantization", "notes")}
    # Read anew: comments of a file are about the model that it was written for.
    return Recipe.parse(fields, where=f"recipe {recipe.name}")


def _name_of(model: str) -> str:
    """A recipe's name made from a model's, which may be a path or a hub name."""
    plain = "".join(
        char if char.isalnum() or char in "._-" else "-" for char in model.rstrip("/").split("/")[-1]
    )
    name = plain.encode("ascii", "ignore").decode().lstrip("._-")
    if not name:
        raise InputError(f"model = {model!r}: no recipe name can be made of it; give the folder another name")
    return name
