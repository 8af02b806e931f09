"""Cost: where the seconds of each trial went, and what restarting the engine for each would have cost."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from glmlab import theme as themes
from glmlab.figures.chart import ChartData, dress, hover, legend_below, nothing
from glmlab.knobs import in_words
from glmlab.summary import restart_seconds
from glmlab.trial_record import TrialCost, TrialRecord, Visit
from glmlab.units import format_duration

PARTS = {
    "rebuild_s": "new engine",
    "apply_s": "applying knobs",
    "prefill_s": "prefill",
    "measure_s": "measuring",
    "overhead_s": "glmlab itself",
}
_FEW = 40  # rows up to which each has a marker
_MOST_BARS = 400  # a browser slows down with more; neighbours are then taken together
_MOST_TICKS = 14
_CUT_FROM = 5.0  # times the ninth tenth of all bars: a higher bar would flatten all others


@dataclass(frozen=True, kw_only=True)
class CostData(ChartData):
    """One row for each trial, then one for each visit of the confirmation.

    Attributes
    ----------
    trial : tuple of int or None
        Number; ``None`` for a visit.
    what : tuple of str
        The trial's knobs, or which visit it is.
    restart_s : float or None
        What one trial costs with a restart: median start, prefill and measurement of this study.
    spent_s, restarts_s : tuple of float
        Sums up to each row: what was spent, and what the same complete trials and visits cost with a
        restart each.
    """

    trial: tuple[int | None, ...]
    what: tuple[str, ...]
    cost: tuple[TrialCost, ...]
    restart_s: float | None
    spent_s: tuple[float, ...]
    restarts_s: tuple[float | None, ...]

    def columns(self) -> Mapping[str, Sequence[Any]]:
        return {
            "trial": self.trial,
            "what": self.what,
            **{part: [getattr(cost, part) for cost in self.cost] for part in PARTS},
            "total_s": [cost.total_s for cost in self.cost],
            "engine_kept": [cost.is_live for cost in self.cost],
            "cumulated_s": self.spent_s,
            "cumulated_with_restarts_s": self.restarts_s,
            "evidence": [self.evidence] * len(self.cost),
        }


def cost_data(records: Sequence[TrialRecord], visits: Sequence[Visit] = ()) -> CostData:
    """Read costs off a study's records and the visits of its confirmation."""
    restart = restart_seconds(records)
    costs = [record.cost for record in records] + [visit.cost for visit in visits]
    counts = itertools.accumulate([*(int(r.status == "complete") for r in records), *(1 for _ in visits)])
    found = dict.fromkeys(
        [r.evidence for r in records if r.status == "complete"] + [v.measurement.evidence for v in visits]
    )
    return CostData(
        title="Cost of each trial",
        evidence=", ".join(found) or "measured",
        missing="" if costs else "No trial has finished yet: each adds what it cost.",
        trial=(*(record.number for record in records), *(None for _ in visits)),
        what=(
            *(in_words(record.params) for record in records),
            *(f"round {visit.round + 1}, {visit.side}" for visit in visits),
        ),
        cost=tuple(costs),
        restart_s=restart,
        spent_s=tuple(itertools.accumulate(cost.total_s for cost in costs)),
        restarts_s=tuple(None if restart is None else restart * count for count in counts),
    )


def draw_cost(data: CostData, theme: str = "auto") -> go.Figure:
    """Draw it: bars of seconds above, what they add up to below, with restarts for comparison."""
    if data.is_empty:
        return nothing(data, theme)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.58, 0.42])
    size = math.ceil(len(data.cost) / _MOST_BARS)
    dress(figure, data, theme, _subtitle(data, size))
    ink = themes.ink(theme)
    groups = [data.cost[at : at + size] for at in range(0, len(data.cost), size)]
    middles = [at * size + (len(group) - 1) / 2 for at, group in enumerate(groups)]
    for (part, name), colour, pattern in zip(PARTS.items(), _COLOURS, themes.PATTERNS, strict=False):
        figure.add_trace(
            go.Bar(
                x=middles,
                y=[statistics.fmean(getattr(cost, part) for cost in group) for group in groups],
                name=name,
                marker=themes.patterned(colour, pattern),
                hovertemplate="%{y:,.3~r} s",
            ),
            row=1,
            col=1,
        )
    totals = [statistics.fmean(cost.total_s for cost in group) for group in groups]
    _add_totals(figure, data, middles, totals)
    _add_sums(figure, data, ink)
    _scale(figure, data, ink)
    figure.update_layout(barmode="stack", bargap=0.15 if size == 1 else 0, hovermode="x unified")
    legend_below(figure)
    return figure


_COLOURS = (
    themes.COLOURS[4],
    themes.COLOURS[0],
    themes.COLOURS[3],
    themes.COLOURS[2],
    themes.COLOURS[5],
)


def _subtitle(data: CostData, size: int) -> str:
    said = "no engine was started yet, so a restart cannot be estimated"
    if data.restart_s is not None:
        said = f"a restart: {format_duration(data.restart_s)} (median start, prefill and measurement)"
    return f"{said}; each bar is the mean of {size} trials" if size > 1 else said


def cut_at(totals: Sequence[float]) -> float | None:
    """Where bars are cut so that the low ones can be read; ``None`` where all can be."""
    ordered = sorted(totals)
    usual = ordered[int(0.9 * (len(ordered) - 1))] if len(ordered) > 2 else 0.0
    return usual * 1.6 if usual and ordered[-1] > _CUT_FROM * usual else None


def _add_totals(figure: go.Figure, data: CostData, middles: list[float], totals: list[float]) -> None:
    """What a row is, said on top of its bar; a bar that is cut has its height written over it."""
    size = math.ceil(len(data.cost) / len(totals))
    top = cut_at(totals)
    figure.add_trace(
        go.Scatter(
            x=middles,
            y=totals,
            mode="markers",
            marker={"opacity": 0},  # the bar shows it; this is only what is said of it
            name="total",
            showlegend=False,
            text=[_what(data, at * size, size) for at in range(len(totals))],
            hovertemplate="%{y:,.4~r} s<br>%{text}",
        ),
        row=1,
        col=1,
    )
    cut = ""
    if top is not None:
        cut = f"<br>cut at {format_duration(top)}"
        figure.update_yaxes(range=[0, top], row=1, col=1)
        for at, total in enumerate(totals):
            if total > top:
                figure.add_annotation(
                    x=middles[at], y=1, yref="y domain", text=f"▲ {format_duration(total)}",
                    showarrow=False, xanchor="left" if at == 0 else "center", yanchor="bottom",
                )  # fmt: skip
    figure.update_yaxes(title={"text": f"one trial [s]{cut}"}, rangemode="tozero", row=1, col=1)


def _add_sums(figure: go.Figure, data: CostData, ink: themes.Ink) -> None:
    """Lines of sums, each with its end written beside it."""
    lines = [("spent", data.spent_s, themes.Style(themes.COLOURS[0], "circle", "solid"))]
    if data.restart_s is not None:
        restarts = [value or 0.0 for value in data.restarts_s]
        look = themes.Style(ink.strong, themes.BASELINE_MARKER, "dash")
        lines.append(("estimate with a restart each", tuple(restarts), look))
    highest = max(sums[-1] for _, sums, _ in lines)
    for name, sums, look in lines:
        # Close together, one is written above its line and the other below.
        is_below = len(lines) > 1 and highest / 2 < sums[-1] < highest
        figure.add_trace(
            go.Scatter(
                x=list(range(len(sums))),
                y=sums,
                name=name,
                mode="lines+markers" if len(sums) <= _FEW else "lines",
                showlegend=False,
                line={"color": look.colour, "width": 2.5, "dash": look.dash},
                marker={"symbol": look.marker, "size": 6},
                hovertemplate="%{y:,.4~r} s",
            ),
            row=2,
            col=1,
        )
        figure.add_annotation(
            x=len(sums) - 1, y=sums[-1], text=f"{name}: {format_duration(sums[-1])}", showarrow=False,
            xanchor="right", yanchor="top" if is_below else "bottom", yshift=-6 if is_below else 4,
            font={"color": look.colour}, row=2, col=1,
        )  # fmt: skip


def _scale(figure: go.Figure, data: CostData, ink: themes.Ink) -> None:
    figure.update_yaxes(title={"text": "all so far [s]"}, rangemode="tozero", row=2, col=1)
    ticks = list(range(0, len(data.cost), math.ceil(len(data.cost) / _MOST_TICKS)))
    figure.update_xaxes(tickvals=ticks, ticktext=[_label(data, row) for row in ticks])
    figure.update_xaxes(showticklabels=True, row=2, col=1)
    first = next((row for row, number in enumerate(data.trial) if number is None), None)
    said = "trial [number]"
    if first is not None:
        said += ", then visits of the confirmation [round]"
        figure.add_vline(x=first - 0.5, line={"color": ink.text, "dash": "dot", "width": 1})
    figure.update_xaxes(title={"text": said}, row=2, col=1)


def _label(data: CostData, row: int) -> str:
    number = data.trial[row]
    if number is not None:
        return f"{number:,}"
    return "r" + data.what[row].removeprefix("round ").partition(",")[0]


def _what(data: CostData, row: int, size: int) -> str:
    if size > 1:
        last = min(row + size, len(data.cost)) - 1
        return f"mean of {_label(data, row)} to {_label(data, last)}"
    cost, number = data.cost[row], data.trial[row]
    who = f"confirmation, {data.what[row]}" if number is None else f"trial #{number}: {data.what[row]}"
    return hover([who, f"engine {'kept' if cost.is_live else 'new'}"])
