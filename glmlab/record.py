"""Record a grid: visit every point of a running engine several times and keep all samples."""

from __future__ import annotations

import datetime as dt
import os
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from pydantic import ValidationError

import glmlab
from glmlab.engines.base import Engine, EngineState
from glmlab.errors import (
    ApplyError,
    EngineDiedError,
    GraphsLostError,
    KnobError,
    MeasureError,
    RecordingError,
)
from glmlab.hardware import machine
from glmlab.knob_table import knob
from glmlab.knobs import Params, in_words, params_key
from glmlab.recorded import GpuFacts, RecordingHeader, RecordingWriter
from glmlab.recordings.header import canonical
from glmlab.workload import Workload

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class RecordedGrid:
    """How a recording went.

    Attributes
    ----------
    visits, failed : int
        Visits that were written, and points that failed.
    ended : str
        Why it ended before its time; empty where it did not. What was written stays.
    """

    visits: int
    failed: int
    ended: str


def record_grid(
    engine: Engine,
    workload: Workload,
    points: Sequence[Mapping[str, Any]],
    visits: int,
    path: str | os.PathLike[str],
    *,
    name: str,
    title: str,
    notes: Sequence[str] = (),
    start_s: Sequence[float] = (),
    commit: str = "",
    seed: int = 0,
    decimals: int | None = 3,
    progress: Progress | None = None,
    stop: Callable[[], bool] | None = None,
) -> RecordedGrid:
    """Visit points in rounds, each round in an order of its own, and write each visit at once.

    The engine's own point comes first, if it is among them: its visit pays the prefill and whatever
    else a new engine pays, as the baseline of a study does. Every other visit enters its point from
    another one, so that what capturing CUDA graphs anew does to the times is among the samples. A
    point that cannot be applied or measured is written as
    failed and left out of later rounds. An engine that dies ends the recording.

    Parameters
    ----------
    engine : Engine
        Just started: its first measurement pays the prefill, and that is recorded with it.
    workload : Workload
        What each visit measures.
    points : sequence of mapping
        Live knobs with values; all points name the same knobs.
    visits : int
        To each point. A study needs one for its search and three or more to confirm.
    path : str or path
        A new ``.jsonl`` or ``.jsonl.gz`` file.
    name, title, notes, start_s, commit
        See :class:`~glmlab.recordings.header.RecordingHeader`; the start of this engine by default.
    seed : int
        Of the orders.
    decimals : int, optional
        See :class:`~glmlab.recordings.writer.RecordingWriter`.
    progress : callable
        Called after each visit with visits done, visits planned and a line of text.
    stop : callable
        Asked before each visit; true ends the recording there, e.g. when time is up.

    Raises
    ------
    InputError
        If the points, the file or the engine cannot be recorded; nothing was measured.
    """
    points = [{name: canonical(name, value) for name, value in point.items()} for point in points]
    knobs = _grid(points)
    if visits < 1:
        raise RecordingError(f"visits = {visits}: expected at least 1")
    if engine.evidence != "measured":
        raise RecordingError(
            f"engine: gives {engine.evidence} numbers; only what is measured can be recorded"
        )
    state = engine.state()
    here: Params = {key: state.knobs.get(key) for key in knobs}
    notes = [*notes, *_missing_start(here, points)]
    try:
        header = RecordingHeader(
            name=name,
            title=title,
            recipe=engine.recipe,
            workload=workload,
            knobs=knobs,
            knob_status=engine.knobs(),
            state=state,
            gpus=gpus_of(state),
            triton=_triton(),
            recorded_on=dt.datetime.now(dt.UTC).date(),
            glmlab=glmlab.__version__,
            commit=commit,
            start_s=tuple(start_s) or (engine.started.seconds,),
            notes=tuple(notes),
        )
    except ValidationError as error:
        raise RecordingError.from_validation(error, "header") from None
    with RecordingWriter(path, header, decimals=decimals) as writer:
        recorder = _Recorder(engine, workload, writer, progress or _silent, stop or _never)
        return recorder.go(points, visits, seed, here)


class _Recorder:
    def __init__(
        self,
        engine: Engine,
        workload: Workload,
        writer: RecordingWriter,
        progress: Progress,
        stop: Callable[[], bool],
    ) -> None:
        self._engine, self._workload = engine, workload
        self._writer, self._progress, self._stop = writer, progress, stop
        self._visited: set[str] = set()
        self._failed: set[str] = set()

    def go(self, points: Sequence[Mapping[str, Any]], visits: int, seed: int, here: Params) -> RecordedGrid:
        done, planned, ended = 0, len(points) * visits, ""
        for number in range(visits):
            left = [dict(p) for p in points if params_key(dict(p)) not in self._failed]
            for point in _round(left, here, random.Random(f"{seed}/{number}"), is_first=not number):
                if self._stop():
                    return RecordedGrid(done, len(self._failed), "stopped")
                begin = time.perf_counter()
                try:
                    text = self._visit(point)
                    done, here = done + 1, point
                except (EngineDiedError, GraphsLostError) as error:
                    text = ended = f"the engine is gone: {error}"
                    # A point that worked before need not be what killed the engine.
                    if params_key(point) not in self._visited:
                        self._fail(point, error, begin)
                except (KnobError, ApplyError, MeasureError) as error:
                    text = f"failed: {error}"
                    planned -= visits - number
                    self._fail(point, error, begin)
                self._progress(done, planned, f"{in_words(point)}: {text}")
                if ended:
                    return RecordedGrid(done, len(self._failed), ended)
        return RecordedGrid(done, len(self._failed), ended)

    def _visit(self, point: Params) -> str:
        report = self._engine.apply(**point)
        measurement = self._engine.measure(self._workload)
        self._writer.visit(
            knobs=point, apply_s=report.seconds, measurement=measurement, kv_kept=report.kv_kept
        )
        self._visited.add(params_key(point))
        tpot_ms = measurement.value("tpot_ms", self._workload)
        return f"{tpot_ms:.4g} ms per token, measured in {measurement.duration_s:.1f} s"

    def _fail(self, point: Params, error: Exception, begin: float) -> None:
        self._failed.add(params_key(point))
        self._writer.failed(point, str(error), seconds=time.perf_counter() - begin)


def _grid(points: Sequence[Mapping[str, Any]]) -> dict[str, tuple[Any, ...]]:
    """Knob -> values in the order in which they appear."""
    if not points:
        raise RecordingError("points: is empty; name at least one point")
    names = set(points[0])
    seen = set()
    for index, point in enumerate(points):
        for name in point:
            if knob(name).reach != "live":
                raise KnobError(
                    f"points[{index}].{name}: needs a new engine; record each of its values by itself"
                )
        if odd := sorted(names ^ set(point)):
            raise RecordingError(f"points[{index}].{odd[0]}: all points must name the same knobs")
        key = params_key(dict(point))
        if key in seen:
            raise RecordingError(f"points[{index}]: {in_words(point)} is listed twice")
        seen.add(key)
    return {name: tuple(dict.fromkeys(point[name] for point in points)) for name in points[0]}


def _round(points: list[Params], here: Params, stream: random.Random, *, is_first: bool) -> list[Params]:
    """Shuffled; the first round begins where the engine is, the others do not."""
    stream.shuffle(points)
    own = next((i for i, point in enumerate(points) if params_key(point) == params_key(here)), None)
    if own is not None and (is_first or own == 0):
        other = 0 if is_first else len(points) - 1
        points[own], points[other] = points[other], points[own]
    return points


def _silent(_done: int, _planned: int, _text: str) -> None: ...


def _never() -> bool:
    return False


def _missing_start(here: Params, points: Sequence[Mapping[str, Any]]) -> list[str]:
    if any(params_key(dict(point)) == params_key(here) for point in points):
        return []
    note = f"the engine's own values ({in_words(here)}) were not visited; a study's recipe must name others"
    return [note]


def gpus_of(state: EngineState) -> tuple[GpuFacts, ...]:
    """GPUs of this machine, unless the engine runs on the CPU."""
    if state.versions.get("device") == "cpu":
        return ()
    return tuple(
        GpuFacts(
            name=gpu.name,
            driver=gpu.driver,
            capability=gpu.capability,
            memory_bytes=gpu.memory_bytes,
            sm_clock_mhz=gpu.sm_clock_mhz,
            memory_clock_mhz=gpu.memory_clock_mhz,
            power_limit_w=gpu.power_limit_w,
        )
        for gpu in machine().gpus
    )


def _triton() -> str:
    try:
        return metadata.version("triton")
    except metadata.PackageNotFoundError:
        return ""
