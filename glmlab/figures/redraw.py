"""Redraw: put a new drawing into a figure that is shown, sending only what changed."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go

_AXES = ("xaxis", "yaxis")
_OF_TRACE = frozenset({"type", "uid"})  # which no trace can change


def redraw(shown: go.Figure, figure: go.Figure) -> None:
    """Make a shown figure look like another one, in one batch where the traces stay.

    Where both have the same traces, only what differs from the last drawing is sent: what the reader zoomed,
    hid or filtered since stays as it is. Else the traces are replaced, and for another chart the axes too.

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
    if [_key(trace) for trace in old["data"]] == [_key(trace) for trace in new["data"]]:
        with shown.batch_update():
            for trace, before, after in zip(shown.data, old["data"], new["data"], strict=True):
                _change(trace, before, after, _OF_TRACE)
            _change(shown.layout, old["layout"], new["layout"])
    else:
        # The axes before what is drawn on them: an axis of trials, with a tick at each number, would be
        # labelled up to a context of 150,000 tokens, for a minute.
        shown.data = []
        with shown.batch_update():
            _change(shown.layout, _kept(shown, old["layout"], new["layout"]), new["layout"])
        shown.add_traces(list(figure.data))
    shown._glmlab_drawn = new


def _kept(shown: go.Figure, old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """What is there already: of another chart not its axes, nor what the reader zoomed on them."""
    if old.get("meta") == new.get("meta"):
        return old
    for key in shown.layout.to_plotly_json():
        if key.startswith(_AXES) and key not in new:
            shown.layout[key] = None
    return {key: value for key, value in old.items() if not key.startswith(_AXES)}


def _key(trace: dict[str, Any]) -> tuple[Any, ...]:
    """What makes two traces the same: a group stays where a name tells a number that changes."""
    name = trace.get("legendgroup") or trace.get("name")
    return trace.get("type"), name, trace.get("xaxis"), trace.get("yaxis")


def _change(
    part: Any, before: dict[str, Any], after: dict[str, Any], never: frozenset[str] = frozenset()
) -> None:
    for key in sorted({*before, *after} - never):
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
