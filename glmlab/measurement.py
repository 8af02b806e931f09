"""Measurement: what one visit to one engine state gave, with its raw samples."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from glmlab.errors import InputError
from glmlab.names import did_you_mean
from glmlab.workload import Workload

Evidence = Literal["measured", "replayed", "simulated", "predicted"]

SCHEMA = 1  # of everything that is stored with a trial


class _Record(BaseModel):
    # What a later version of this schema stored may hold more: what is known is read.
    model_config = ConfigDict(extra="ignore", frozen=True)


class PointMeasurement(_Record):
    """One (context, batch) point of a workload.

    Attributes
    ----------
    wall_step_ms : list of float
        Wall time of every engine step of the measured pass, prefill steps included.
    step_tokens : list of int
        Output tokens that each of those steps delivered, over all requests.
    token_gap_ms : list of float
        Time per output token after the first, every one of every request. A step that delivers
        k tokens of a request counts as k gaps of a k-th of its time.
    ttft_ms : list of float
        Time to first token of each request, from the moment the batch was handed over.
    cached_tokens : list of int
        Prompt tokens of each request that came from the prefix cache.
    device_step_ms : list of float or None
        Device time of further decode steps that delivered tokens: kernel time summed by the profiler on
        the rank that has most to compute. ``None`` where there is no device.
    device_compute_ms : list of float or None
        The same without collectives, whose kernels wait for other ranks and so move with their hosts.
        ``None`` where there were none.
    device_family_ms : dict or None
        Kernel family (collectives, attention, moe, gemm, other) -> mean time per step, of the same rank.
    device_pass_ms : float
        What those further steps took, profiler included.
    warmup_ms, warmup_ttft_ms, warmup_cached_tokens
        The pass before the measured one: its length, and its prompts, which pay the prefill the
        first time an engine sees them.
    elapsed_ms : float
        The measured pass, from handing over the batch to the last token.
    tokens : list of list of int
        Greedy output tokens of each request.
    """

    context: int
    batch: int
    wall_step_ms: list[float]
    step_tokens: list[int]
    token_gap_ms: list[float]
    ttft_ms: list[float]
    cached_tokens: list[int]
    device_step_ms: list[float] | None = None
    device_compute_ms: list[float] | None = None
    device_family_ms: dict[str, float] | None = None
    device_pass_ms: float = 0.0
    warmup_ms: float
    warmup_ttft_ms: list[float]
    warmup_cached_tokens: list[int]
    elapsed_ms: float
    tokens: list[list[int]]

    @property
    def tpot_ms(self) -> float:
        """Time per output token, median."""
        return quantile(self.token_gap_ms, 0.5)

    @property
    def tokens_per_s(self) -> float:
        """Output tokens per second of the whole measured pass, its prefill included."""
        return sum(len(row) for row in self.tokens) / self.elapsed_ms * 1e3


class WorkerMemory(_Record):
    """Memory of one worker process, in bytes.

    Attributes
    ----------
    peak_rss_bytes : int
        Of the host.
    device_bytes, peak_device_bytes : int or None
        Of the device: what torch's tensors take now, and the most that torch ever reserved.
        ``None`` without a device.
    """

    rank: int
    peak_rss_bytes: int
    device_bytes: int | None = None
    peak_device_bytes: int | None = None


class HostNoise(_Record):
    """What else the host was doing, and what was done to keep it quiet.

    Attributes
    ----------
    frozen_objects : int
        Objects that vLLM froze out of the garbage collector's sight.
    collector_paused : bool
        Whether collection was off during the measured passes.
    other_cpu_percent : float
        CPU time that processes other than the engine's used meanwhile, in percent of the machine.
    load_average : float
        Of the last minute, at the end.
    """

    frozen_objects: int
    collector_paused: bool
    other_cpu_percent: float
    load_average: float


class Measurement(_Record):
    """All points of a workload, measured in one visit to one engine state.

    Attributes
    ----------
    evidence : str
        ``measured``, ``replayed``, ``simulated`` or ``predicted``.
    started_unix_s, duration_s : float
        When, and how long, warm-up included.
    notes : list of str
        What a reader must know, in words.
    """

    schema_version: int = SCHEMA
    evidence: Evidence
    points: list[PointMeasurement] = Field(min_length=1)
    memory: list[WorkerMemory] = Field(default_factory=list)
    noise: HostNoise | None = None
    started_unix_s: float
    duration_s: float
    notes: list[str] = Field(default_factory=list)

    def point(self, context: int, batch: int) -> PointMeasurement:
        """The point of one context and batch size."""
        for point in self.points:
            if (point.context, point.batch) == (context, batch):
                return point
        known = ", ".join(f"({p.context}, {p.batch})" for p in self.points)
        raise InputError(f"point ({context}, {batch}): was not measured; measured: {known}")

    def value(self, metric: str, workload: Workload) -> float | None:
        """One number for the whole workload: the weighted mean over its points.

        Parameters
        ----------
        metric : str
            A name of :data:`METRICS`; its unit is part of it.
        workload : Workload
            Gives the weights of the contexts.

        Returns
        -------
        float or None
            ``None`` where the metric was not measured, e.g. device time on a CPU.
        """
        metric_of = find_metric(metric)
        if metric_of.of_memory:
            peaks = [m.peak_device_bytes or m.peak_rss_bytes for m in self.memory]
            return float(max(peaks)) if peaks else None
        total = weights = 0.0
        for point in self.points:
            value = metric_of.of_point(point)
            if value is None:
                return None
            weight = workload.weight(point.context)
            total, weights = total + weight * value, weights + weight
        return total / weights

    def same_tokens(self, other: Measurement) -> float:
        """Share of greedy tokens that equal another measurement's, 0 to 1, over common points."""
        same = count = 0
        for point in self.points:
            for twin in other.points:
                if (twin.context, twin.batch) != (point.context, point.batch):
                    continue
                for mine, theirs in zip(point.tokens, twin.tokens, strict=False):
                    count += max(len(mine), len(theirs))
                    same += sum(a == b for a, b in zip(mine, theirs, strict=False))
        return same / count if count else 0.0

    @property
    def prefill_ms(self) -> float:
        """Time that prompts took in the warm-up passes that had to compute them, summed."""
        return sum(
            max(p.warmup_ttft_ms)
            for p in self.points
            if min(p.warmup_cached_tokens, default=0) < p.context // 2
        )


class Metric(BaseModel):
    """How one number is read off a point.

    ``samples_of`` gives those whose median it is; a percentile, a rate and a peak are the median of none.
    """

    model_config = ConfigDict(frozen=True)

    name: str
    unit: str
    help: str
    maximize: bool = False
    needs_cold_prefill: bool = False
    of_memory: bool = False
    of_point: Callable[[PointMeasurement], float | None] = lambda _: None
    samples_of: Callable[[PointMeasurement], Sequence[float]] = lambda _: ()


def _device_ms(point: PointMeasurement) -> Sequence[float]:
    """Whole device time of each step; a pipeline's empty steps, which the first recordings have, are none."""
    return [sample for sample in point.device_step_ms or () if sample]


def _compute_ms(point: PointMeasurement) -> Sequence[float]:
    if "collectives" in (point.device_family_ms or {}):
        return point.device_compute_ms or ()  # not kept by versions that did not know it
    return _device_ms(point)


def _median(samples: Sequence[float]) -> float | None:
    return quantile(samples, 0.5) if samples else None


_METRICS = (
    Metric(
        name="tpot_ms",
        unit="ms",
        help="time per output token, median",
        of_point=lambda p: p.tpot_ms,
        samples_of=lambda p: p.token_gap_ms,
    ),
    Metric(
        name="tpot_p90_ms",
        unit="ms",
        help="time per output token, 90th percentile",
        of_point=lambda p: quantile(p.token_gap_ms, 0.9),
    ),
    Metric(
        name="tpot_p99_ms",
        unit="ms",
        help="time per output token, 99th percentile",
        of_point=lambda p: quantile(p.token_gap_ms, 0.99),
    ),
    Metric(
        name="device_ms",
        unit="ms",
        help="device time of a decode step, median",
        of_point=lambda p: _median(_device_ms(p)),
        samples_of=_device_ms,
    ),
    Metric(
        name="compute_ms",
        unit="ms",
        help="device time of a decode step without collectives, median",
        of_point=lambda p: _median(_compute_ms(p)),
        samples_of=_compute_ms,
    ),
    Metric(
        name="ttft_ms",
        unit="ms",
        help="time to first token of an uncached prompt, median over the batch",
        needs_cold_prefill=True,
        of_point=lambda p: quantile(p.ttft_ms, 0.5),
        samples_of=lambda p: p.ttft_ms,
    ),
    Metric(
        name="tokens_per_s",
        unit="tokens/s",
        help="output tokens per second of the batch, prefill included",
        maximize=True,
        of_point=lambda p: p.tokens_per_s,
    ),
    Metric(
        name="peak_memory_bytes",
        unit="bytes",
        help="peak memory of the fullest worker",
        of_memory=True,
    ),
)

METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}


def kernel_metric(measurements: Iterable[Measurement]) -> str | None:
    """What to compare kernels by: the device time that repeats best; ``None`` where there is no device.

    Over several ranks that is ``compute_ms``: an all-reduce's kernel waits for the last rank, so whole
    device time has in it how far the ranks' hosts are apart.
    """
    points = [point for each in measurements for point in each.points]
    if not points or not all(map(_device_ms, points)):
        return None
    several = any("collectives" in (point.device_family_ms or {}) for point in points)
    return "compute_ms" if several and all(map(_compute_ms, points)) else "device_ms"


def find_metric(name: str) -> Metric:
    """Look a metric up; :class:`InputError` with the nearest names where there is none."""
    if name not in METRICS:
        raise InputError(f"{name}: no such metric{did_you_mean(name, METRICS)}")
    return METRICS[name]


def quantile(samples: Sequence[float], share: float) -> float:
    """Quantile by linear interpolation between order statistics (Hyndman and Fan's type 7).

    Parameters
    ----------
    samples : sequence of float
        At least one.
    share : float
        0 to 1.
    """
    if share == 0.5:
        return statistics.median(samples)
    return quantile_of_sorted(sorted(samples), share)


def quantile_of_sorted(ordered: Sequence[float], share: float) -> float:
    """:func:`quantile` of what is sorted already, for who asks for several."""
    place = share * (len(ordered) - 1)
    below = int(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)
