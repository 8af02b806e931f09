"""Redraw: put a new drawing into a figure that is shown, sending only what changed."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go


def redraw(shown: go.Figure, figure: go.Figure) -> None:
    """Make a shown figure look like another one, in one batch.

    Where both have the same traces by kind and name, their arrays are replaced, and a reader's hidden
    lines stay hidden; else the traces are.

    Parameters
    ----------
    shown : plotly.graph_objects.FigureWidget
        What the reader looks at.
    figure : plotly.graph_objects.Figure
        How it shall look.
    """
    new, old = figure.to_plotly_json(), shown.to_plotly_json()
    with shown.batch_update():
        if [_kind(trace) for trace in old["data"]] == [_kind(trace) for trace in new["data"]]:
            for trace, before, after in zip(shown.data, old["data"], new["data"], strict=True):
                _change(trace, before, after)
        else:
            shown.data = []
            shown.add_traces(list(figure.data))
        _change(shown.layout, old["layout"], new["layout"])


def _kind(trace: dict[str, Any]) -> tuple[Any, ...]:
    return trace.get("type"), trace.get("name"), trace.get("xaxis"), trace.get("yaxis")


def _change(part: Any, before: dict[str, Any], after: dict[str, Any]) -> None:
    for key in {*before, *after} - {"uid", "type"}:
        if before.get(key) != after.get(key):
            part[key] = after.get(key)
