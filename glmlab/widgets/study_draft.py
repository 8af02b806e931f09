"""StudyDraft: the fields of a study that is being written, and what can be said of them.

Pure: fields in; a study, the refusals of single fields and the text of the study file out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from glmlab.engines.base import KnobStatus
from glmlab.engines.live_knobs import check_dimension
from glmlab.errors import InputError
from glmlab.knob_table import KNOBS
from glmlab.knobs import KnobSpace
from glmlab.plan_list import PLANS
from glmlab.recipe import Recipe
from glmlab.study_spec import Confirm, StudySpec
from glmlab.units import counted
from glmlab.widgets.field_values import (
    bounds,
    budget,
    listed_names,
    most_tokens,
    study_name,
    whole_numbers,
    with_contexts,
)
from glmlab.widgets.knob_entry import KnobEntry
from glmlab.widgets.study_text import recipe_value, study_text

_WORKLOAD = ("contexts", "batch_sizes", "new_tokens", "most_tokens")  # what has a field here


@dataclass(frozen=True, kw_only=True)
class StudyDraft:
    """The fields of a study, as they were typed.

    Parameters
    ----------
    knobs : mapping
        Knob -> its fields; only those that the study moves.
    contexts, batch_sizes : str
        Whole numbers with commas between them.
    constraints : str
        One a line, such as ``kv_tokens >= 200000``.
    trials, seconds : str
        Budget; either may be empty. Seconds may be written ``10m``.
    most_tokens : str
        A whole number, or nothing.
    recording : str
        Names or files of recordings, with commas between them; empty: those of the recipe's plan.
    others : mapping
        Keys of a study file that have no field here, carried along as they are.
    """

    recipe: Recipe
    study: str = "study"
    engine: str = "vllm"
    home: str = "child"
    recording: str = ""
    knobs: Mapping[str, KnobEntry] = field(default_factory=dict)
    contexts: str = "256"
    batch_sizes: str = "1"
    new_tokens: int = 32
    most_tokens: str = ""
    objective: tuple[str, ...] = ("tpot_ms",)
    constraints: str = ""
    trials: str = "20"
    seconds: str = ""
    rounds: int = 6
    rebuild_rounds: int = 3
    seed: int = 0
    others: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, spec: StudySpec) -> StudyDraft:
        """The fields that stand for a study."""
        work = spec.workload.model_dump(mode="json", exclude_defaults=True)
        budget = spec.budget
        others: dict[str, Any] = {
            "workload": {k: v for k, v in work.items() if k not in _WORKLOAD},
            **spec.model_dump(mode="json", include={"start_timeout_s"}, exclude_defaults=True),
            PLANS: spec.space.get(PLANS),
        }
        return cls(
            recipe=spec.base_recipe,
            study=spec.study,
            engine=spec.engine,
            home=spec.home,
            recording=", ".join(spec.recordings),
            knobs={name: KnobEntry.of(body) for name, body in spec.space.items() if name != PLANS},
            contexts=", ".join(map(str, spec.workload.contexts)),
            batch_sizes=", ".join(map(str, spec.workload.batch_sizes)),
            new_tokens=spec.workload.new_tokens,
            most_tokens=str(spec.workload.most_tokens or ""),
            objective=spec.objective,
            constraints="\n".join(f"{name} {bound}" for name, bound in spec.constraints.items()),
            trials="" if budget.trials is None else str(budget.trials),
            seconds="" if budget.seconds is None else f"{budget.seconds:g}",
            rounds=spec.confirm.rounds,
            rebuild_rounds=spec.confirm.rebuild_rounds,
            seed=spec.seed,
            others={key: value for key, value in others.items() if value},
        )

    def judge(
        self, status: Mapping[str, KnobStatus] | None = None, *, refused: Mapping[str, str] | None = None
    ) -> Judged:
        """Read every field, each for itself, then all of them as a study.

        Parameters
        ----------
        status : mapping, optional
            What a running engine can do with its live knobs, where one is known.
        refused : mapping, optional
            Fields that somebody else has found wanting.
        """
        refusals = dict(refused or {})
        data: dict[str, Any] = {"study": self.study, "recipe": recipe_value(self.recipe)}
        # A good study, in which one key at a time is tried: a refusal is then about that key alone.
        good = {
            "study": "draft",
            "recipe": self.recipe,
            "space": {"max_num_seqs": [self.recipe.max_num_seqs]},
        }
        for name, key, read in self._fields():
            try:
                value = read()
                if key != "space":
                    StudySpec.parse(
                        {**good, **({"engine": "replay"} if key == "recording" else {}), key: value}
                    )
            except InputError as error:
                refusals.setdefault(name, _shortened(error))
            else:
                data[key] = _merged(data.get(key), value)
        space = self._space(status or {}, refusals)
        data["space"] = space
        spec = None
        if not refusals:
            try:
                spec = StudySpec.parse(_without_defaults(data))
            except InputError as error:
                refusals["study file"] = _shortened(error)
        text = study_text(_without_defaults(data)) if spec is not None else ""
        return Judged(spec=spec, refusals=refusals, text=text)

    def _fields(self) -> Iterator[tuple[str, str, Any]]:
        """Field, its key in a study file, and how it is read."""
        work = dict(self.others.get("workload", {}))
        made = {"new_tokens": self.new_tokens, **{k: v for k, v in work.items() if k == "warmup_tokens"}}
        yield "study", "study", lambda: study_name(self.study)
        yield "engine", "engine", lambda: self.engine
        if self.engine == "replay":  # elsewhere its field is out of reach, whatever stands in it
            yield "recording", "recording", lambda: listed_names(self.recording)
        yield "home", "home", lambda: self.home
        yield "contexts", "workload", lambda: {"contexts": whole_numbers("contexts", self.contexts)}
        yield (
            "batch_sizes",
            "workload",
            lambda: {"batch_sizes": whole_numbers("batch_sizes", self.batch_sizes)},
        )
        yield "new_tokens", "workload", lambda: {"new_tokens": self.new_tokens}
        yield (
            "most_tokens",
            "workload",
            lambda: most_tokens(self.most_tokens, self.contexts, self.batch_sizes, **made),
        )
        if work:
            yield "workload", "workload", lambda: with_contexts(work, self.contexts)
        yield "objective", "objective", lambda: list(self.objective)
        yield "constraints", "constraints", lambda: bounds(self.constraints)
        yield "budget", "budget", lambda: budget(self.trials, self.seconds)
        yield "rounds", "confirm", lambda: {"rounds": self.rounds}
        yield "rebuild_rounds", "confirm", lambda: {"rebuild_rounds": self.rebuild_rounds}
        yield "seed", "seed", lambda: self.seed
        if timeout := self.others.get("start_timeout_s"):
            yield "start_timeout_s", "start_timeout_s", lambda: timeout

    def _space(self, status: Mapping[str, KnobStatus], refusals: dict[str, str]) -> dict[str, Any]:
        """The knobs that can be read, in their order; the others are refused, each for itself."""
        plans = self.others.get(PLANS)
        if not self.knobs and not plans:
            refusals["space"] = "space: no knob is chosen; tick at least one and give its values"
            return {}
        bodies: dict[str, Any] = {}
        for name, entry in self.knobs.items():
            try:
                bodies[name] = entry.body(KNOBS[name])
                if not (isinstance(bodies[name], Mapping) and "when" in bodies[name]):
                    self._check(name, bodies[name], status.get(name))
            except InputError as error:
                refusals[f"space.{name}"] = _shortened(error)
        try:
            if len(bodies) == len(self.knobs):
                bodies = ({PLANS: plans} if plans else {}) | bodies
                KnobSpace.parse(bodies, self.recipe)
        except InputError as error:
            found = re.match(r"space\.([a-z_0-9]+)", str(error))
            # Plans have no row of their own to say it in.
            known = found is not None and found[1] in self.knobs
            refusals.setdefault(found[0] if found and known else "space", _shortened(error))
        return bodies

    def _check(self, name: str, body: Any, status: KnobStatus | None) -> None:
        """What a study would be refused for, some only after its engine has started."""
        space = KnobSpace.parse({name: body}, self.recipe)
        space.check_highest(self.recipe)
        dimension, own = space[name], getattr(self.recipe, name)
        if own is not None:
            space.with_value(name, own)
        if status is None or dimension.knob.lowers_only:
            return  # a limit is raised by starting the engine with the highest value
        check_dimension(dimension, status)


@dataclass(frozen=True)
class Judged:
    """What became of a draft.

    Attributes
    ----------
    spec : StudySpec or None
        ``None`` while a field is refused.
    refusals : dict
        Field (``space.NAME`` for a knob) -> one line.
    text : str
        The study file; empty while a field is refused.
    """

    spec: StudySpec | None
    refusals: dict[str, str]
    text: str

    @property
    def grid(self) -> str:
        """What measuring every point would take, in words."""
        if self.spec is None:
            return ""
        space, trials = _grown(self.spec), self.spec.budget.trials
        points = space.upper_count
        plans = space.plan_count
        conditional = any(d.when for d in space)
        words = f"{'at most ' if conditional else ''}{counted(points, 'point')}"
        words += f" in {plans:,} plans, each an engine of its own" if plans > 1 else ", one engine"
        words += f"; each is measured at {counted(len(self.spec.workload.points), 'point')} of the workload"
        if trials is not None:
            share = "all of them" if trials >= points else f"{trials:,} of them"
            words += f". The budget measures {share}"
        return f"The full grid is {words}."


def _grown(spec: StudySpec) -> KnobSpace:
    """The space with the recipe's own values in it, which a study measures too."""
    own = {dimension.name: getattr(spec.base_recipe, dimension.name) for dimension in spec.knob_space}
    return spec.knob_space.with_point({name: value for name, value in own.items() if value is not None})


def _merged(before: Any, value: Any) -> Any:
    return {**before, **value} if isinstance(before, dict) and isinstance(value, dict) else value


def _without_defaults(data: dict[str, Any]) -> dict[str, Any]:
    """A study file says what differs, and what its reader wants to see anyway."""
    confirm = data.get("confirm", {}).items()
    kept = {**data, "confirm": {k: v for k, v in confirm if v != Confirm.model_fields[k].default}}
    if kept.get("engine") == "replay":
        kept.pop("home", None)  # nothing is started
    return {k: v for k, v in kept.items() if v or k not in ("confirm", "constraints", "recording")}


def _shortened(error: InputError) -> str:
    """The line without the names of files that there are none of, nor of the field it stands beside."""
    return re.sub(r"^(study|workload|recipe \S+): (?=\S)", "", str(error))
