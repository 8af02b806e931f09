"""Compare: measurements beside each other, a metric against context."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import plotly.graph_objects as go

from glmlab import theme as themes
from glmlab.figures.chart import ChartData, dress, hover, nothing
from glmlab.figures.context_axis import Line, draw_lines
from glmlab.figures.quantity import (
    Spread,
    check_point_metric,
    point_spread,
    times,
    with_unit,
)
from glmlab.measurement import Measurement


@dataclass(frozen=True, kw_only=True)
class CompareData(ChartData):
    """Measurements in the order in which they were given: the first is what the others are compared with.

    Attributes
    ----------
    points : tuple of dict
        Label by label: (context, batch) -> value with p10 and p90 of its samples.
    evidences : tuple of str
        What each one's numbers are.
    same_tokens : tuple of float
        Share of greedy output tokens equal to the first one's, 0 to 1.
    """

    metric: str
    labels: tuple[str, ...]
    points: tuple[Mapping[tuple[int, int], Spread], ...]
    evidences: tuple[str, ...]
    same_tokens: tuple[float, ...]

    def ratio(self, index: int, point: tuple[int, int]) -> float | None:
        """To the first measurement at the same point."""
        base = self.points[0].get(point)
        return self.points[index][point].value / base.value if base and base.value else None

    def columns(self) -> Mapping[str, Sequence[Any]]:
        rows = [(i, point, spread) for i, each in enumerate(self.points) for point, spread in each.items()]
        return {
            "label": [self.labels[i] for i, _, _ in rows],
            "context_tokens": [point[0] for _, point, _ in rows],
            "batch_requests": [point[1] for _, point, _ in rows],
            self.metric: [spread.value for _, _, spread in rows],
            f"{self.metric}_p10": [spread.low for _, _, spread in rows],
            f"{self.metric}_p90": [spread.high for _, _, spread in rows],
            "ratio_to_first": [self.ratio(i, point) for i, point, _ in rows],
            "same_tokens_share": [self.same_tokens[i] for i, _, _ in rows],
            "evidence": [self.evidences[i] for i, _, _ in rows],
        }


def compare_data(measurements: Mapping[str, Measurement], metric: str = "tpot_ms") -> CompareData:
    """Put measurements beside each other.

    Parameters
    ----------
    measurements : mapping
        Label -> measurement; the first is the one to compare with.
    metric : str
        One that each point has.

    Raises
    ------
    InputError
        For a name that is no metric, or one of a whole measurement.
    """
    check_point_metric(metric)
    found = list(measurements.values())
    points = []
    for each in found:
        spreads = {(p.context, p.batch): point_spread(p, metric) for p in each.points}
        points.append({point: spread for point, spread in spreads.items() if spread is not None})
    missing = ""
    if not any(points):
        missing = f"No measurement with {metric}." if found else "Nothing has been measured yet."
    return CompareData(
        title=f"{metric} against context",
        evidence=", ".join(dict.fromkeys(each.evidence for each in found)) or "measured",
        missing=missing,
        metric=metric,
        labels=tuple(measurements),
        points=tuple(points),
        evidences=tuple(each.evidence for each in found),
        same_tokens=tuple(each.same_tokens(found[0]) for each in found),
    )


def draw_compare(data: CompareData, theme: str = "auto") -> go.Figure:
    """Draw it: the first one in ink, the last one heavy, a panel for each batch size."""
    if data.is_empty:
        return nothing(data, theme)
    last = len(data.labels) - 1
    first = themes.Style(themes.ink(theme).strong, themes.BASELINE_MARKER, "dash")
    lines = [
        Line(
            name=label if len(set(data.evidences)) == 1 else f"{label} ({data.evidences[index]})",
            group=str(index),
            rank=index,
            points=data.points[index],
            look=look,
            is_heavy=index == last,
            hover=partial(_hover, data, index),
        )
        for index, (label, look) in enumerate(zip(data.labels, [first, *themes.styles(last)], strict=True))
    ]
    figure = draw_lines(lines, data.metric)
    dress(figure, data, theme, _subtitle(data))
    return figure


def _subtitle(data: CompareData) -> str:
    said = ["bars: p10 to p90 of the samples"]
    if len(data.labels) > 1:
        last = data.labels[-1]
        said.append(f"{last} gives {data.same_tokens[-1]:.0%} of the tokens of {data.labels[0]}")
        ratios = [ratio for point in data.points[-1] if (ratio := data.ratio(len(data.labels) - 1, point))]
        if ratios:
            said.append(f"{times(min(ratios))} to {times(max(ratios))} of its {data.metric}")
    return "; ".join(said)


def _hover(data: CompareData, index: int, point: tuple[int, int]) -> str:
    spread, ratio = data.points[index][point], data.ratio(index, point)
    beside = f", {times(ratio)} of {data.labels[0]}" if index and ratio is not None else ""
    return hover(
        [
            data.labels[index],
            f"context {point[0]:,} tokens, batch {point[1]}",
            f"{data.metric} {with_unit(spread.value, data.metric)}{beside}",
            spread.words,
            f"{data.same_tokens[index]:.0%} of the tokens of {data.labels[0]}" if index else "",
        ]
    )
