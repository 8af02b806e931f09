"""Heat map: values of a knob against contexts, each cell beside the baseline at the same context."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from glmlab import theme as themes
from glmlab.dimension import Value
from glmlab.errors import InputError
from glmlab.figures.chart import ChartData, canvas, hover, nothing, plain
from glmlab.figures.context import ContextData, ContextLine, context_data
from glmlab.figures.quantity import digits, times, with_unit
from glmlab.knobs import in_words
from glmlab.measurement import find_metric
from glmlab.study_spec import StudySpec
from glmlab.trial_record import TrialRecord

# Rows up to which there is room for a cell's numbers below each other, beside each other, and for names.
_TWO_LINES, _ONE_LINE, _NAMED = 10, 20, 40
# Ends of the colours, as logarithms to base 2: at least 5 % either way, so that noise does not look like a
# result; at most twice and half, so that one bad value does not take the colour from all others.
_LEAST, _MOST = math.log2(1.05), 1.0
_EVEN = "#DDDDDD"


@dataclass(frozen=True, kw_only=True)
class HeatmapData(ChartData):
    """The best trial of each value of a knob at each context, for one batch size.

    Attributes
    ----------
    batches : tuple of int
        All that were measured; ``batch`` is one of them.
    rows : tuple of ContextLine
        One for each value of the knob, in order.
    baseline : ContextLine or None
        What ratios are to; it need not be a row, where another trial with its value is better.
    """

    knob: str
    metric: str
    batch: int
    batches: tuple[int, ...]
    contexts: tuple[int, ...]
    rows: tuple[ContextLine, ...]
    baseline: ContextLine | None

    def value(self, row: ContextLine, context: int) -> float | None:
        spread = row.points.get((context, self.batch))
        return None if spread is None else spread.value

    def ratio(self, row: ContextLine, context: int) -> float | None:
        """To the baseline at the same context; ``None`` where either was not measured."""
        value = self.value(row, context)
        base = self.value(self.baseline, context) if self.baseline else None
        return value / base if value is not None and base else None

    def columns(self) -> Mapping[str, Sequence[Any]]:
        cells = [
            (row, context)
            for row in self.rows
            for context in self.contexts
            if (context, self.batch) in row.points
        ]
        spreads = [row.points[context, self.batch] for row, context in cells]
        return {
            self.knob: [row.value for row, _ in cells],
            "context_tokens": [context for _, context in cells],
            "batch_requests": [self.batch] * len(cells),
            self.metric: [spread.value for spread in spreads],
            f"{self.metric}_p10": [spread.low for spread in spreads],
            f"{self.metric}_p90": [spread.high for spread in spreads],
            "ratio_to_baseline": [self.ratio(row, context) for row, context in cells],
            "trial": [row.trial for row, _ in cells],
            "evidence": [self.evidence] * len(cells),
        }


def heatmap_data(
    records: Sequence[TrialRecord],
    spec: StudySpec,
    knob: str | None = None,
    metric: str | None = None,
    batch: int | None = None,
    *,
    baseline: Mapping[str, Value] | None = None,
) -> HeatmapData:
    """Read values of a knob against contexts off a study's records.

    Parameters
    ----------
    records, spec, knob, metric, baseline
        As for :func:`~glmlab.figures.context_data`.
    batch : int, optional
        Batch size; the smallest by default.

    Raises
    ------
    InputError
        For a knob, metric or batch size that there is not.
    """
    found: ContextData = context_data(records, spec, knob, metric, baseline=baseline)
    batches = found.batches or sorted(spec.effective_workload.batch_sizes)
    batch = batches[0] if batch is None else batch
    if batch not in batches:
        raise InputError(f"batch = {batch}: was not measured; measured: {', '.join(map(str, batches))}")
    # Of two trials with the baseline's value the better one is the row.
    rows = {line.value: line for line in found.lines}
    return HeatmapData(
        title=f"{found.metric} by {found.knob} and context, batch {batch}",
        evidence=found.evidence,
        missing=found.missing,
        knob=found.knob,
        metric=found.metric,
        batch=batch,
        batches=tuple(batches),
        contexts=tuple(sorted({c for line in rows.values() for c, b in line.points if b == batch})),
        rows=tuple(rows.values()),
        baseline=found.baseline,
    )


def draw_heatmap(data: HeatmapData, theme: str = "auto") -> go.Figure:
    """Draw it: colour is the ratio to the baseline, blue the better; without one, the value itself."""
    if data.is_empty:
        return nothing(data, theme)
    metric = find_metric(data.metric)
    names = [plain(row.label) for row in data.rows]
    columns = [f"{context:,}" for context in data.contexts]
    text = [[_cell(data, row, context) for context in data.contexts] for row in data.rows]
    written = len(data.rows) <= _ONE_LINE
    subtitle = f"{metric.help} [{metric.unit}]"
    if data.baseline is not None:
        way = "above" if metric.maximize else "below"
        subtitle += f"; ratio to the baseline, {way} ×1 is better"
    figure = canvas(data, theme, subtitle)
    figure.add_heatmap(
        x=columns,
        y=names,
        text=text,
        texttemplate="%{text}" if written else None,
        customdata=[[_hover(data, row, context) for context in data.contexts] for row in data.rows],
        hovertemplate="%{customdata}<extra></extra>",
        hoverongaps=False,
        xgap=2,
        ygap=2 if written else 0,
        **_colours(data),
    )
    figure.update_layout(
        xaxis={"title": {"text": "context [tokens]"}, "type": "category", "showgrid": False},
        yaxis={
            "title": {"text": data.knob},
            "type": "category",
            "showgrid": False,
            "tickfont": {"size": 12 if len(names) <= _TWO_LINES else 9},
            "tickvals": _named_rows(data),
        },
    )
    _frame_baseline(figure, data, themes.ink(theme))
    return figure


def _colours(data: HeatmapData) -> dict[str, Any]:
    metric = find_metric(data.metric)
    if data.baseline is None:
        values = [[data.value(row, context) for context in data.contexts] for row in data.rows]
        title = {"text": f"{data.metric}<br>[{metric.unit}]"}
        return {"z": values, "colorscale": themes.SEQUENTIAL, "colorbar": {"title": title}}
    ratios = [[data.ratio(row, context) for context in data.contexts] for row in data.rows]
    logs = [[ratio and math.log2(ratio) for ratio in row] for row in ratios]
    known = [abs(value) for row in logs for value in row if value is not None]
    farthest = max(known, default=0.0)
    most = min(max(farthest, _LEAST), _MOST)
    ticks = [-most, -most / 2, 0.0, most / 2, most]
    texts = [f"×{2**tick:.2f}" for tick in ticks]
    if farthest > most:
        texts[0], texts[-1] = f"≤ {texts[0]}", f"≥ {texts[-1]}"
    return {
        "z": logs,
        "zmin": -most,
        "zmax": most,
        "textfont": {"color": "#000000"},  # read on both ends and on the middle
        "colorscale": themes.better_worse_scale(maximize=metric.maximize, middle=_EVEN),
        "colorbar": {
            "title": {"text": "ratio to<br>baseline"},
            "tickvals": ticks,
            "ticktext": texts,
        },
    }


def _cell(data: HeatmapData, row: ContextLine, context: int) -> str:
    value, ratio = data.value(row, context), data.ratio(row, context)
    if value is None:
        return ""
    beside = "<br>" if len(data.rows) <= _TWO_LINES else "  "
    return digits(value) + (f"{beside}×{ratio:.2f}" if ratio is not None else "")


def _hover(data: HeatmapData, row: ContextLine, context: int) -> str:
    spread, ratio = row.points.get((context, data.batch)), data.ratio(row, context)
    if spread is None:
        return ""
    return hover(
        [
            f"{data.knob} = {row.label}",
            f"context {context:,} tokens, batch {data.batch}",
            f"{data.metric} {with_unit(spread.value, data.metric)}"
            + (f", {times(ratio)} of the baseline" if ratio is not None else ""),
            spread.words,
            f"trial #{row.trial}: {in_words(row.params)}",
        ]
    )


def _named_rows(data: HeatmapData) -> list[str]:
    """Names of rows as far as there is room; the baseline and the best always."""
    step = math.ceil(len(data.rows) / _NAMED)
    kept = (i % step == 0 or row.is_baseline or row.is_best for i, row in enumerate(data.rows))
    return [plain(row.label) for row, keep in zip(data.rows, kept, strict=True) if keep]


def _frame_baseline(figure: go.Figure, data: HeatmapData, ink: themes.Ink) -> None:
    row = next((index for index, row in enumerate(data.rows) if row.is_baseline), None)
    if row is None:
        return
    figure.add_shape(
        type="rect", x0=-0.5, x1=len(data.contexts) - 0.5, y0=row - 0.5, y1=row + 0.5,
        line={"color": ink.strong, "width": 3},
    )  # fmt: skip
