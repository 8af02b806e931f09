"""Parallel coordinates: knobs as they were listed, objectives with the better end up."""

from __future__ import annotations

import math
from typing import Any

import pytest

from glmlab import theme as themes
from glmlab.figures import draw_parallel, parallel_data
from tests.charted import simple, study, title, without_value

BASE = {"cpu_split_kv": True, "block_size": 32}


@pytest.fixture
def records():
    return [
        simple(0, BASE, 1.0),
        simple(1, {"cpu_split_kv": False, "block_size": 64}, 0.5),
        without_value(2, "blocked", "no room", BASE),
    ]


def axes(figure: Any) -> dict[str, Any]:
    return {axis.label: axis for axis in figure.data[0].dimensions}


def test_the_table_has_a_row_for_each_trial_with_a_value(records):
    frame = parallel_data(records, study()).to_frame()
    assert list(frame) == ["trial", "cpu_split_kv", "block_size", "tpot_ms", "is_baseline", "evidence"]
    assert frame["tpot_ms"].tolist() == [8.25, 4.125]
    assert frame["is_baseline"].tolist() == [True, False]


def test_values_of_knobs_stand_evenly_in_their_order(records):
    figure = draw_parallel(parallel_data(records, study()))
    splits, blocks = axes(figure)["cpu_split_kv"], axes(figure)["block_size"]
    assert (list(splits.values), list(splits.ticktext)) == ([0, 1], ["true ◂ base", "false"])
    assert (list(blocks.values), list(blocks.ticktext)) == ([0, 1], ["32 ◂ base", "64"])


def test_the_better_end_of_an_objective_is_up():
    spec = study(objective=["tpot_ms", "tokens_per_s"])
    records = [simple(i, BASE, 1.0, values=values) for i, values in enumerate([(8.0, 90.0), (4.0, 60.0)])]
    figure = draw_parallel(parallel_data(records, spec))
    low, high = axes(figure)["tpot_ms<br>[ms]"], axes(figure)["tokens_per_s<br>[tokens/s]"]
    assert list(low.range) == [8.0, 4.0]
    assert list(high.range) == [60.0, 90.0]


def test_lines_are_blue_where_they_are_better(records):
    line = draw_parallel(parallel_data(records, study())).data[0].line
    assert list(line.color) == [8.25, 4.125]
    assert line.colorscale[0] == (0.0, themes.BETTER)


def test_values_far_apart_are_logarithms_with_true_ticks():
    records = [simple(0, BASE, 1.0), simple(1, {"cpu_split_kv": False, "block_size": 32}, 10.0)]
    figure = draw_parallel(parallel_data(records, study()))
    axis = axes(figure)["tpot_ms<br>[ms]"]
    assert list(axis.values) == pytest.approx([math.log10(8.25), math.log10(82.5)])
    assert axis.ticktext[0] == "8.2"
    assert axis.tickvals[0] == pytest.approx(math.log10(8.2))


def test_one_value_still_makes_an_axis(records):
    axis = axes(draw_parallel(parallel_data(records[:1], study())))["tpot_ms<br>[ms]"]
    assert list(axis.range) == [8.75, 7.75]


def test_where_a_knob_was_not_active_is_a_place_of_its_own():
    space = {
        "cpu_split_kv": [True, False],
        "block_size": {"values": [32, 64], "when": {"cpu_split_kv": [True]}},
    }
    records = [simple(0, BASE, 1.0), simple(1, {"cpu_split_kv": False}, 0.9)]
    axis = axes(draw_parallel(parallel_data(records, study(space))))["block_size"]
    assert list(axis.ticktext) == ["32 ◂ base", "not active"]


def test_a_wide_range_has_ticks_for_some_values_and_always_the_baselines():
    spec = study({"block_size": list(range(32, 32 * 101, 32))})
    records = [simple(i, {"block_size": 32 * (100 - i)}, 1.0 + i) for i in range(100)]
    axis = axes(draw_parallel(parallel_data(records, spec)))["block_size"]
    assert len(axis.tickvals) <= 17
    assert axis.ticktext[0] == "32 ◂ base"
    assert axis.values[0] == 99


def test_the_title_counts_what_is_left_out(records):
    assert title(draw_parallel(parallel_data(records, study()))) == (
        "Knobs and tpot_ms of unit (measured) blue: better tpot_ms, better ends up; drag along an axis to"
        " filter; 1 without a value left out"
    )


def test_long_names_are_broken_at_their_words():
    spec = study({"max_num_batched_tokens": [512, 1024]})
    records = [simple(0, {"max_num_batched_tokens": 1024}, 1.0)]
    assert "max_num_batched_<br>tokens" in axes(draw_parallel(parallel_data(records, spec)))


def test_before_the_first_value_it_is_an_honest_nothing(records):
    data = parallel_data(records[2:], study())
    assert data.is_empty
    assert len(draw_parallel(data).layout.annotations) == 1
