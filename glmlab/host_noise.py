"""Keep the host quiet while an engine is timed, and say how quiet it was."""

from __future__ import annotations

import contextlib
import gc
import os
from typing import Self

import psutil

from glmlab.measurement import HostNoise


def frozen_heap() -> int:
    """Objects that the collector does not look at; freezes the heap first if nothing is frozen.

    vLLM freezes its heap at start, which keeps the collector away from a million objects. Counting
    them takes 80 ms, so an engine asks when it starts and after what may have thawed it.
    """
    count = gc.get_freeze_count()
    if count < 1000:
        gc.collect()
        gc.freeze()
        count = gc.get_freeze_count()
    return count


class QuietHost:
    """Context in which the garbage collector sleeps and foreign CPU time is counted.

    Parameters
    ----------
    frozen_objects : int
        As :func:`frozen_heap` counted them.
    """

    def __init__(self, frozen_objects: int) -> None:
        self._process = psutil.Process()
        self._frozen_objects = frozen_objects

    def __enter__(self) -> Self:
        self._was_enabled = gc.isenabled()
        gc.disable()
        self._busy_s, self._own_s = _machine_busy_s(), self._tree_s()
        self._total_s = _machine_total_s()
        return self

    def __exit__(self, *_: object) -> None:
        if self._was_enabled:
            gc.enable()
        total = max(_machine_total_s() - self._total_s, 1e-9)
        other = (_machine_busy_s() - self._busy_s) - (self._tree_s() - self._own_s)
        self.noise = HostNoise(
            frozen_objects=self._frozen_objects,
            collector_paused=True,
            other_cpu_percent=round(min(max(100 * other / total, 0.0), 100.0), 1),
            load_average=round(os.getloadavg()[0], 2),
        )

    def _tree_s(self) -> float:
        """CPU seconds of this process and all below it."""
        seconds = 0.0
        for process in [self._process, *self._process.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                times = process.cpu_times()
                seconds += times.user + times.system
        return seconds


def _machine_busy_s() -> float:
    times = psutil.cpu_times()
    return times.user + times.system + times.nice


def _machine_total_s() -> float:
    return sum(psutil.cpu_times()[:8])
