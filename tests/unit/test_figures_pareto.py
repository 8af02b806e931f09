"""Pareto: which trials no other beats, and how that is drawn."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmlab.errors import InputError
from glmlab.figures import draw_pareto, pareto_data
from glmlab.figures.pareto import front
from tests.charted import measurement, point, simple, steps, study, trial, without_value

BASE = {"cpu_split_kv": True, "block_size": 32}
FAST = {"cpu_split_kv": False, "block_size": 32}


def at(number: int, tpot_times: float, elapsed_ms: float, params: Any = FAST, **changes: Any) -> Any:
    """5.5 ms times a factor a token, and 4 tokens in so many milliseconds."""
    return trial(number, params, point(64, 1, steps(tpot_times), elapsed_ms=elapsed_ms), **changes)


@pytest.fixture
def records():
    return [
        at(0, 1.0, 100, BASE),  # 40 tokens/s at 5.5 ms
        at(1, 0.5, 80),  # 50 at 2.75
        at(2, 1.0, 50),  # 80 at 5.5: as slow as the baseline, at twice the rate
        at(3, 2.0, 90),  # beaten by both of these
        at(4, 0.1, 10, violations={"kv_tokens": 1.0}),  # best of all, and not allowed
        without_value(5, "failed", "gone"),
    ]


def test_the_front_is_what_no_other_beats(records):
    data = pareto_data(records, study())
    assert (data.x, data.y) == ("tokens_per_s", "tpot_ms")
    assert [s.value for s in data.x_spread] == pytest.approx([40, 50, 80, 44.444444, 400])
    assert data.on_front == (False, True, True, False, False)


@given(
    st.lists(st.one_of(st.none(), st.tuples(st.integers(0, 5), st.integers(0, 5))), max_size=12),
    st.tuples(st.booleans(), st.booleans()),
)
def test_the_front_agrees_with_its_definition(places, maximize):
    def beats(one: Any, other: Any) -> bool:
        signed = [(a, b) if more else (-a, -b) for a, b, more in zip(one, other, maximize, strict=True)]
        return all(a >= b for a, b in signed) and any(a > b for a, b in signed)

    expected = [
        place is not None and not any(other is not None and beats(other, place) for other in places)
        for place in places
    ]
    floats = [None if p is None else (float(p[0]), float(p[1])) for p in places]
    assert front(floats, maximize=maximize) == expected


def test_two_objectives_are_the_axes_and_others_can_be_asked_for(records):
    spec = study(objective=["ttft_ms", "tpot_ms", "tokens_per_s"])
    found = pareto_data(records, spec)
    assert (found.x, found.y) == ("ttft_ms", "tpot_ms")
    other = pareto_data(records, spec, y="tokens_per_s")
    assert (other.x, other.y) == ("ttft_ms", "tokens_per_s")
    assert (pareto_data(records, study(), x="tpot_ms").y) == "tokens_per_s"


@pytest.mark.parametrize(
    ("axes", "said"),
    [
        ({"x": "tpot_ms", "y": "tpot_ms"}, "x = 'tpot_ms': y is the same metric; choose two"),
        ({"x": "speed"}, "speed: no such metric"),
    ],
)
def test_axes_that_make_no_chart_are_refused(records, axes, said):
    with pytest.raises(InputError, match=re.escape(said)):
        pareto_data(records, study(), **axes)


def test_memory_can_be_an_axis():
    record = simple(0, BASE, 1.0)
    assert record.measurement is not None
    found = measurement(*record.measurement.points, peak_bytes=2_000)
    data = pareto_data(
        [record.model_copy(update={"measurement": found})], study(), x="peak_memory_bytes", y="tpot_ms"
    )
    assert [tuple(s) for s in data.x_spread] == [(2000.0, None, None)]


def test_the_table_has_both_metrics_with_spread(records):
    frame = pareto_data(records, study()).to_frame()
    assert list(frame) == [
        "trial", "cpu_split_kv", "block_size", "tokens_per_s", "tokens_per_s_p10", "tokens_per_s_p90",
        "tpot_ms", "tpot_ms_p10", "tpot_ms_p90", "on_front", "keeps_constraints", "is_baseline", "evidence",
    ]  # fmt: skip
    assert frame["trial"].tolist() == [0, 1, 2, 3, 4]
    assert frame["on_front"].tolist() == [False, True, True, False, False]
    assert frame["tokens_per_s_p10"].isna().all()


def test_each_kind_of_trial_has_a_marker_of_its_own(records):
    figure = draw_pareto(pareto_data(records, study()))
    names = [trace.name for trace in figure.data]
    assert names == ["dominated", "breaks a constraint", "front", "baseline"]
    assert len({trace.marker.symbol for trace in figure.data}) == 4


@pytest.mark.parametrize(
    ("axes", "shape"), [(("tokens_per_s", "tpot_ms"), "vh"), (("ttft_ms", "tpot_ms"), "hv")]
)
def test_the_front_is_joined_by_steps_on_the_beaten_side(records, axes, shape):
    figure = draw_pareto(pareto_data(records, study(), *axes))
    line = next(trace for trace in figure.data if trace.name == "front")
    assert line.line.shape == shape
    assert list(line.x) == sorted(line.x)


def test_axes_say_which_way_is_better(records):
    layout = draw_pareto(pareto_data(records[:4], study())).layout
    assert layout.xaxis.title.text.endswith("[tokens/s], → higher is better")
    assert layout.yaxis.title.text.endswith("[ms], ↓ lower is better")
    turned = draw_pareto(pareto_data(records[:4], study(), "tpot_ms", "tokens_per_s")).layout
    assert turned.xaxis.title.text.endswith("[ms], ← lower is better")
    assert turned.yaxis.title.text.endswith("[tokens/s], ↑ higher is better")


def test_lines_through_the_baseline_part_better_from_worse(records):
    shapes = draw_pareto(pareto_data(records, study())).layout.shapes
    assert [(s.x0, s.x1) for s in shapes if s.x0 == s.x1] == [(40, 40)]
    assert [(s.y0, s.y1) for s in shapes if s.y0 == s.y1] == [(5.5, 5.5)]


def test_bars_are_drawn_where_there_are_samples(records):
    line = next(t for t in draw_pareto(pareto_data(records, study())).data if t.name == "front")
    assert line.error_x.array is None
    assert list(line.error_y.array) == pytest.approx([9.1 * 0.5 - 2.75, 9.1 - 5.5])


def test_the_title_counts_the_front(records):
    text = draw_pareto(pareto_data(records, study())).layout.title.text
    assert text.startswith("tpot_ms against tokens_per_s of unit (measured)")
    assert "2 of 5 trials are on the front" in text


def test_without_both_metrics_it_says_which_are_missing(records):
    data = pareto_data(records, study(), "device_ms", "tpot_ms")
    assert data.is_empty
    [note] = draw_pareto(data).layout.annotations
    assert "device_ms and tpot_ms" in note.text.replace("<br>", " ")
