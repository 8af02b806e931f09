"""Redrawing what somebody looks at: only what changed, and nothing of what the reader did is undone."""

from __future__ import annotations

import contextlib
from typing import Any

import plotly.graph_objects as go
import pytest

from glmlab.figures import (
    context_data,
    draw_context,
    draw_history,
    draw_memory,
    draw_parallel,
    draw_pareto,
    history_data,
    memory_data,
    parallel_data,
    pareto_data,
    redraw,
)
from glmlab.memory import fit
from tests.charted import simple, study, without_value

BASE = {"cpu_split_kv": True, "block_size": 32}
FAST = {"cpu_split_kv": False, "block_size": 32}


def history(count: int, theme: str = "auto") -> Any:
    records = [simple(0, BASE, 1.0), *(simple(i, FAST, 1.0 + i / 100) for i in range(1, count))]
    return draw_history(history_data(records, study()), theme)


@pytest.fixture(params=[go.Figure, go.FigureWidget])
def shown(request):
    return request.param()


def said(part: Any) -> Any:
    """What a drawing says: empty parts say nothing, and a trace's uid is nobody's business."""
    if isinstance(part, dict):
        kept = {key: said(value) for key, value in part.items() if key != "uid"}
        return {key: value for key, value in kept.items() if value not in ({}, [], None)}
    return [said(each) for each in part] if isinstance(part, list | tuple) else part


def same(shown: Any, figure: Any) -> bool:
    return bool(said(shown.to_plotly_json()) == said(figure.to_plotly_json()))


@pytest.mark.parametrize("counts", [(2,), (2, 5), (5, 2), (2, 0, 3)])
def test_it_looks_like_what_was_drawn_last(shown, counts):
    for count in counts:
        figure = history(count) if count else draw_history(history_data([], study()))
        redraw(shown, figure)
    assert same(shown, figure)


def test_traces_stay_and_get_new_arrays(shown):
    redraw(shown, history(2))
    before = [trace.uid for trace in shown.data]
    redraw(shown, history(4))
    assert [trace.uid for trace in shown.data] == before
    points = next(trace for trace in shown.data if trace.mode == "markers")
    assert list(points.x) == [0, 1, 2, 3]


def test_a_trace_more_and_all_are_drawn_anew(shown):
    redraw(shown, history(2))
    records = [simple(0, BASE, 1.0), without_value(1, "failed", "gone")]
    figure = draw_history(history_data(records, study()))
    redraw(shown, figure)
    assert same(shown, figure)
    redraw(shown, history(2))
    assert same(shown, history(2))


def test_the_readers_zoom_and_hidden_lines_survive(shown):
    redraw(shown, history(2))
    shown.layout.xaxis.range = [0.5, 1.5]
    shown.layout.yaxis.autorange = False
    shown.data[-1].visible = "legendonly"
    redraw(shown, history(4))
    assert tuple(shown.layout.xaxis.range) == (0.5, 1.5)
    assert shown.layout.yaxis.autorange is False
    assert shown.data[-1].visible == "legendonly"


def test_the_readers_filter_survives(shown):
    def drawn(count: int) -> Any:
        records = [simple(0, BASE, 1.0), *(simple(i, FAST, 1.0 + i / 100) for i in range(1, count))]
        return draw_parallel(parallel_data(records, study()))

    redraw(shown, drawn(2))
    shown.data[0].dimensions[0].constraintrange = [-0.2, 0.2]
    redraw(shown, drawn(4))
    assert tuple(shown.data[0].dimensions[0].constraintrange) == (-0.2, 0.2)
    assert len(shown.data[0].dimensions[0].values) == 4


def test_a_name_with_a_number_in_it_does_not_make_another_trace(shown):
    redraw(shown, draw_memory(memory_data(fit("glm-4.5-air-fp8", "rtx-pro-6000", 2))))
    before = [trace.uid for trace in shown.data]
    redraw(shown, draw_memory(memory_data(fit("glm-4.5-air-fp8", "rtx-pro-6000-maxq", 2))))
    assert [trace.uid for trace in shown.data] == before


def test_another_theme_is_drawn_over(shown):
    redraw(shown, history(2, "light"))
    redraw(shown, history(2, "dark"))
    assert same(shown, history(2, "dark"))


def test_what_did_not_change_is_not_sent():
    shown = go.FigureWidget()
    redraw(shown, history(3))
    sent = []
    shown._send_update_msg = lambda **message: sent.append(message)
    redraw(shown, history(3))
    assert sent == []
    redraw(shown, history(4))
    [message] = sent  # one message for all
    arrays = {key for data in message["restyle_data"].values() if isinstance(data, dict) for key in data}
    assert "x" in arrays | set(message["restyle_data"])


def test_another_chart_does_not_inherit_the_readers_zoom(shown):
    records = [simple(0, BASE, 1.0), simple(1, FAST, 1.1), without_value(2, "failed", "gone")]
    redraw(shown, draw_history(history_data(records, study())))
    shown.layout.xaxis.range = [0.5, 1.5]
    figure = draw_pareto(pareto_data(records, study()))
    redraw(shown, figure)
    assert same(shown, figure)


def test_a_new_line_in_the_same_chart_leaves_the_zoom_alone(shown):
    records = [simple(0, BASE, 1.0), simple(1, FAST, 1.1)]
    redraw(shown, draw_history(history_data(records, study())))
    shown.layout.xaxis.range = [0.5, 1.5]
    redraw(shown, draw_history(history_data([*records, without_value(2, "failed", "gone")], study())))
    assert tuple(shown.layout.xaxis.range) == (0.5, 1.5)


def test_the_zoom_survives_where_the_chart_sets_a_range_of_its_own(shown):
    def drawn(*times: float) -> Any:
        records = [simple(i, (BASE, FAST)[i], each) for i, each in enumerate(times)]
        return draw_context(context_data(records, study()))

    redraw(shown, drawn(1.0, 0.9))
    shown.layout.xaxis.range = [2.0, 2.1]
    redraw(shown, drawn(1.0, 0.8))
    assert tuple(shown.layout.xaxis.range) == (2.0, 2.1)


def test_everything_goes_in_one_batch(monkeypatch):
    shown, entered = go.Figure(), []
    batch = shown.batch_update

    @contextlib.contextmanager
    def counted():
        entered.append(1)
        with batch():
            yield

    monkeypatch.setattr(shown, "batch_update", counted)
    redraw(shown, history(2))
    assert entered == [1]


def test_another_chart_gets_its_axes_before_its_traces(monkeypatch):
    shown = go.FigureWidget()
    redraw(shown, go.Figure(go.Scatter(x=[0, 1], y=[1, 2]), {"xaxis": {"dtick": 1, "type": "linear"}}))
    axes = []
    add = shown.add_traces

    def seen(traces: Any) -> None:
        axes.append((shown.layout.xaxis.type, shown.layout.xaxis.dtick))
        add(traces)

    monkeypatch.setattr(shown, "add_traces", seen)
    redraw(shown, go.Figure(go.Heatmap(x=["65,536"], y=["1"], z=[[1]]), {"xaxis": {"type": "category"}}))
    assert axes == [("category", None)]
    assert [trace.type for trace in shown.data] == ["heatmap"]
