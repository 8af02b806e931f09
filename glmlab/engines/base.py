"""Engine: something that runs a Recipe. What every kind of engine promises."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Protocol, Self, runtime_checkable

from pydantic import BaseModel, ConfigDict, Field

from glmlab.all_reduce_time import AllReduceTime
from glmlab.html_table import html_table
from glmlab.knobs import in_words
from glmlab.measurement import Evidence, Measurement
from glmlab.recipe import Recipe
from glmlab.workload import Workload


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KnobStatus(_Record):
    """What one running engine can do with one live knob.

    Attributes
    ----------
    live : bool
        Whether it can be changed now.
    why : str
        Why not, or what to know.
    value : bool, int, str or None
        In force now.
    default : bool, int, str or None
        vLLM's own choice, which ``apply`` goes back to; ``None`` where it is not known.
    values : tuple or None
        What it may be set to, where that is a list.
    low, high : int or None
        What it may be set to, where that is a range.
    form : str
        What it may be set to, where that is text of a certain form; the engine judges it further
        when it is applied.
    """

    live: bool
    why: str = ""
    value: bool | int | str | None = None
    default: bool | int | str | None = None
    values: tuple[bool | int | str, ...] | None = None
    low: int | None = None
    high: int | None = None
    form: str = ""

    def allows(self, value: Any) -> bool:
        """Whether a value lies within what this engine can take."""
        if self.form:
            return isinstance(value, str)
        if self.values is not None:
            return any(type(value) is type(known) and value == known for known in self.values)
        if isinstance(value, bool) or not isinstance(value, int):
            return False
        return (self.low is None or value >= self.low) and (self.high is None or value <= self.high)

    @property
    def allowed(self) -> str:
        """The allowed values in words."""
        if self.form:
            return self.form
        if self.values is not None:
            return ", ".join(map(str, self.values))
        return f"{self.low} to {self.high}"


class EngineKnobs(dict[str, KnobStatus]):
    """Live knob -> what one running engine can do with it; a notebook shows it as a table."""

    def _repr_html_(self) -> str:
        rows = [
            (name, str(status.value), status.allowed if status.live else f"not live: {status.why}")
            for name, status in self.items()
        ]
        return html_table([("knob", "now", "can be set live to"), *rows])


class WorkerState(_Record):
    """What one worker reports of itself.

    Attributes
    ----------
    values : dict
        Live knob -> value in force, read from the objects that the kernels are launched from.
    used : dict
        Live knob -> value that the last forward pass really ran with; a knob is missing until a
        pass has run.
    graphs : dict
        Captured CUDA graphs by kind.
    """

    rank: int
    pid: int
    values: dict[str, Any] = Field(default_factory=dict)
    used: dict[str, Any] = Field(default_factory=dict)
    graphs: dict[str, int] = Field(default_factory=dict)


class EngineState(_Record):
    """What an engine reports of itself: read back, not remembered.

    Attributes
    ----------
    knobs : dict
        Recipe field -> value in force, live and rebuild knobs alike.
    kv_tokens : int
        Tokens that the KV pool holds.
    workers : list of WorkerState
        One per rank.
    backend : str
        Attention backend of the model's layers.
    versions : dict
        vLLM, torch, Python, and the device.
    moe_tile_files : list of str
        Names of the files in which this vLLM looks for the tiles of this model's mixtures; empty
        where its kernels read none.
    """

    knobs: dict[str, Any]
    kv_tokens: int
    workers: list[WorkerState]
    backend: str
    versions: dict[str, str]
    moe_tile_files: list[str] = Field(default_factory=list)

    def _repr_html_(self) -> str:
        knobs = in_words(self.knobs)
        return html_table(
            [
                ("what", "read back from the engine"),
                ("knobs", knobs),
                ("KV pool", f"{self.kv_tokens:,} tokens"),
                ("attention", self.backend),
                ("workers", ", ".join(f"rank {w.rank} (process {w.pid})" for w in self.workers)),
                ("versions", ", ".join(f"{name} {version}" for name, version in self.versions.items())),
            ]
        )


class ApplyReport(_Record):
    """What an ``apply`` did.

    Attributes
    ----------
    changed : dict
        Knob -> (value before, value now).
    seconds : float
        From the call to the proof of state.
    kv_kept : bool
        Whether prefilled KV survived.
    graphs_captured : int
        CUDA graphs that a rank captured anew, 0 where none holds a knob that changed.
    """

    changed: dict[str, tuple[Any, Any]]
    seconds: float
    kv_kept: bool = True
    graphs_captured: int = 0


class StartReport(_Record):
    """What starting cost, and what the engine was started with.

    Attributes
    ----------
    seconds : float
        From the call to an engine that answers.
    """

    seconds: float
    notes: list[str] = Field(default_factory=list)


@runtime_checkable
class Engine(Protocol):
    """A running Recipe.

    An engine is a context manager; leaving it closes it. All methods are to be called from one
    thread at a time.
    """

    @property
    def recipe(self) -> Recipe:
        """What it was started with."""

    @property
    def evidence(self) -> Evidence:
        """What its numbers are."""

    @property
    def started(self) -> StartReport:
        """What starting cost."""

    @property
    def pids(self) -> tuple[int, ...]:
        """Processes that hold it, its own first; the caller's own is not among them."""

    def knobs(self) -> dict[str, KnobStatus]:
        """Which knobs can be changed live, to what, and why not the others."""

    def state(self) -> EngineState:
        """Read everything back from the running engine."""

    def apply(self, **knobs: Any) -> ApplyReport:
        """Change live knobs; returns once every worker has proved its state.

        Raises
        ------
        KnobError
            For a knob or value that this engine cannot take; nothing was changed.
        ApplyError
            If a worker reports another state than asked; the former state is restored.
        """

    def measure(self, workload: Workload) -> Measurement:
        """Measure a workload in the present state."""

    def close(self) -> None:
        """Give everything back; calling it again does nothing."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


@runtime_checkable
class TimesAllReduce(Protocol):
    """An engine whose ranks can be asked what an all-reduce costs them."""

    def all_reduce_times(self) -> list[AllReduceTime]:
        """All-reduces between the ranks, timed now; none where there is one rank."""
