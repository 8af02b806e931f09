"""Numbers and knobs as a report says them: with unit and spread, never in exponent form."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from glmlab.figures.quantity import times
from glmlab.measurement import METRICS
from glmlab.stats import Verdict
from glmlab.units import format_bytes


def digits(value: float) -> str:
    """Four significant digits."""
    if value == 0 or not math.isfinite(value):
        return f"{value:g}"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.{max(0, 3 - math.floor(math.log10(abs(value))))}f}"


def meaning(metric: str) -> str:
    """What a metric is, as a part of a sentence: its help without its commas."""
    head, _, rest = METRICS[metric].help.partition(", ")
    return f"{head} ({rest})" if rest else head


def quantity(metric: str, value: float) -> str:
    """A value with the unit of its metric."""
    unit = METRICS[metric].unit
    return format_bytes(value) if unit == "bytes" else f"{digits(value)} {unit}"


def spread(metric: str, values: Sequence[float]) -> str:
    """The median of some visits with the lowest and the highest."""
    middle = quantity(metric, statistics.median(values))
    if len(values) == 1:
        return f"{middle} (one visit)"
    unit = METRICS[metric].unit
    show = format_bytes if unit == "bytes" else digits
    return f"{middle} ({show(min(values))} to {show(max(values))})"


def interval(verdict: Verdict) -> str:
    """A ratio with its interval."""
    if verdict.low is None or verdict.high is None:
        return f"{times(verdict.ratio)} (no interval)"
    return f"{times(verdict.ratio)} ({times(verdict.low)[1:]} to {times(verdict.high)[1:]})"


def in_a_row(items: Sequence[object]) -> str:
    """Items as a sentence lists them."""
    texts = [f"{item:,}" if isinstance(item, int) else str(item) for item in items]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"
