"""StudyEditor: the fields of a study, each with its refusal beside it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as W

from glmlab.engines.base import KnobStatus
from glmlab.errors import InputError, RecordingError
from glmlab.measurement import METRICS
from glmlab.recipe import Recipe
from glmlab.storage import DEFAULT_URL, check_writable
from glmlab.storage_url import shown
from glmlab.study_spec import Constraint, StudySpec
from glmlab.widgets.field import LABEL, Field, choice_input, number_input, text_input
from glmlab.widgets.field_values import listed_names
from glmlab.widgets.known_reach import Reach, recorded_reach
from glmlab.widgets.look import look
from glmlab.widgets.space_form import SpaceForm
from glmlab.widgets.study_draft import Judged, StudyDraft
from glmlab.widgets.style import title

_HOMES = {"child (can be killed)": "child", "kernel (this process)": "kernel"}
_ENGINES = {"vllm (measured here)": "vllm", "replay (recorded)": "replay"}


class StudyEditor(W.VBox):
    """Writes a study; decides nothing that a study file would not.

    Parameters
    ----------
    recipe : Recipe
        The baseline.
    storage : str
        Where the study will be kept.
    """

    def __init__(self, recipe: Recipe, *, storage: str = DEFAULT_URL) -> None:
        self._recipe, self._storage = recipe, storage
        self._reach: Reach = {}
        self._others: Mapping[str, Any] = {}
        self._listeners: list[Callable[[], Any]] = []
        self._is_setting = False
        self._recorded: tuple[Any, Reach] = (None, {})
        draft = StudyDraft(recipe=recipe, study=f"{recipe.name}-sweep")
        self.judged = Judged(None, {}, "")
        self.fields = _fields(draft, shown(storage))
        self.space = SpaceForm(recipe, self._changed)
        for field in self.fields.values():
            field.control.observe(lambda _: self._changed(), names="value")
        columns = W.HBox(
            [
                self._column(
                    {
                        "Study": ("study", "storage", "engine", "recording", "home", "seed"),
                        "Workload: what is measured at each point": (
                            "contexts",
                            "batch_sizes",
                            "new_tokens",
                            "most_tokens",
                        ),
                    }
                ),
                self._column(
                    {
                        "Objective and constraints": ("objective", "further", "constraints"),
                        "Budget and confirmation": ("trials", "seconds", "rounds", "rebuild_rounds"),
                    }
                ),
            ],
            layout=look(flex_flow="row wrap"),
        )
        super().__init__([columns, title("Space: what is moved"), self.space])
        self._changed()

    def _column(self, groups: Mapping[str, tuple[str, ...]]) -> W.VBox:
        parts: list[Any] = []
        for head, names in groups.items():
            parts += [title(head), *(self.fields[name] for name in names)]
        return W.VBox(parts, layout=look(flex="1 1 30em", min_width="0", margin="0 1em 0 0"))

    # ------------------------------------------------------------------ reading
    @property
    def draft(self) -> StudyDraft:
        """The fields as they stand."""
        read = {name: field.value for name, field in self.fields.items()}
        first, further = read.pop("objective"), read.pop("further")
        read.pop("storage")
        return StudyDraft(
            recipe=self._recipe,
            knobs=self.space.entries,
            objective=(first, *(name for name in further if name != first)),
            others=self._others,
            **read,
        )

    @property
    def spec(self) -> StudySpec | None:
        """The study; ``None`` while a field is refused."""
        return None if self.fields["storage"].refusal else self.judged.spec

    @property
    def storage(self) -> str:
        """Where the study will be kept. A password in it is not shown, and so not saved with a notebook."""
        typed = str(self.fields["storage"].value).strip()
        return self._storage if typed == shown(self._storage) else typed

    @property
    def refusals(self) -> dict[str, str]:
        """Field -> what is wrong with it."""
        storage = self.fields["storage"].refusal
        return {**({"storage": storage} if storage else {}), **self.judged.refusals}

    # ------------------------------------------------------------------ filling in
    @property
    def recipe(self) -> Recipe:
        """The baseline."""
        return self._recipe

    @recipe.setter
    def recipe(self, recipe: Recipe) -> None:
        was, self._recipe = self._recipe, recipe
        name = self.fields["study"].control
        if name.value == f"{was.name}-sweep":
            name.value = f"{recipe.name}-sweep"
        self._changed()

    @property
    def reach(self) -> Reach:
        """What an engine can do with its live knobs, where one was asked."""
        return self._reach

    @reach.setter
    def reach(self, reach: Mapping[str, KnobStatus]) -> None:
        self._reach = dict(reach)
        self._changed()

    def load(self, spec: StudySpec, *, storage: str | None = None) -> None:
        """Fill every field in from a study, and where it is kept."""
        draft = StudyDraft.of(spec)
        self._recipe, self._others = draft.recipe, draft.others
        self._is_setting = True
        try:
            for name, field in self.fields.items():
                if name not in ("storage", "objective", "further"):
                    field.control.value = getattr(draft, name)
            self.fields["objective"].control.value = draft.objective[0]
            self.fields["further"].control.value = draft.objective[1:]
            self.space.set(draft.knobs)
            if storage is not None:
                self._storage = storage
                self.fields["storage"].control.value = shown(storage)
        finally:
            self._is_setting = False
        self._changed()

    def on_change(self, listener: Callable[[], Any]) -> None:
        """Call something whenever what is asked for changed."""
        self._listeners.append(listener)

    # ------------------------------------------------------------------ judging
    def _changed(self) -> None:
        if self._is_setting:
            return
        draft, refusals = self.draft, {}
        reach = self._reach
        if draft.engine == "replay":
            try:
                reach = self._recorded_reach(draft)
            except InputError as error:
                reach, refusals["recording"] = {}, str(error)
        self.judged = draft.judge(reach, refused=refusals)
        self.space.know(self._recipe, reach)
        self.space.refuse(self.judged.refusals)
        for name, field in self.fields.items():
            key = "budget" if name in ("trials", "seconds") else name
            why = self.judged.refusals.get(key, "")
            if key == "budget" and why:
                # Of both fields, unless it names one of them.
                why = "" if why.startswith("trials" if name == "seconds" else "time") else why
            field.refuse(self._refused_storage() if name == "storage" else why)
        self.fields["objective"].hint(METRICS[draft.objective[0]].help)
        self.fields["home"].control.disabled = draft.engine == "replay"
        self.fields["recording"].control.disabled = draft.engine != "replay"
        for listener in self._listeners:
            listener()

    def _recorded_reach(self, draft: StudyDraft) -> Reach:
        names = listed_names(draft.recording)
        key = (self._recipe.fingerprint, tuple(names))
        if self._recorded[0] != key:
            try:
                found = recorded_reach(self._recipe, names)
            except OSError as error:
                raise RecordingError(f"recording: cannot be read ({error.strerror})") from None
            self._recorded = (key, found)
        return self._recorded[1]

    def _refused_storage(self) -> str:
        try:
            check_writable(self.storage)
        except InputError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """Take it off the page."""
        self._listeners.clear()
        super().close()


def _fields(draft: StudyDraft, storage: str) -> dict[str, Field]:
    known = ", ".join(sorted(Constraint.METRICS))
    further = W.SelectMultiple(
        options=list(METRICS),
        description="and also",
        tooltip="Further objectives: the search looks for points of which no other is better in all of them",
        rows=3,
        style={"description_width": LABEL},
        layout=look(width="25em"),
    )
    constraints = W.Textarea(
        draft.constraints,
        description="constraints",
        placeholder="kv_tokens >= 200000",
        tooltip="One bound a line that a trial must keep to be the best",
        continuous_update=False,
        rows=2,
        style={"description_width": LABEL},
        layout=look(width="25em"),
    )
    return {
        "study": Field(text_input("study", "Name under which it is stored and continued", draft.study)),
        "storage": Field(
            text_input("storage", "Optuna storage URL, or journal://FILE; dashboards read the same", storage),
        ),
        "engine": Field(choice_input("engine", "What runs the recipe", _ENGINES, draft.engine)),
        "recording": Field(
            text_input("recording", "Names or files, with commas between them; only of a replay"),
            "of a replay; empty: those of the plan",
        ),
        "home": Field(choice_input("home", "Process in which vLLM lives", _HOMES, draft.home)),
        "seed": Field(number_input("seed", "Of the search", draft.seed)),
        "contexts": Field(
            text_input("contexts", "Prompt lengths in tokens, with commas between them", draft.contexts),
            "tokens",
        ),
        "batch_sizes": Field(
            text_input(
                "batches", "Requests that are sent together, with commas between them", draft.batch_sizes
            ),
            "requests at once",
        ),
        "new_tokens": Field(
            number_input("new tokens", "Output tokens of each request, 2 or more", draft.new_tokens),
            "of each request",
        ),
        "most_tokens": Field(
            text_input(
                "most tokens",
                "Points of more tokens, all requests together, are left out; empty: none is",
                draft.most_tokens,
                width="15em",
            ),
            "at once; or empty",
        ),
        "objective": Field(
            choice_input(
                "objective", "What is to be best; the first decides", list(METRICS), draft.objective[0]
            )
        ),
        "further": Field(further, "Ctrl-click for several or none"),
        "constraints": Field(constraints, f"on {known}"),
        "trials": Field(
            text_input(
                "trials",
                "Trials in all, the baseline among them; empty: no limit",
                draft.trials,
                width="15em",
            ),
            "at most; or empty",
        ),
        "seconds": Field(
            text_input(
                "time", "Time for all trials: seconds, or 90s, 10m, 1h30m; empty: no limit", width="15em"
            ),
            "e.g. 600 or 10m; or empty",
        ),
        "rounds": Field(
            number_input("rounds", "Visits of best and baseline each that confirm the result", draft.rounds),
            "to confirm, 3 or more",
        ),
        "rebuild_rounds": Field(
            number_input(
                "rounds, rebuilt", "The same where each visit needs a new engine", draft.rebuild_rounds
            ),
            "if each needs an engine",
        ),
    }
