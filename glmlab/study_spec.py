"""The study file: what to tune, over which space, for how long. Read, checked, never guessed."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)

from glmlab.errors import InputError, StudyError
from glmlab.knobs import KnobSpace, Params
from glmlab.measurement import METRICS, Evidence, find_metric
from glmlab.recipe import Count, Recipe
from glmlab.recipe_book import find_recipe
from glmlab.workload import Workload
from glmlab.yaml_text import kind_of, load_yaml, parse_yaml

_OPERATORS: dict[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
_CPU_KERNELS = ("cpu_split_kv", "cpu_attn_isa")  # no device clock there
_CONSTRAINT = re.compile(r"\s*(>=|<=|>|<)\s*([0-9][0-9_]*(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?)\s*")


class Budget(BaseModel):
    """When to stop: after so many trials, so many seconds, whichever comes first.

    Attributes
    ----------
    trials : int or None
        Trials with a result of any kind, baseline included; duplicates do not exist.
    seconds : float or None
        Time spent tuning, over all runs of the study, confirmation not counted.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    trials: Count | None = None
    seconds: Annotated[float, Field(gt=0)] | None = None

    @model_validator(mode="after")
    def _something(self) -> Self:
        if self.trials is None and self.seconds is None:
            raise ValueError("budget: give trials, seconds or both")
        return self


class Confirm(BaseModel):
    """How the winner is confirmed: rounds of baseline and best, interleaved.

    Attributes
    ----------
    rounds : int
        Visits of each; 3 give an interval, though a wide one.
    rebuild_rounds : int
        Visits of each where the two need different engines, so that each visit costs a start.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: Annotated[int, Field(ge=3)] = 6
    rebuild_rounds: Annotated[int, Field(ge=3)] = 3


class Constraint(BaseModel):
    """A bound that a trial must keep to be best, e.g. ``kv_tokens >= 200000``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    METRICS: ClassVar[frozenset[str]] = frozenset({"kv_tokens", *METRICS})

    name: str
    comparison: Literal[">=", "<=", ">", "<"]
    bound: float

    @classmethod
    def parse(cls, name: str, text: Any) -> Constraint:
        """Read ``">= 200000"``."""
        found = _CONSTRAINT.fullmatch(str(text))
        if name not in cls.METRICS:
            raise StudyError(f"constraints.{name}: unknown; known: {', '.join(sorted(cls.METRICS))}")
        if not found:
            raise StudyError(f"constraints.{name} = {text!r}: expected a comparison such as '>= 200000'")
        return cls(
            name=name,
            comparison=found[1],
            bound=float(found[2].replace("_", "")),
        )

    def holds(self, value: float) -> bool:
        """Whether a value keeps the bound."""
        return _OPERATORS[self.comparison](value, self.bound)

    def violation(self, value: float) -> float:
        """How far a value breaks the bound; 0 or less where it is kept, as Optuna wants it."""
        if self.holds(value):
            return min(0.0, -abs(value - self.bound))
        return max(abs(value - self.bound), 1e-9)


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


class StudySpec(BaseModel):
    """A study file, validated.

    Build it with :meth:`load` or :meth:`parse`: they resolve the recipe and the space.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    study: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    recipe: Any
    engine: Literal["vllm", "replay"] = "vllm"
    recording: Annotated[tuple[str, ...], BeforeValidator(_one_or_many)] = ()
    home: Literal["child", "kernel"] = "child"
    workload: Workload = Workload()
    space: dict[str, Any]
    objective: Annotated[tuple[str, ...], BeforeValidator(_one_or_many), Field(min_length=1)] = ("tpot_ms",)
    constraints: dict[str, Any] = Field(default_factory=dict)
    budget: Budget = Budget(trials=20)
    confirm: Confirm = Confirm()
    start_timeout_s: Annotated[float, Field(gt=0)] = 1800.0
    seed: Annotated[int, Field(ge=0)] = 0

    _recipe: Recipe = PrivateAttr()
    _space: KnobSpace = PrivateAttr()
    _bounds: tuple[Constraint, ...] = PrivateAttr()
    _recordings: tuple[str, ...] = PrivateAttr(())

    @model_validator(mode="after")
    def _recording_is_for_replay(self) -> Self:
        if self.recording and self.engine != "replay":
            raise ValueError(f"recording: only engine: replay reads one, this is engine: {self.engine}")
        return self

    @classmethod
    def load(cls, path: str | Path) -> StudySpec:
        """Read a study file; a recipe named by a path is looked up beside it.

        Raises
        ------
        InputError
            With one line that names the file and what is wrong in it.
        """
        path = Path(path)
        return cls.parse(load_yaml(path, StudyError), where=str(path), folder=path.parent)

    @classmethod
    def parse_text(cls, text: str, where: str = "study") -> StudySpec:
        """Read a study from YAML text."""
        return cls.parse(parse_yaml(text, where, StudyError), where=where)

    @classmethod
    def parse(cls, data: Any, where: str = "study", folder: Path | None = None) -> StudySpec:
        """Validate a mapping and everything that it refers to."""
        if not isinstance(data, dict):
            raise StudyError(f"{where}: expected keys and values, found {kind_of(data)}")
        try:
            spec = cls.model_validate(_plain(data))
        except ValidationError as error:
            raise StudyError.from_validation(error, where) from None
        try:
            spec._resolve(folder)
        except InputError as error:
            raise type(error)(f"{where}: {error}") from None
        return spec

    def _resolve(self, folder: Path | None) -> None:
        recipe = self.recipe
        if folder is not None and isinstance(recipe, str) and (folder / recipe).is_file():
            recipe = folder / recipe
        self._recipe = find_recipe(recipe)
        self._space = KnobSpace.parse(self.space, self._recipe)
        for name in self.objective:
            find_metric(name)
        if len(set(self.objective)) < len(self.objective):
            raise StudyError("objective: the same metric is listed twice")
        self._bounds = tuple(Constraint.parse(k, v) for k, v in self.constraints.items())
        self._recordings = tuple(
            str(folder / name) if folder is not None and (folder / name).is_file() else name
            for name in self.recording
        )

    @property
    def base_recipe(self) -> Recipe:
        """The baseline: the recipe as it was given."""
        return self._recipe

    def recipe_at(self, params: Params, baseline: Params) -> Recipe:
        """The recipe of a point: the base with the point's values, inactive knobs at the baseline's.

        Parameters
        ----------
        params : dict
            Active knobs.
        baseline : dict
            Resolved values of all knobs of the space.
        """
        return self._recipe.replace(**{**baseline, **params})

    @property
    def knob_space(self) -> KnobSpace:
        return self._space

    @property
    def bounds(self) -> tuple[Constraint, ...]:
        return self._bounds

    @property
    def recordings(self) -> tuple[str, ...]:
        """Names and files of the recordings to replay; empty: those of the recipe's plan."""
        return self._recordings

    @property
    def is_replayed(self) -> bool:
        return self.engine == "replay"

    @property
    def evidence(self) -> Evidence:
        """What the numbers of this study are going to be."""
        return "replayed" if self.is_replayed else "measured"

    @property
    def effective_workload(self) -> Workload:
        """The workload, with cold prefills where the objective or a constraint asks for them."""
        wanted = {*self.objective, *(bound.name for bound in self.bounds)}
        cold = any(name in METRICS and METRICS[name].needs_cold_prefill for name in wanted)
        if cold and not self.workload.cold_prefill:
            return self.workload.model_copy(update={"cold_prefill": True})
        return self.workload

    @property
    def notes(self) -> list[str]:
        """What this study cannot see, in words."""
        notes = []
        if self.is_replayed and self.knob_space.rebuild:
            notes.append(
                "each plan was recorded in one engine: what differs from start to start is not in it"
            )
        if not self.effective_workload.cold_prefill:
            notes += [
                f"{d.name} acts on prefill, but prompts come from the prefix cache here, so its effect"
                " stays hidden; add ttft_ms to the objective, or set workload.cold_prefill"
                for d in self._space
                if d.knob.prefill and not d.knob.decode
            ]
        of_gpu = all(d.knob.kernel and d.name not in _CPU_KERNELS for d in self._space)
        several = self._recipe.tensor_parallel * self._recipe.pipeline_parallel > 1
        steady = "compute_ms" if several else "device_ms"
        if of_gpu and self.objective == ("tpot_ms",):
            notes.append(
                "only kernels differ here: wall time of a step moves by more than they do, device time"
                f" repeats within 1 %; objective: {steady} finds the best sooner"
            )
        elif of_gpu and several and "device_ms" in self.objective:
            notes.append(
                "device_ms has in it how long ranks wait for each other, in kernels of collectives;"
                " objective: compute_ms leaves collectives out and repeats better"
            )
        return notes

    def with_home(self, home: str) -> StudySpec:
        """The same study with its engine in another home."""
        return self.model_copy(update={"home": home})

    def with_rounds(self, most: int) -> StudySpec:
        """The same study with at most so many rounds of confirmation."""
        confirm = Confirm(
            rounds=min(self.confirm.rounds, most), rebuild_rounds=min(self.confirm.rebuild_rounds, most)
        )
        return self.model_copy(update={"confirm": confirm})

    def with_confirm(self, rounds: int) -> StudySpec:
        """The same study, confirmed with so many rounds, whether they need engines of their own or not."""
        confirm = Confirm(rounds=rounds, rebuild_rounds=rounds)
        return self.model_copy(update={"confirm": confirm})

    def identity(self) -> dict[str, Any]:
        """What must stay the same for a stored study to be continued: all but the budget."""
        return {
            "recipe": self._recipe.fingerprint,
            "space": self._space.as_spec(),
            "workload": self.effective_workload.model_dump(mode="json"),
            "objective": list(self.objective),
            "constraints": {k: str(v) for k, v in self.constraints.items()},
            "engine": self.engine,
            "seed": self.seed,
        }


def named_study(study: str) -> str:
    """The name of a study, where that or its file is given."""
    path = Path(study)
    return StudySpec.load(path).study if path.suffix in (".yaml", ".yml") else study


def _plain(value: Any) -> Any:
    """YAML's own containers as plain ones; a recipe in place keeps its comments."""
    if isinstance(value, dict):
        return {k: v if k == "recipe" else _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
