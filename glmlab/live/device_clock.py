"""Device time of engine steps: kernel time, summed by the profiler.

Wall time of a small model's step moves by 20 % with the host's mood, kernel time by 1 %, so
between kernel settings it is kernel time that decides.
"""

from __future__ import annotations

import bisect
from typing import Any

import torch

DEVICE_STEPS = 8  # further decode steps per measured point


class DeviceClock:
    """Sums kernel time between :meth:`start` and :meth:`stop`."""

    def __init__(self) -> None:
        self._profiler: Any = None

    def start(self) -> None:
        """Begin; waits for the device first, so that older work is not counted."""
        torch.accelerator.synchronize()
        self._profiler = torch.profiler.profile(
            activities=[torch.profiler.ProfilerActivity.CUDA], acc_events=True
        )
        self._profiler.__enter__()

    def stop(self, step_ends_ns: list[int]) -> list[float]:
        """End, and share the kernels out to steps.

        Parameters
        ----------
        step_ends_ns : list of int
            Unix time at which the host saw each step end, in ns. A step's result is read back
            before it ends, so a kernel that started before that belongs to it.

        Returns
        -------
        list of float
            Kernel time of each step, in ms.
        """
        torch.accelerator.synchronize()
        self._profiler.__exit__(None, None, None)
        totals_ns = [0] * (len(step_ends_ns) + 1)
        for event in self._profiler.profiler.kineto_results.events():
            if event.device_type() != torch.autograd.DeviceType.CPU:
                totals_ns[bisect.bisect_left(step_ends_ns, event.start_ns())] += event.duration_ns()
        self._profiler = None
        return [total / 1e6 for total in totals_ns[: len(step_ends_ns)]]
