"""A metric against context: the logarithmic axis with true ticks, and the lines that are drawn over it."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from glmlab.figures.chart import error_bars, legend_below, log_axis, plain
from glmlab.figures.quantity import Spread, axis_title, is_wide
from glmlab.theme import Style

Point = tuple[int, int]  # context, batch

_MOST_BESIDE = 3  # panels: more would be too narrow
_LABEL_SHARE = 0.11  # of the axis that one label takes, with some room, in a chart of 500 pixels
_MARGIN = 1.25  # times the outermost contexts, for their bars and labels


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of such a chart, over all its panels.

    Attributes
    ----------
    group : str
        Lines of one group are hidden together.
    rank : int
        Place in the legend, whatever the order of drawing.
    hover : callable
        Point -> what is said of it.
    """

    name: str
    group: str
    rank: int
    points: Mapping[Point, Spread]
    look: Style
    is_heavy: bool
    hover: Callable[[Point], str]


def draw_lines(lines: Sequence[Line], metric: str) -> go.Figure:
    """Draw lines, a panel for each batch size, side by side on one scale."""
    batches = sorted({batch for line in lines for _, batch in line.points})
    contexts = sorted({context for line in lines for context, _ in line.points})
    rows = math.ceil(len(batches) / _MOST_BESIDE)
    columns = math.ceil(len(batches) / rows)
    figure = make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes=True,
        subplot_titles=[f"batch {batch}" for batch in batches] if len(batches) > 1 else None,
        horizontal_spacing=0.04,
        vertical_spacing=0.4 / rows,
    )
    figure.update_annotations(font={"size": 13})
    named: set[str] = set()
    for line in lines:
        for place, batch in enumerate(batches):
            points = sorted(point for point in line.points if point[1] == batch)
            if points:
                row, column = divmod(place, columns)
                trace = _trace(line, points, is_first=line.group not in named)
                figure.add_trace(trace, row=row + 1, col=column + 1)
                named.add(line.group)
    figure.update_xaxes(
        type="log",
        tickvals=contexts,
        ticktext=labels(contexts, _LABEL_SHARE * columns),
        range=[math.log10(contexts[0] / _MARGIN), math.log10(contexts[-1] * _MARGIN)],
        tickangle=0,
        tickfont={"size": 12 if columns == 1 else 10},
    )
    # Once, in the middle: side by side they would run into each other.
    figure.update_xaxes(title={"text": "context [tokens, log2 scale]"}, row=rows, col=(columns + 1) // 2)
    spreads = [spread for line in lines for spread in line.points.values()]
    log = is_wide(spread.value for spread in spreads)
    values = [spread.value for spread in spreads]
    figure.update_yaxes(**(log_axis(values, 8 // rows) if log else {"rangemode": "tozero"}))
    title = axis_title(metric, log=log)
    if rows > 1:
        # A low panel has no room for more: name, unit and direction, a line each.
        title = f"{metric}<br>{title.rpartition('<br>')[2].replace('], ', ']<br>')}"
        figure.update_yaxes(range=_common_range(spreads, log=log))
    figure.update_yaxes(title={"text": title}, col=1)
    if columns > 1:
        legend_below(figure)
    return figure


def _common_range(spreads: Sequence[Spread], *, log: bool) -> list[float]:
    """One scale for panels below each other, with some room above and below."""
    low = min(spread.value if spread.low is None else spread.low for spread in spreads)
    high = max(spread.value if spread.high is None else spread.high for spread in spreads)
    if not log:
        return [0.0, high * 1.06]
    least = low if low > 0 else min(spread.value for spread in spreads)
    return [math.log10(least / 1.1), math.log10(high * 1.1)]


def _trace(line: Line, points: Sequence[Point], *, is_first: bool) -> go.Scatter:
    spreads = [line.points[point] for point in points]
    return go.Scatter(
        x=[context for context, _ in points],
        y=[spread.value for spread in spreads],
        error_y=error_bars(spreads),
        mode="lines+markers",
        name=plain(line.name),
        legendgroup=line.group,
        legendrank=1000 + line.rank,
        showlegend=is_first,
        line={"color": line.look.colour, "dash": line.look.dash, "width": 4 if line.is_heavy else 2},
        marker={
            "symbol": line.look.marker,
            "color": line.look.colour,
            "size": 10 if line.is_heavy else 8,
        },
        text=[line.hover(point) for point in points],
        hovertemplate="%{text}<extra></extra>",
    )


def labels(contexts: Sequence[int], share: float = _LABEL_SHARE) -> list[str]:
    """The longest context in full, and of the others those that leave each label its share of the axis."""
    room = share * math.log(contexts[-1] / contexts[0] * _MARGIN**2)
    found = [""] * len(contexts)
    last = 0
    for place, context in enumerate(contexts):
        is_longest = place == len(contexts) - 1
        has_room = not last or math.log(context / last) >= room
        leaves_room = math.log(contexts[-1] / context) >= room
        if is_longest or (has_room and leaves_room):
            found[place] = f"{context:,}"
            last = context
    return found
