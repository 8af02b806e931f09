"""History, drawn: points with their spread, the best so far, the baseline, and what came to nothing."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

from glmlab import theme as themes
from glmlab.figures.chart import canvas, error_bars, hover, legend_below, log_axis, nothing, plain
from glmlab.figures.history import HistoryData
from glmlab.figures.quantity import axis_title, digits, direction, is_wide, times, with_unit
from glmlab.knobs import in_words
from glmlab.measurement import find_metric
from glmlab.units import format_duration

_MANY = 1000  # points from which the browser draws on a canvas of its own and bars are left to the hover
_STRIP = 0.06  # of the height: where trials without a value stand
_LOOKS = {
    "failed": ("x", themes.COLOURS[4]),
    "blocked": ("square-x-open", themes.COLOURS[3]),
    "interrupted": ("triangle-down-open", "#808080"),
}


def draw_history(data: HistoryData, theme: str = "auto") -> go.Figure:
    """Draw it: points with bars from p10 to p90, a step line of the best, the baseline across."""
    if data.is_empty:
        return nothing(data, theme)
    ink = themes.ink(theme)
    values = [spread.value for spread in data.spread if spread]
    log = is_wide(values)
    figure = canvas(data, theme, _subtitle(data))
    unit = find_metric(data.metric).unit
    _add_band(figure, data)
    blue, green, warm = themes.COLOURS[0], themes.COLOURS[2], themes.COLOURS[4]
    good = [i for i, s in enumerate(data.spread) if s and data.feasible[i]]
    broken = [i for i, s in enumerate(data.spread) if s and not data.feasible[i]]
    name = "trial, bar p10 to p90" if len(good) <= _MANY else "trial, p10 and p90 on hover"
    if good:
        _add_points(figure, data, good, name=name, colour=blue, symbol="circle")
    if broken:
        _add_points(figure, data, broken, name="breaks a constraint", colour=warm, symbol="circle-open")
    _add_baseline(figure, data, ink.strong)
    figure.add_scatter(
        x=data.trial, y=data.best, mode="lines", name="best so far",
        line={"color": green, "width": 2, "shape": "hv", "dash": "dash"},
        hovertemplate=f"best up to trial #%{{x}}: %{{y:,.4~r}} {unit}<extra></extra>",
    )  # fmt: skip
    figure.update_layout(
        xaxis={"title": {"text": "trial [number]"}, **_whole_ticks(len(data.trial))},
        yaxis={
            "title": {"text": axis_title(data.metric, log=log)},
            "showticklabels": bool(values),
            **(log_axis(values) if log else {}),
        },
    )
    _add_without_value(figure, data)
    legend_below(figure)
    return figure


def _subtitle(data: HistoryData) -> str:
    values = [value for value in data.best if value is not None]
    said = "no trial has a value yet"
    if values:
        said = f"best so far {with_unit(values[-1], data.metric)}"
        if data.baseline is not None:
            ratio = times(values[-1] / data.baseline.value)
            said += f", {ratio} of the baseline's {with_unit(data.baseline.value, data.metric)}"
        said += f"; {direction(find_metric(data.metric))}"
    counts = [f"{data.status.count(status)} {status}" for status in _LOOKS if status in data.status]
    return "; ".join([said, ", ".join(counts)] if counts else [said])


def _whole_ticks(count: int) -> dict[str, Any]:
    return {"tickformat": ",d", **({"dtick": 1} if count <= 20 else {})}


def _add_points(
    figure: go.Figure, data: HistoryData, rows: list[int], *, name: str, colour: str, symbol: str
) -> None:
    spreads = [spread for i in rows if (spread := data.spread[i])]
    many = len(rows) > _MANY
    kind = go.Scattergl if many else go.Scatter
    figure.add_trace(
        kind(
            x=[data.trial[i] for i in rows],
            y=[spread.value for spread in spreads],
            mode="markers",
            name=name,
            marker={"color": colour, "symbol": symbol, "size": 4 if many else 8},
            text=[_brief(data, i) if many else _hover(data, i) for i in rows],
            hovertemplate="%{text}<extra></extra>",
            error_y=None if many else error_bars(spreads),
        )
    )


def _brief(data: HistoryData, row: int) -> str:
    """What thousands of points say, since all of it travels to the browser; the rest is in the table."""
    spread = data.spread[row]
    words = "" if spread is None else f"{digits(spread.value)}, {spread.words}"
    return f"#{data.trial[row]}: {plain(in_words(data.params[row]))}<br>{words}"


def _hover(data: HistoryData, row: int) -> str:
    spread = data.spread[row]
    lines = [f"trial #{data.trial[row]}: {data.status[row]}", in_words(data.params[row])]
    if spread is not None:
        ratio = f", {times(spread.value / data.baseline.value)} of the baseline" if data.baseline else ""
        lines += [f"{data.metric} {with_unit(spread.value, data.metric)}{ratio}", spread.words]
    lines.append(data.reason[row])
    engine = "engine kept" if data.is_live[row] else "new engine"
    lines.append(f"{engine}, took {format_duration(data.cost_s[row])}")
    return hover(lines)


def _ends(data: HistoryData) -> list[float]:
    return [min(data.trial) - 0.5, max(data.trial) + 0.5]


def _add_band(figure: go.Figure, data: HistoryData) -> None:
    """How far the baseline's own samples lie apart, behind everything."""
    base = data.baseline
    if base is None or base.low is None or base.high is None:
        return
    left, right = _ends(data)
    figure.add_scatter(
        x=[left, right, right, left], y=[base.low, base.low, base.high, base.high], fill="toself",
        mode="lines", line={"width": 0}, fillcolor="rgba(128,128,128,0.25)",
        name="baseline, p10 to p90", hoverinfo="skip",
    )  # fmt: skip


def _add_baseline(figure: go.Figure, data: HistoryData, colour: str) -> None:
    base = data.baseline
    if base is None:
        return
    said = f"baseline, #{data.baseline_trial}: {with_unit(base.value, data.metric)}"
    figure.add_scatter(
        x=_ends(data), y=[base.value, base.value], mode="lines", name=said, legendgroup="baseline",
        line={"color": colour, "width": 2.5}, hovertemplate=f"{said}<br>{base.words}<extra></extra>",
    )  # fmt: skip


def _add_without_value(figure: go.Figure, data: HistoryData) -> None:
    """In a strip of their own along the bottom, where no value can be."""
    if not any(status in _LOOKS for status in data.status):
        return
    figure.update_layout(
        yaxis={"domain": [2 * _STRIP, 1]},
        yaxis2={"domain": [0, _STRIP], "range": [-1, 1], "visible": False, "fixedrange": True},
        xaxis={"anchor": "y2"},
    )
    for status, (symbol, colour) in _LOOKS.items():
        rows = [i for i, each in enumerate(data.status) if each == status]
        if not rows:
            continue
        kind = go.Scattergl if len(rows) > _MANY else go.Scatter
        figure.add_trace(
            kind(
                x=[data.trial[i] for i in rows],
                y=[0] * len(rows),
                yaxis="y2",
                mode="markers",
                name=status,
                marker={"symbol": symbol, "color": colour, "size": 9},
                text=[_hover(data, i) for i in rows],
                hovertemplate="%{text}<extra></extra>",
            )
        )
