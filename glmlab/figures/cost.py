"""Cost: where the seconds of each trial went, and what restarting the engine for each would have cost."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from glmlab import theme as themes
from glmlab.figures.chart import ChartData, dress, hover, nothing
from glmlab.figures.trials import params_words
from glmlab.trial_record import TrialCost, TrialRecord, Visit
from glmlab.units import format_duration

PARTS = {
    "rebuild_s": "new engine",
    "apply_s": "applying knobs",
    "prefill_s": "prefill",
    "measure_s": "measuring",
    "overhead_s": "glmlab itself",
}
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
            *(params_words(record.params) for record in records),
            *(f"round {visit.round + 1}, {visit.side}" for visit in visits),
        ),
        cost=tuple(costs),
        restart_s=restart,
        spent_s=tuple(itertools.accumulate(cost.total_s for cost in costs)),
        restarts_s=tuple(None if restart is None else restart * count for count in counts),
    )


def restart_seconds(records: Sequence[TrialRecord]) -> float | None:
    """What one trial costs with a restart, as the study's summary has it; ``None`` before any start."""
    costs = [record.cost for record in records if record.status == "complete"]
    starts = [cost.rebuild_s for cost in costs if not cost.is_live]
    if not starts:
        return None
    prefills = [cost.prefill_s for cost in costs if cost.prefill_s > 0]
    prefill = statistics.median(prefills) if prefills else 0.0
    return statistics.median(starts) + prefill + statistics.median(cost.measure_s for cost in costs)


def draw_cost(data: CostData, theme: str = "auto") -> go.Figure:
    """Draw it: bars of seconds above, what they add up to below, with restarts for comparison."""
    if data.is_empty:
        return nothing(data, theme)
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, vertical_spacing=0.09, row_heights=[0.58, 0.42])
    dress(figure, data, theme, _subtitle(data))
    places = list(range(len(data.cost)))
    texts = [_hover(data, row) for row in places]
    for (part, name), colour, pattern in zip(PARTS.items(), _COLOURS, themes.PATTERNS, strict=False):
        figure.add_trace(
            go.Bar(
                x=places, y=[getattr(cost, part) for cost in data.cost], name=name,
                marker={"color": colour, "pattern": {"shape": pattern, "fgcolor": "white", "size": 5}},
                hovertext=texts, hovertemplate="%{hovertext}<extra></extra>",
            ),
            row=1, col=1,
        )  # fmt: skip
    ink = themes.ink(theme)
    for name, sums, colour, dash in (
        ("spent", data.spent_s, themes.COLOURS[0], "solid"),
        ("with a restart each, estimated", data.restarts_s, ink.strong, "dash"),
    ):
        if any(value is not None for value in sums):
            figure.add_trace(
                go.Scatter(
                    x=places, y=sums, name=name, mode="lines+markers" if len(places) <= 40 else "lines",
                    line={"color": colour, "width": 2.5, "dash": dash, "shape": "hv"},
                    hovertemplate=f"{name}, cumulated: %{{y:,.4~r}} s<extra></extra>",
                ),
                row=2, col=1,
            )  # fmt: skip
    _scale(figure, data, ink)
    return figure


_COLOURS = (
    themes.COLOURS[4],
    themes.COLOURS[0],
    themes.COLOURS[3],
    themes.COLOURS[2],
    themes.COLOURS[5],
)


def _subtitle(data: CostData) -> str:
    spent, restarts = data.spent_s[-1], data.restarts_s[-1]
    if restarts is None:
        return f"{format_duration(spent)} in all; no engine was started, so a restart cannot be estimated"
    return (
        f"{format_duration(spent)} in all; with a restart for each, {format_duration(restarts)}"
        " (median start, prefill and measurement of this study)"
    )


def cut_at(totals: Sequence[float]) -> float | None:
    """Where bars are cut so that the low ones can be read; ``None`` where all can be."""
    ordered = sorted(totals)
    usual = ordered[int(0.9 * (len(ordered) - 1))] if len(ordered) > 2 else 0.0
    return usual * 1.6 if usual and ordered[-1] > _CUT_FROM * usual else None


def _scale(figure: go.Figure, data: CostData, ink: themes.Ink) -> None:
    totals = [cost.total_s for cost in data.cost]
    top = cut_at(totals)
    if top is not None:
        for place, total in enumerate(totals):
            if total > top:
                figure.add_annotation(
                    x=place, y=1, yref="y domain", text=f"▲ {format_duration(total)}", showarrow=False,
                    xanchor="left" if place == 0 else "center", yanchor="bottom", font={"color": ink.strong},
                )  # fmt: skip
        figure.update_yaxes(range=[0, top], row=1, col=1)
    cut = f"<br>(▲: cut at {format_duration(top)})" if top else ""
    figure.update_yaxes(title={"text": f"one trial [s]{cut}"}, row=1, col=1)
    figure.update_yaxes(title={"text": "all so far [s]"}, rangemode="tozero", row=2, col=1)
    step = max(1, len(totals) // 20)
    ticks = list(range(0, len(totals), step))
    labels = [_label(data, row) for row in ticks]
    figure.update_xaxes(tickvals=ticks, ticktext=labels)
    figure.update_xaxes(
        title={"text": "trial [number], then visits of the confirmation [round]"}, row=2, col=1
    )
    first = next((row for row, number in enumerate(data.trial) if number is None), None)
    if first:
        figure.add_vline(x=first - 0.5, line={"color": ink.text, "dash": "dot", "width": 1})
    figure.update_layout(barmode="stack", bargap=0.15, legend={"traceorder": "normal"})


def _label(data: CostData, row: int) -> str:
    number = data.trial[row]
    if number is not None:
        return str(number)
    return "r" + data.what[row].removeprefix("round ").partition(",")[0]


def _hover(data: CostData, row: int) -> str:
    cost, number = data.cost[row], data.trial[row]
    parts = [
        f"{name}: {format_duration(getattr(cost, part))}"
        for part, name in PARTS.items()
        if getattr(cost, part)
    ]
    return hover(
        [
            f"trial #{number}: {data.what[row]}" if number is not None else f"confirmation, {data.what[row]}",
            f"{format_duration(cost.total_s)}, engine {'kept' if cost.is_live else 'new'}",
            *parts,
        ]
    )
