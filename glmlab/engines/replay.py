"""ReplayEngine: a recording in place of a running vLLM. Real samples, real costs, nothing invented."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any, Self

from glmlab.engines.base import ApplyReport, EngineKnobs, EngineState, KnobStatus, StartReport, WorkerState
from glmlab.engines.handle import EngineHandle
from glmlab.engines.live_knobs import check_live
from glmlab.engines.replayed_visit import entering_s, replay_visit, workload_problem
from glmlab.engines.visit_order import VisitOrder
from glmlab.errors import (
    ApplyError,
    EngineError,
    InputError,
    KnobError,
    MeasureError,
    RecordingError,
    WorkloadError,
)
from glmlab.knobs import Params, in_words
from glmlab.measurement import Evidence, Measurement
from glmlab.recipe import Recipe
from glmlab.recorded import RecordedVisit, Recording, load_recording
from glmlab.workload import Workload


class ReplayEngine:
    """An :class:`~glmlab.engines.base.Engine` that gives back what a real one was recorded to give.

    Each measurement of a state is the next recorded visit to that point; after the last comes the
    first again, and the measurement's notes say so. What was not recorded is refused.

    Parameters
    ----------
    recording : Recording, str or Path
        A recording, its name or its file.
    recipe : Recipe, optional
        What it is started with; by default the recorded recipe, with what was in force.
    speed : float
        1.0 takes as long as the real engine did, 2.0 half of that; by default nothing is waited
        for. What is reported as cost is the recorded one in any case.
    order : VisitOrder, optional
        Which visit comes next, where several engines share it; as recorded by default.
    handle : EngineHandle, optional
        For ending its waits from another thread.

    Attributes
    ----------
    ahead_s : float
        Seconds that a real engine would have taken so far, less those that passed here: with them
        a clock on the wall shows what it would have shown.
    """

    evidence: Evidence = "replayed"
    pids: tuple[int, ...] = ()

    def __init__(
        self,
        recording: Recording | str | Path,
        recipe: Recipe | None = None,
        *,
        speed: float = math.inf,
        order: VisitOrder | None = None,
        handle: EngineHandle | None = None,
    ) -> None:
        begin = time.perf_counter()
        self.recording = recording if isinstance(recording, Recording) else load_recording(recording)
        header = self.recording.header
        if not speed > 0:
            raise InputError(f"speed = {speed!r}: expected a number above 0; 1.0 is real time")
        self._recipe = recipe or header.recipe_in_force
        if reason := header.mismatch(self._recipe):
            raise RecordingError(f"recipe {self._recipe.name}: recording {self.recording.name} has {reason}")
        self._speed, self._order = speed, order or VisitOrder()
        self._values: Params = {name: self._at_start(name) for name in header.knobs}
        self._used: Params = {}
        self._closed = False
        self._handle = handle or EngineHandle()
        self._cold = True  # no prompt is in the prefix cache yet
        self.ahead_s = 0.0
        seconds = self._order.next_start(self.recording)
        self.started = StartReport(seconds=seconds, notes=[f"replayed: {header.origin}"])
        self._take(seconds, begin)

    def _at_start(self, name: str) -> Any:
        """A live knob's value after the start: the recipe's, else what a new engine has."""
        own = getattr(self._recipe, name) if name in self._recipe.model_fields_set else None
        return self.recording.header.value_at_start(name) if own is None else own

    def _take(self, seconds: float, begin: float) -> None:
        """Let the recorded seconds pass, at this engine's speed."""
        rest = seconds / self._speed - (time.perf_counter() - begin)
        if rest > 0:
            self._handle.sleep(rest)
        self.ahead_s += seconds - (time.perf_counter() - begin)

    # ------------------------------------------------------------------ Engine
    @property
    def recipe(self) -> Recipe:
        return self._recipe

    @property
    def point(self) -> Params:
        """The recorded knobs and where they are now."""
        return dict(self._values)

    def knobs(self) -> dict[str, KnobStatus]:
        """What was recorded of each live knob; one that was not moved cannot be moved here."""
        self._alive()
        header = self.recording.header
        found = EngineKnobs()
        for name, status in header.knob_status.items():
            if name in header.knobs:
                # A list now, whatever it was: only what was recorded can be had.
                change: dict[str, Any] = {"values": header.knobs[name], "low": None, "high": None, "form": ""}
                change["value"] = self._values[name]
            elif status.live:
                moved = ", ".join(header.knobs)
                change = {"live": False, "why": f"recording {header.name} did not move it, only {moved}"}
            else:
                change = {}
            found[name] = status.model_copy(update=change)
        return found

    def state(self) -> EngineState:
        """The state that was recorded, with the knobs where they are now."""
        self._alive()
        header = self.recording.header
        return header.state.model_copy(
            update={
                "knobs": {**header.state.knobs, **self._values},
                "workers": [self._worker(worker) for worker in header.state.workers],
                "versions": {**header.state.versions, "replayed": header.origin},
            }
        )

    def _worker(self, worker: WorkerState) -> WorkerState:
        values = {name: self._values.get(name, value) for name, value in worker.values.items()}
        used = {name: self._used.get(name, value) for name, value in worker.used.items()}
        return worker.model_copy(update={"values": values, "used": used})

    def apply(self, **knobs: Any) -> ApplyReport:
        begin = time.perf_counter()
        self._alive()
        self._check_knobs(knobs)
        changed = {
            name: (self._values[name], value) for name, value in knobs.items() if self._values[name] != value
        }
        if not changed:
            return ApplyReport(changed={}, seconds=0.0)
        point = {**self._values, **knobs}
        if failure := self.recording.failure_of(point):
            self._take(failure.seconds, begin)
            raise ApplyError(f"{in_words(point)}: failed when it was recorded: {failure.error}")
        visit = self.next_visit(point)
        seconds = entering_s(self.recording, visit)
        self._values = point
        self._take(seconds, begin)
        return ApplyReport(changed=changed, seconds=seconds, kv_kept=visit.kv_kept)

    def _check_knobs(self, knobs: dict[str, Any]) -> None:
        status = self.knobs()
        for name, value in knobs.items():
            check_live(name, status, unknown="it was not recorded")
            if not status[name].allows(value):
                raise KnobError(f"{name} = {value!r}: not recorded; recorded were {status[name].allowed}")
        point = {**self._values, **knobs}
        if not self.recording.failure_of(point):
            self.next_visit(point)

    def measure(self, workload: Workload) -> Measurement:
        begin = time.perf_counter()
        self._alive()
        if problem := workload_problem(self.recording.header, workload):
            raise WorkloadError(problem)
        point = self.point
        if failure := self.recording.failure_of(point):
            self._take(failure.seconds, begin)
            raise MeasureError(f"{in_words(point)}: failed when it was recorded: {failure.error}")
        visit = self.next_visit(point)
        again = self._order.given(self.recording, point) >= len(self.recording.visits_of(point))
        measurement = replay_visit(self.recording, visit, workload, cold=self._cold, again=again)
        self._order.give(self.recording, point)
        self._cold, self._used = False, point
        self._take(measurement.duration_s, begin)
        return measurement

    def next_visit(self, point: Params) -> RecordedVisit:
        """The visit that the next measurement of a point gives.

        Raises
        ------
        KnobError
            If the point was not recorded.
        """
        visits = self.recording.visits_of(point)
        if not visits:
            near = "; ".join(map(in_words, self.recording.nearest(point)))
            known = f"recorded nearby: {near}" if near else f"{len(self.recording.points)} other points were"
            raise KnobError(f"{in_words(point)}: this combination was not recorded; {known}")
        return visits[self._order.index(self.recording, point)]

    # ------------------------------------------------------------------ life
    def _alive(self) -> None:
        if self._closed:
            raise EngineError("the engine is closed")

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        life = "closed" if self._closed else "running"
        return f"ReplayEngine({self._recipe.name}, {life}, replayed: {self.recording.header.origin})"
