"""ChartBox: one chart with its table twin."""

from __future__ import annotations

import json
from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING, Any

import ipywidgets as W
import plotly.graph_objects as go

from glmlab.figures import redraw
from glmlab.theme import Theme, template
from glmlab.widgets.look import look
from glmlab.widgets.style import framed, html
from glmlab.widgets.table_twin import table_html

if TYPE_CHECKING:
    from glmlab.figures.chart import ChartData

Draw = Callable[[Any], "go.Figure"]

_MIME = "application/vnd.plotly.v1+json"


class ChartBox(W.VBox):
    """A place where charts are shown, each with a table of the same numbers below it.

    Parameters
    ----------
    live : bool
        Whether it changes while one looks: a ``FigureWidget`` then keeps zoom and hover over
        repaints. It brings five megabytes of JavaScript, and needs anywidget; without either of
        them the chart is an output, which is drawn anew each time.
    height : int
        Of the chart, in pixels.
    theme : {"auto", "light", "dark"}
        Of the place before there is a chart in it.
    """

    def __init__(self, *, live: bool = True, height: int = 420, theme: Theme = "auto") -> None:
        self._height, self._is_newest = height, False
        self.painted = 0  # charts so far
        self._data: ChartData | None = None
        self._is_table_stale = False
        self._canvas = _live_figure(height, theme) if live else None
        self._output = W.Output(layout=look(min_height=f"{height}px"))
        self._table = html()
        self._twin = W.Accordion([self._table], selected_index=None)
        self._twin.set_title(0, "The same numbers as a table")
        self._twin.observe(lambda _: self._tell(), names="selected_index")
        # Without a chart there is no frame for one: a canvas with nothing on it is a white page with axes.
        super().__init__([], layout=look(width="100%"))

    @property
    def is_live(self) -> bool:
        """Whether it is a ``FigureWidget``."""
        return self._canvas is not None

    @property
    def data(self) -> ChartData | None:
        """What is shown."""
        return self._data

    @property
    def table(self) -> str:
        """The table twin, as HTML; empty while it is folded in."""
        return str(self._table.value)

    def show(self, data: ChartData, draw: Draw, *, newest: bool = False) -> None:
        """Put a chart here, in place of the last one; may be called from any thread.

        Parameters
        ----------
        data : ChartData
            What is shown, and written as a table.
        draw : callable
            Data -> figure.
        newest : bool
            Whether the table shows its last rows where it has too many, or its first.
        """
        figure = draw(data)
        figure.update_layout(height=self._height, autosize=True)
        self._data, self._is_newest, self._is_table_stale = data, newest, True
        if self._canvas is not None:
            redraw(self._canvas, figure)
        else:
            self._output.outputs = (_as_output(figure, f"{data.title} ({data.evidence})"),)
        self.painted += 1
        if self.painted == 1:
            self.children = (self._output if self._canvas is None else self._canvas, self._twin)
        self._tell()

    def _tell(self) -> None:
        """Write the table, if somebody looks at it: most of the time nobody does."""
        if self._twin.selected_index is None or self._data is None or not self._is_table_stale:
            return
        self._is_table_stale = False
        if self._data.is_empty:
            self._table.value = framed(f"<p>{escape(self._data.missing)}</p>")
            return
        caption = f"{self._data.title} ({self._data.evidence})"
        self._table.value = framed(table_html(self._data.columns(), caption=caption, newest=self._is_newest))

    def close(self) -> None:
        """Take it off the page, with all that it holds."""
        for child in (self._table, self._twin, self._output, self._canvas):
            if child is not None:
                child.close()
        super().close()


def _live_figure(height: int, theme: Theme) -> go.FigureWidget | None:
    try:
        # Without axes: drawn before there is anything to draw.
        no_axis = {"visible": False}
        layout = {"autosize": True, "height": height, "xaxis": no_axis, "yaxis": no_axis}
        shown = go.FigureWidget(layout={**layout, "template": template(theme)})
    except ImportError:  # anywidget is not installed
        return None
    shown._config = {**shown._config, "responsive": True, "displaylogo": False}
    return shown


def _as_output(figure: go.Figure, text: str) -> dict[str, Any]:
    """A figure as an output cell would hold it."""
    return {
        "output_type": "display_data",
        "data": {_MIME: json.loads(figure.to_json()), "text/plain": text},
        "metadata": {},
    }
