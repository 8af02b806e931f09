"""A metric as a chart shows it: a value with its spread, the words for its axis, its digits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from textwrap import wrap
from typing import NamedTuple

from glmlab.errors import InputError
from glmlab.measurement import (
    METRICS,
    Measurement,
    Metric,
    PointMeasurement,
    find_metric,
    kernel_metric,
    quantile_of_sorted,
)
from glmlab.study_spec import StudySpec
from glmlab.trial_record import TrialRecord
from glmlab.workload import Workload

_TITLE_WIDTH = 40  # characters: a low chart must hold them along its side
_LOG_FROM = 8.0  # times from the smallest to the largest: below, a linear axis shows them all


class Spread(NamedTuple):
    """A value and the 10th and 90th percentile of its samples; ``None`` where it has no samples."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def words(self) -> str:
        if self.low is None or self.high is None:
            return "one value a visit, no spread"
        return f"p10 {digits(self.low)}, p90 {digits(self.high)} of its samples"


def point_spread(point: PointMeasurement, metric: str) -> Spread | None:
    """A metric at one context and batch; ``None`` where it was not measured."""
    value = find_metric(metric).of_point(point)
    if value is None:
        return None
    samples = find_metric(metric).samples_of(point)
    if not samples:
        return Spread(value)
    ordered = sorted(samples)
    return Spread(value, quantile_of_sorted(ordered, 0.1), quantile_of_sorted(ordered, 0.9))


def whole_spread(measurement: Measurement, metric: str, workload: Workload) -> Spread | None:
    """A metric over a whole workload: value and percentiles each as the weighted mean over its points."""
    value = measurement.value(metric, workload)
    if value is None:
        return None
    if find_metric(metric).of_memory:
        return Spread(value)
    low = high = weights = 0.0
    for point in measurement.points:
        samples = find_metric(metric).samples_of(point)
        if not samples:
            return Spread(value)
        ordered = sorted(samples)
        weight = workload.weight(point.context)
        low += weight * quantile_of_sorted(ordered, 0.1)
        high += weight * quantile_of_sorted(ordered, 0.9)
        weights += weight
    return Spread(value, low / weights, high / weights)


def point_metric(records: Sequence[TrialRecord], spec: StudySpec, metric: str | None) -> str:
    """The metric of a chart over contexts, checked or chosen.

    Chosen: device time where every record has it, else the objective, else time per token.

    Raises
    ------
    InputError
        For a name that is no metric, or one of a whole measurement.
    """
    if metric is not None:
        return check_point_metric(metric)
    measured = [r.measurement for r in records if r.measurement is not None]
    if (found := kernel_metric(measured)) is not None:
        return found
    objective = spec.objective[0]
    return "tpot_ms" if METRICS[objective].of_memory else objective


def check_point_metric(metric: str) -> str:
    """Refuse a metric that no context or batch has by itself."""
    if find_metric(metric).of_memory:
        known = ", ".join(name for name, each in METRICS.items() if not each.of_memory)
        raise InputError(f"metric = {metric!r}: is of a whole measurement, not of a context; known: {known}")
    return metric


def axis_title(metric: str, *, log: bool = False, arrow: str = "") -> str:
    """A metric in words, with its unit and which way is better."""
    found = find_metric(metric)
    scale = ", log2 scale" if log else ""
    lines = [*wrap(found.help, _TITLE_WIDTH), f"[{found.unit}{scale}], {arrow}{direction(found)}"]
    return "<br>".join(lines)


def direction(metric: Metric) -> str:
    """Which way is better, in words."""
    return "higher is better" if metric.maximize else "lower is better"


def is_wide(values: Iterable[float | None]) -> bool:
    """Whether values are better read on a logarithmic axis."""
    known = [value for value in values if value is not None]
    return bool(known) and min(known) > 0 and max(known) / min(known) >= _LOG_FROM


def digits(value: float) -> str:
    """Four significant digits, never in exponent form."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if abs(value) >= 1e-4 or not value else f"{value:.6f}"


def with_unit(value: float, metric: str) -> str:
    """A metric's value as text."""
    return f"{digits(value)} {find_metric(metric).unit}"


def times(ratio: float) -> str:
    """A ratio as people write it."""
    return f"×{ratio:.3f}" if ratio < 10 else f"×{ratio:.1f}"
