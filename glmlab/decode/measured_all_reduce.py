"""All-reduces as an engine measured them, in place of the packaged tables.

What counts is vLLM's own choice of path (``vllm``), as a decode step makes it, and its *device* time: a CUDA
graph launches all kernels of a step at once, and that is how it is measured. The wall time of one call has
a launch and a wait of the host in it, which are no part of a step; where there is no other time, it is left
out.

How far a time in a step may be from it is ``probed_all_reduce_share`` of ``data/calibration/decode.yaml``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

from glmlab.all_reduce_time import AllReduceTime
from glmlab.decode.all_reduce import between_sizes
from glmlab.errors import InputError
from glmlab.units import format_bytes
from glmlab.yaml_text import kind_of

_AS_A_STEP = "vllm"  # the path that a decode step takes
_LEAST_SIZES = 2  # between which there is a line


@dataclass(frozen=True)
class MeasuredAllReduce:
    """What can be used of some measured all-reduces.

    Attributes
    ----------
    us : dict
        Ranks -> bytes of the message, ascending -> microseconds on the device.
    why_not : dict
        Ranks that were measured and cannot be used -> why, in a few words.
    """

    us: dict[int, dict[int, float]]
    why_not: dict[int, str]

    @classmethod
    def of(cls, times: Iterable[AllReduceTime]) -> Self:
        """Sort out what an engine measured.

        Raises
        ------
        InputError
            If a size is there twice for as many ranks: those of two plans are not one table.
        """
        by_ranks: dict[int, dict[int, AllReduceTime]] = {}
        for time in times:
            if not isinstance(time, AllReduceTime):
                raise InputError(
                    f"all_reduce: expected AllReduceTime objects, found {kind_of(time)}; those of a study lie"
                    " by plan, such as store.all_reduce_times['tensor_parallel=2']"
                )
            if time.path != _AS_A_STEP:
                continue
            same = by_ranks.setdefault(time.ranks, {})
            if time.bytes in same:
                raise InputError(
                    f"all_reduce: {time.ranks} ranks at {time.bytes:,} bytes is there twice; give the times"
                    " of one plan"
                )
            same[time.bytes] = time
        us: dict[int, dict[int, float]] = {}
        why_not: dict[int, str] = {}
        for ranks, sizes in by_ranks.items():
            usable = {size: time.device_us for size, time in sorted(sizes.items()) if time.right}
            known = {size: taken for size, taken in usable.items() if taken}
            if len(known) >= _LEAST_SIZES:
                us[ranks] = known
            elif not usable:
                why_not[ranks] = "their sums were wrong"
            elif not known:
                why_not[ranks] = (
                    "wall time alone was measured, which has launches in it that a CUDA graph saves"
                )
            else:
                why_not[ranks] = "a single size was measured"
        return cls(us, why_not)

    def largest_bytes(self, ranks: int) -> int:
        """The largest message that was measured."""
        return max(self.us[ranks])

    def microseconds(self, ranks: int, size: float) -> float:
        """Of one all-reduce of so many bytes; beyond the largest as that."""
        sizes = self.us[ranks]
        # A rank that comes late makes a time too long, never too short: larger messages bound smaller ones.
        least = reversed(list(accumulate(reversed(sizes.values()), min)))
        points = list(zip(sizes, least, strict=True))
        return between_sizes(points, min(size, points[-1][0]))

    def note(self, ranks: int) -> str:
        """Which times a prediction is made with, in one line."""
        if ranks in self.us:
            largest = format_bytes(self.largest_bytes(ranks))
            return (
                f"all-reduces of {ranks} ranks as they were measured, by device time, up to {largest}; larger"
                " ones from the packaged tables"
            )
        why = self.why_not.get(ranks, "none was measured")
        return f"all-reduces of {ranks} ranks from the packaged tables: {why}"
