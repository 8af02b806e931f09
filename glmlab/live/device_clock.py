"""Device time of engine steps: kernel time, summed by the profiler, in all and by kernel family.

Wall time of a small model's step moves by 20 % with the host's mood, kernel time by 1 %, so
between kernel settings it is kernel time that decides.
"""

from __future__ import annotations

import bisect
from collections import defaultdict
from typing import Any

import torch

DEVICE_STEPS = 8  # whole decode steps per measured point, beyond those of the measured pass

# Family -> parts of kernel names, lower case; the first family that matches has the kernel. Names as
# vLLM 0.26 and 0.32 launch them on Hopper: Triton's own, FlashAttention's, cuBLAS's (nvjet).
_FAMILIES: dict[str, tuple[str, ...]] = {
    "collectives": ("nccl", "all_reduce", "allreduce", "cross_device_reduce", "one_shot", "two_shot"),
    "attention": (
        *("attention", "reduce_segments", "_fwd_grouped_kernel", "_fwd_kernel_stage", "flash"),
        *("merge_attn", "reshape_and_cache", "cache_mla"),
    ),
    "moe": ("moe", "topk", "count_and_sort_expert", "expert"),
    "gemm": ("gemm", "nvjet", "gemv", "splitk", "cutlass", "marlin", "_w8a8_"),
}


def family_of(kernel: str) -> str:
    """Family of a kernel by its name: collectives, attention, moe, gemm or other (norms, sampling, ...)."""
    name = kernel.lower()
    for family, parts in _FAMILIES.items():
        if any(part in name for part in parts):
            return family
    return "other"


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

    def stop(self, step_ends_ns: list[int]) -> dict[str, Any]:
        """End, and share the kernels out to steps.

        Parameters
        ----------
        step_ends_ns : list of int
            Unix time at which the host saw each step end, in ns; the first is where the first whole step
            begins. A step's result is read back before it ends, so a kernel that started before that
            belongs to it.

        Returns
        -------
        dict
            ``step_ms``: kernel time of each step, one less than ends. ``collectives_ms``: what of it went
            into collectives, whose kernels wait for other ranks. ``family_ms``: family -> its mean per
            step.
        """
        torch.accelerator.synchronize()
        self._profiler.__exit__(None, None, None)
        ends = len(step_ends_ns)
        totals_ns, collectives_ns = [0] * (ends + 1), [0] * (ends + 1)  # with what lies before and after
        families_ns: dict[str, int] = defaultdict(int)
        for event in self._profiler.profiler.kineto_results.events():
            if event.device_type() == torch.autograd.DeviceType.CPU:
                continue
            step = bisect.bisect_left(step_ends_ns, event.start_ns())
            family = family_of(event.name())
            totals_ns[step] += event.duration_ns()
            if family == "collectives":
                collectives_ns[step] += event.duration_ns()
            if 0 < step < ends:
                families_ns[family] += event.duration_ns()
        self._profiler = None
        steps = max(1, ends - 1)
        return {
            "step_ms": [round(total / 1e6, 5) for total in totals_ns[1:ends]],
            "collectives_ms": [round(total / 1e6, 5) for total in collectives_ns[1:ends]],
            "family_ms": {name: round(total / 1e6 / steps, 5) for name, total in sorted(families_ns.items())},
        }
