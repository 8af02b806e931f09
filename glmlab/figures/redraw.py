"""Redraw: put a new drawing into a figure that is shown, sending only what changed."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

_NEVER_SET = frozenset({"type", "uid"})


def redraw(shown: go.Figure, figure: go.Figure) -> None:
    """Make a shown figure look like another one, in one batch.

    Where both have the same traces, only what differs from the last drawing is sent: what the reader zoomed,
    hid or filtered since stays as it is. Else the traces are replaced.

    Parameters
    ----------
    shown : plotly.graph_objects.FigureWidget
        What the reader looks at.
    figure : plotly.graph_objects.Figure
        How it shall look.
    """
    new = figure.to_plotly_json()
    # Not what it shows now: there the reader's zoom would look like a difference, and be undone.
    old = getattr(shown, "_glmlab_drawn", None) or {"data": [], "layout": {}}
    with shown.batch_update():
        if [_key(trace) for trace in old["data"]] == [_key(trace) for trace in new["data"]]:
            for trace, before, after in zip(shown.data, old["data"], new["data"], strict=True):
                _change(trace, before, after)
        else:
            shown.data = []
            shown.add_traces(list(figure.data))
        _change(shown.layout, old["layout"], new["layout"])
    shown._glmlab_drawn = new


def _key(trace: dict[str, Any]) -> tuple[Any, ...]:
    """What makes two traces the same: a group stays where a name tells a number that changes."""
    name = trace.get("legendgroup") or trace.get("name")
    return trace.get("type"), name, trace.get("xaxis"), trace.get("yaxis")


def _change(part: Any, before: dict[str, Any], after: dict[str, Any]) -> None:
    for key in sorted({*before, *after} - _NEVER_SET):
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            _change(part[key], old, new)
        elif parts := _parts(old, new):
            for each, (one, other) in zip(part[key], parts, strict=True):
                _change(each, one, other)
        else:
            part[key] = new


def _parts(old: Any, new: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """Pairs of parts, where both are lists of equally many: annotations, axes of parallel coordinates."""
    if not isinstance(old, list | tuple) or not isinstance(new, list | tuple) or len(old) != len(new):
        return []
    pairs = list(zip(old, new, strict=True))
    return pairs if all(isinstance(each, dict) for pair in pairs for each in pair) else []
