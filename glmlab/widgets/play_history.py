"""What playing with an engine gave, in words and as columns: this round beside the one before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glmlab.knobs import word
from glmlab.measurement import METRICS, Measurement, PointMeasurement, kernel_metric, quantile
from glmlab.units import format_duration, format_ms
from glmlab.widgets.player import Round


def metric_for(*measurements: Measurement) -> str:
    """Device time where every point of all has it, since it repeats best; else the time per output token."""
    return kernel_metric(measurements) or "tpot_ms"


def headline(measurement: Measurement) -> PointMeasurement:
    """The point that is told in words: the longest context, and of its batches the smallest."""
    return max(measurement.points, key=lambda point: (point.context, -point.batch))


def settings_text(this: Round, former: Round | None) -> str:
    """What differs between two rounds, as ``kv_splits 16 → 64``."""
    if former is None or former.recipe != this.recipe:
        return f"as started: {this.recipe.name}"
    changes = [
        f"{name} {word(former.values.get(name))} → {word(value)}"
        for name, value in this.values.items()
        if former.values.get(name) != value
    ]
    return ", ".join(changes) or "nothing changed"


def label(this: Round, other: Round | None) -> str:
    """A round's name in a chart: its number, and the values in which it differs from another one."""
    if other is None or other.recipe != this.recipe:
        return f"#{this.number} {this.recipe.name}"
    own = [f"{name} {word(value)}" for name, value in this.values.items() if other.values.get(name) != value]
    return f"#{this.number} {', '.join(own) or 'same settings'}"


def result_line(this: Round, former: Round | None) -> str:
    """One round in words: what changed, what a token takes now and took, what the change cost."""
    metric = metric_for(this.measurement, *([former.measurement] if former else []))
    point = headline(this.measurement)
    now = _median(point, metric)
    what = f"{settings_text(this, former)}: " if former else f"#{this.number}, {settings_text(this, None)}: "
    before = _same_point(former, point)
    was = f"{format_ms(_median(before, metric))} before, " if before else ""
    ratio = f" (× {now / _median(before, metric):.3g})" if before and _median(before, metric) else ""
    spread = METRICS[metric].samples_of(point)
    where = f"at {point.context:,} tokens of context and batch {point.batch}"
    low, high = (format_ms(quantile(spread, share)) for share in (0.1, 0.9))
    sure = f"p10 to p90 {low} to {high} of {len(spread)} samples ({this.measurement.evidence})"
    said = f"{what}{was}{format_ms(now)}{ratio} {METRICS[metric].help}, {where}; {sure}"
    return "; ".join([said, *_costs(this), *_tokens(this)]) + "."


def _costs(this: Round) -> list[str]:
    report = this.report
    if report is None or not report.changed:
        return []
    kept = "KV kept" if report.kv_kept else "KV dropped"
    graphs = f", {report.graphs_captured} graphs captured anew" if report.graphs_captured else ""
    took = format_duration(report.seconds) if report.seconds >= 1 else format_ms(report.seconds * 1e3)
    return [f"changed in {took}, {kept}{graphs}"]


def _tokens(this: Round) -> list[str]:
    return (
        [] if this.same_tokens is None else [f"{this.same_tokens:.1%} of the tokens as in the round before"]
    )


def history_columns(rounds: Sequence[Round]) -> Mapping[str, Sequence[Any]]:
    """One row a round, the last one first; names of columns carry the units."""
    metric = metric_for(*(each.measurement for each in rounds))
    newest = list(reversed(rounds))
    points = [headline(each.measurement) for each in newest]
    formers = [*reversed(rounds[:-1]), None] if rounds else []
    reports = [each.report if each.report and each.report.changed else None for each in newest]
    samples = [METRICS[metric].samples_of(point) for point in points]
    return {
        "#": [each.number for each in newest],
        "settings": [settings_text(each, former) for each, former in zip(newest, formers, strict=True)],
        "context (tokens)": [point.context for point in points],
        "batch": [point.batch for point in points],
        f"{metric}, median": [quantile(each, 0.5) for each in samples],
        "p10 to p90": [f"{quantile(each, 0.1):.4g} to {quantile(each, 0.9):.4g}" for each in samples],
        "same tokens (%)": [None if each.same_tokens is None else each.same_tokens * 100 for each in newest],
        "change (s)": [None if each is None else round(each.seconds, 4) for each in reports],
        "KV": ["" if each is None else "kept" if each.kv_kept else "dropped" for each in reports],
        "evidence": [each.measurement.evidence for each in newest],
    }


def _same_point(former: Round | None, point: PointMeasurement) -> PointMeasurement | None:
    if former is None:
        return None
    same = (
        each
        for each in former.measurement.points
        if (each.context, each.batch) == (point.context, point.batch)
    )
    return next(same, None)


def _median(point: PointMeasurement, metric: str) -> float:
    return quantile(METRICS[metric].samples_of(point), 0.5)
