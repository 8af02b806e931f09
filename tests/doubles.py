"""Test doubles. They live in tests only: their numbers say nothing about any machine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from glmlab.engines.base import ApplyReport, EngineState, KnobStatus, StartReport, WorkerState
from glmlab.errors import EngineDiedError, EngineStartError, KnobError
from glmlab.knob_table import KNOBS
from glmlab.measurement import Evidence, Measurement, PointMeasurement
from glmlab.recipe import Recipe
from glmlab.workload import Workload

Knobs = Mapping[str, Any]

# What "vLLM" chooses for a knob that the recipe leaves to it.
CHOSEN: dict[str, Any] = {
    "cpu_split_kv": True,
    "cpu_attn_isa": "vec",
    "max_num_batched_tokens": 2048,
    "block_size": 32,
    "cpu_threads": 1,
    "cudagraph_mode": "NONE",
}


class scripted_start:  # noqa: N801 (called like a function: Study(..., start=scripted_start(...)))
    """A script for the engines of a study, and the count of what was done to them.

    Parameters
    ----------
    latency
        Knobs in force -> milliseconds per token; may raise, as a measurement does.
    drift
        Factor on the latency of the n-th measurement (from 1) over all engines.
    start_fails
        Recipe -> why its engine does not start, or nothing.
    measure_fails
        n (from 1, over all engines) -> what that measurement raises.
    apply_fails
        Live knobs -> why they are refused, or nothing.
    kv_tokens
        Knobs in force -> tokens that the KV pool holds.
    device
        Whether device times are reported too.
    live
        Status of live knobs, in place of the usual ones.
    chosen
        What the engine chooses for what the recipe leaves open, over :data:`CHOSEN`.
    """

    def __init__(
        self,
        latency: Callable[[Knobs], float] = lambda knobs: 10.0,
        *,
        drift: Callable[[int], float] = lambda n: 1.0,
        start_fails: Callable[[Recipe], str | None] = lambda recipe: None,
        measure_fails: Mapping[int, BaseException] | None = None,
        apply_fails: Callable[[Knobs], str | None] = lambda knobs: None,
        kv_tokens: Callable[[Knobs], int] = lambda knobs: 100_000,
        device: bool = False,
        live: Mapping[str, KnobStatus] | None = None,
        chosen: Knobs | None = None,
    ) -> None:
        self.latency, self.drift, self.kv_tokens, self.device = latency, drift, kv_tokens, device
        self.start_fails, self.apply_fails = start_fails, apply_fails
        self.measure_fails = dict(measure_fails or {})
        self.live = dict(live or {})
        self.chosen = {**CHOSEN, **(chosen or {})}
        self.starts: list[Recipe] = []
        self.ceilings: list[dict[str, int]] = []
        self.applied: list[dict[str, Any]] = []
        self.measured: list[dict[str, Any]] = []
        self.workloads: list[Workload] = []
        self.closes = 0
        self.running = 0

    def __call__(self, recipe: Recipe, ceilings: Mapping[str, int]) -> ScriptedEngine:
        self.starts.append(recipe)
        self.ceilings.append(dict(ceilings))
        if reason := self.start_fails(recipe):
            raise EngineStartError(reason, log_tail="the last line of the log")
        return ScriptedEngine(recipe, self, ceilings)

    def points(self, *names: str) -> list[tuple[Any, ...]]:
        """The values of some knobs in each measurement, in order."""
        return [tuple(knobs[name] for name in names) for knobs in self.measured]


class ScriptedEngine:
    """An :class:`glmlab.engines.base.Engine` whose latency is a function of its knobs."""

    evidence: Evidence = "simulated"
    pids: tuple[int, ...] = ()

    def __init__(
        self, recipe: Recipe, script: scripted_start | None = None, ceilings: Knobs | None = None
    ) -> None:
        self.recipe = recipe
        self.started = StartReport(seconds=0.0)
        self._script = script or scripted_start()
        self._script.running += 1
        self._values = {
            name: value
            for name in KNOBS
            if (value := getattr(recipe, name)) is not None
            or (value := self._script.chosen.get(name)) is not None
        }
        self._ceilings = {**self._values, **(ceilings or {})}
        self._dead = self._closed = False
        self._cached_context = 0

    def knobs(self) -> dict[str, KnobStatus]:
        self._answer()
        found = {
            "cpu_split_kv": KnobStatus(live=True, values=(True, False)),
            "cpu_attn_isa": KnobStatus(live=True, values=("vec", "amx")),
            "max_num_seqs": KnobStatus(live=True, low=1, high=self._ceilings["max_num_seqs"]),
            "max_num_batched_tokens": KnobStatus(
                live=True, low=1, high=self._ceilings["max_num_batched_tokens"]
            ),
            "long_prefill_token_threshold": KnobStatus(live=True, low=0, high=4096),
        }
        return {
            name: status.model_copy(update={"value": self._values.get(name)})
            for name, status in {**found, **self._script.live}.items()
        }

    def state(self) -> EngineState:
        self._answer()
        return EngineState(
            knobs=dict(self._values),
            kv_tokens=self._script.kv_tokens(self._values),
            workers=[WorkerState(rank=0, pid=1, values=dict(self._values))],
            backend="SCRIPTED",
            versions={"double": "tests"},
        )

    def apply(self, **knobs: Any) -> ApplyReport:
        self._answer()
        if reason := self._script.apply_fails(knobs):
            raise KnobError(reason)
        status = self.knobs()
        for name, value in knobs.items():
            if name not in status or not status[name].live:
                raise KnobError(f"{name}: this engine cannot change it")
            if not status[name].allows(value):
                raise KnobError(f"{name} = {value!r}: this engine allows {status[name].allowed}")
        changed = {k: (self._values.get(k), v) for k, v in knobs.items() if self._values.get(k) != v}
        self._values.update(knobs)
        self._script.applied.append(dict(knobs))
        return ApplyReport(changed=changed, seconds=0.0)

    def measure(self, workload: Workload) -> Measurement:
        self._answer()
        script = self._script
        script.measured.append(dict(self._values))
        script.workloads.append(workload)
        count = len(script.measured)
        if error := script.measure_fails.get(count):
            self._dead = isinstance(error, EngineDiedError)
            raise error
        ms = script.latency(self._values) * script.drift(count)
        points = [self._point(c, b, ms, workload) for c, b in workload.points]
        return Measurement(
            evidence=self.evidence, points=points, started_unix_s=0.0, duration_s=ms * len(points) / 1e3
        )

    def _point(self, context: int, batch: int, ms: float, workload: Workload) -> PointMeasurement:
        cached = min(self._cached_context, context)
        self._cached_context = max(self._cached_context, context)
        steps = workload.new_tokens
        return PointMeasurement(
            context=context,
            batch=batch,
            wall_step_ms=[ms] * steps,
            step_tokens=[batch] * steps,
            token_gap_ms=[ms] * (steps - 1) * batch,
            ttft_ms=[ms] * batch,
            cached_tokens=[0 if workload.cold_prefill else context] * batch,
            device_step_ms=[ms / 2] * steps if self._script.device else None,
            warmup_ms=ms * workload.warmup_tokens,
            warmup_ttft_ms=[ms] * batch,
            warmup_cached_tokens=[cached] * batch,
            elapsed_ms=ms * steps,
            tokens=[list(range(steps))] * batch,
        )

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._script.closes += 1
            self._script.running -= 1

    def _answer(self) -> None:
        if self._dead or self._closed:
            raise EngineDiedError("the scripted engine is gone")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
