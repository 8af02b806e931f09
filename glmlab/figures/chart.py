"""What every chart is made of: data that can also be read as a table, and a canvas to draw on."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from glmlab import theme as themes
from glmlab.figures.quantity import Spread

if TYPE_CHECKING:
    import pandas as pd

# Characters: plotly does not break lines itself, and half a notebook's width must hold them.
_HOVER_WIDTH = 72
_TITLE_WIDTH = 58
_SUBTITLE_WIDTH = 80
_TOP_PX = 34  # above and below the title


@dataclass(frozen=True, kw_only=True)
class ChartData(ABC):
    """What a chart shows. The drawing adds nothing to it.

    Attributes
    ----------
    title : str
        What is shown, in words.
    evidence : str
        What the numbers are: ``measured``, ``replayed``, ...
    missing : str
        Where there is nothing to draw: what is missing, in one sentence.
    """

    title: str
    evidence: str
    missing: str = ""

    @property
    def is_empty(self) -> bool:
        return bool(self.missing)

    @abstractmethod
    def columns(self) -> Mapping[str, Sequence[Any]]:
        """The table's columns; their names carry the units."""

    def to_frame(self) -> pd.DataFrame:
        """The chart as a table: every number that is drawn or hovered, one row each."""
        import pandas as pd  # half a second, and only for those who read the table

        columns = self.columns().items()
        return pd.DataFrame({name: pd.array(list(values), dtype=_kind(values)) for name, values in columns})


def _kind(values: Sequence[Any]) -> str:
    """A column's type. Those with capitals know gaps: without, trial 3 would become 3.0 beside one."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int, float}:
        return "Int64" if kinds == {int} else "Float64"
    return {frozenset({bool}): "boolean", frozenset({str}): "string"}.get(frozenset(kinds), "object")


def canvas(data: ChartData, theme: str, subtitle: str = "") -> go.Figure:
    """An empty figure in the house style, with the evidence in its title."""
    figure = go.Figure()
    dress(figure, data, theme, subtitle)
    return figure


def dress(figure: go.Figure, data: ChartData, theme: str, subtitle: str = "") -> None:
    """Give a figure its template and title; a reader's zoom survives later drawings."""
    title = _lines(f"{data.title} ({data.evidence})", _TITLE_WIDTH)
    below = _lines(subtitle, _SUBTITLE_WIDTH)
    text = "<br>".join([*title, *(f"<span style='font-size:12px'>{line}</span>" for line in below)])
    figure.update_layout(
        template=themes.template(theme),
        title={"text": text},
        margin={"t": _TOP_PX + 21 * len(title) + 17 * len(below)},
        uirevision="glmlab",
        meta=type(data).__name__,  # one chart or another: see redraw
    )


def legend_below(figure: go.Figure) -> None:
    """A legend under the drawing: beside it, it would take a third of a narrow page."""
    figure.update_layout(
        legend={"orientation": "h", "yref": "container", "y": 0.01, "yanchor": "bottom", "x": 0}
        | {"traceorder": "normal"}
    )


def log_axis(values: Iterable[float], most_ticks: int = 8) -> dict[str, Any]:
    """A logarithmic axis with ticks whole doublings apart, written in full."""
    known = list(values)
    doublings = math.ceil(math.log2(max(known) / min(known)))
    apart = max(1, math.ceil(doublings / most_ticks))
    return {"type": "log", "dtick": apart * math.log10(2), "tickformat": ",.4~r"}


def nothing(data: ChartData, theme: str) -> go.Figure:
    """A chart of nothing, which says what is missing."""
    figure = canvas(data, theme)
    figure.update_layout(xaxis={"visible": False}, yaxis={"visible": False})
    figure.add_annotation(
        text="<br>".join(map(plain, wrap(data.missing, _HOVER_WIDTH))),
        x=0.5, y=0.5, xref="paper", yref="paper", showarrow=False, font={"size": 14},
    )  # fmt: skip
    return figure


def error_bars(spreads: Sequence[Spread]) -> dict[str, Any] | None:
    """Bars from p10 to p90; ``None`` where there are no samples to take these of."""
    if any(spread.low is None for spread in spreads):
        return None
    return {
        "array": [(spread.high or spread.value) - spread.value for spread in spreads],
        "arrayminus": [spread.value - (spread.low or spread.value) for spread in spreads],
        "thickness": 1.2,
        "width": 3,
    }


def _lines(text: str, width: int) -> list[str]:
    if len(text) <= width:  # nearly always, and thousands of times a drawing
        return [plain(text)] if text else []
    return [plain(line) for line in wrap(text, width)]


def plain(text: str) -> str:
    """Text as it stands: plotly would take tags in it for its own."""
    return escape(text, quote=False)


def hover(lines: Iterable[str]) -> str:
    """Lines of a hover text, long ones broken, empty ones left out."""
    return "<br>".join(part for line in lines if line for part in _lines(line, _HOVER_WIDTH))
