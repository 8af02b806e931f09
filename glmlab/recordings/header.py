"""RecordingHeader: what was recorded, on what, and how."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, field_serializer, model_validator

from glmlab.dimension import same_value
from glmlab.engines.base import EngineState, KnobStatus
from glmlab.errors import InputError, RecordingError
from glmlab.knob_table import KNOBS, knob
from glmlab.knobs import Params, word
from glmlab.names import did_you_mean
from glmlab.recipe import Recipe
from glmlab.workload import Workload

RECORDING_SCHEMA = 1
RECORDING_SUFFIXES = (".jsonl", ".jsonl.gz")

Value = bool | int | float | str
_LEFT_TO_VLLM = (None, "auto")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GpuFacts(_Record):
    """One GPU as it was when the recording began; ``None`` where it did not tell."""

    name: str
    driver: str
    capability: str | None = None
    memory_bytes: int | None = None
    sm_clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    power_limit_w: float | None = None


# A reader is told one difference: that of the model says more than any other, that of versions the least.
_FIELDS = sorted(Recipe.model_fields, key=lambda name: (name != "model", name == "versions"))


class RecordingHeader(_Record):
    """What was recorded, on what, and how: the first line of a recording.

    Attributes
    ----------
    name, title : str
        What it is called, and what it is in a few words.
    recipe : Recipe
        What the engine was started with: the one plan that this recording is of.
    workload : Workload
        What every visit measured.
    knobs : dict
        Live knob that was moved -> its values. Not every combination needs to have been visited.
    knob_status : dict
        What the engine said of all its live knobs.
    state : EngineState
        What the engine said of itself after its start.
    gpus : tuple of GpuFacts
        Empty on a CPU.
    triton : str
        Version of Triton, empty where there is none.
    recorded_on : date
        UTC.
    glmlab, commit : str
        Version of glmlab, and the commit where it is known.
    start_s : tuple of float
        What starting this engine cost, each time that was tried.
    notes : tuple of str
        What the data can say and what not.
    """

    schema_version: int = RECORDING_SCHEMA
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    title: str
    recipe: Recipe
    workload: Workload
    knobs: Annotated[dict[str, tuple[Value, ...]], Field(min_length=1)]
    knob_status: dict[str, KnobStatus]
    state: EngineState
    gpus: tuple[GpuFacts, ...] = ()
    triton: str = ""
    recorded_on: dt.date
    glmlab: str
    commit: str = ""
    start_s: Annotated[tuple[Annotated[float, Field(gt=0, allow_inf_nan=False)], ...], Field(min_length=1)]
    notes: tuple[str, ...] = ()

    @field_serializer("recipe")
    def _as_given(self, recipe: Recipe) -> dict[str, Any]:
        # What was left to vLLM must stay so: a default that is written down is a demand.
        return recipe.model_dump(mode="json", exclude_unset=True)

    @model_validator(mode="after")
    def _one_plan(self) -> Self:
        for name, values in self.knobs.items():
            try:
                found = knob(name)
            except InputError as error:
                raise ValueError(f"knobs.{error}") from None
            if found.reach != "live":
                raise ValueError(
                    f"knobs.{name}: needs a new engine; a recording is of one plan, make one for each value"
                )
            if not values:
                raise ValueError(f"knobs.{name}: lists no value")
            status = self.knob_status.get(name)
            if status is None or not status.live:
                raise ValueError(f"knob_status.{name}: must say live, since the knob was moved")
        return self

    def checked(self, point: Mapping[str, Any]) -> Params:
        """The knobs of a point, in the order of the header.

        Raises
        ------
        RecordingError
            For a knob or value that the header does not list, or a knob that is missing.
        """
        for name, value in point.items():
            if name not in self.knobs:
                raise RecordingError(f"knobs.{name}: unknown here{did_you_mean(name, self.knobs)}")
            if not any(same_value(value, known) for known in self.knobs[name]):
                listed = ", ".join(map(word, self.knobs[name]))
                raise RecordingError(f"knobs.{name} = {value!r}: the header lists {listed}")
        missing = [name for name in self.knobs if name not in point]
        if missing:
            raise RecordingError(f"knobs.{missing[0]}: missing")
        return {name: point[name] for name in self.knobs}

    def mismatch(self, recipe: Recipe, free: Sequence[str] = ()) -> str:
        """Why this recording is not of a recipe's plan; empty where it is.

        What the recipe names must be what the engine really ran; what it leaves to vLLM, the
        recorded recipe must have left to vLLM too.

        Parameters
        ----------
        recipe : Recipe
            The recipe that is to run.
        free : sequence of str
            Fields that may differ.
        """
        for name in _FIELDS:
            if name in ("name", "notes") or name in free or name in self.knobs:
                continue
            wanted, recorded = getattr(recipe, name), getattr(self.recipe, name)
            if name in KNOBS and name in recipe.model_fields_set and wanted not in _LEFT_TO_VLLM:
                in_force = self.state.knobs.get(name)
                recorded = recorded if in_force is None else in_force
            elif name in KNOBS and KNOBS[name].reach == "live":
                # Left alone, it has the value of a new engine: so must it have had when recorded.
                wanted, recorded = self.value_at_start(name), self.state.knobs.get(name)
            if wanted != recorded:
                return f"{name} = {word(recorded)}, not {word(wanted)}"
        return ""

    def value_at_start(self, name: str) -> Any:
        """A live knob's value in a new engine of the recorded recipe.

        A recording may begin after others, with knobs that were moved by then.
        """
        named = getattr(self.recipe, name) if name in self.recipe.model_fields_set else None
        status = self.knob_status.get(name)
        own = status.default if status is not None else None
        return next((v for v in (named, own) if v is not None), self.state.knobs.get(name))

    @property
    def recipe_in_force(self) -> Recipe:
        """The recorded recipe, naming live knobs that had been moved before and were left there."""
        found = self.state.knobs
        left = (name for name, status in self.knob_status.items() if status.live and name not in self.knobs)
        moved = [name for name in left if name in found and found[name] != self.value_at_start(name)]
        return self.recipe.replace(**{name: found[name] for name in moved}) if moved else self.recipe

    @property
    def origin(self) -> str:
        """Where the numbers come from, in a few words."""
        device = ", ".join(dict.fromkeys(gpu.name for gpu in self.gpus)) or self.state.versions.get("device")
        count = f"{len(self.gpus)} x " if len(self.gpus) > 1 else ""
        vllm = self.state.versions.get("vllm")
        return (
            f"{self.name}, recorded on {count}{device or 'an unknown device'}"
            f"{f' with vLLM {vllm}' if vllm else ''} on {self.recorded_on.isoformat()}"
        )


def canonical(name: str, value: Any) -> Any:
    """A knob's value as a recipe has it: a text may be written in several ways."""
    if not isinstance(value, str) or name not in KNOBS:
        return value
    return getattr(Recipe.parse({"name": "any", "model": "any", name: value}, where="point"), name)
