"""Cost: parts of each trial, sums, and what restarts would have cost."""

from __future__ import annotations

import pytest

from glmlab.figures import cost_data, draw_cost
from glmlab.figures.cost import PARTS, cut_at
from glmlab.summary import summarize
from tests.charted import cost, simple, title, visit, without_value
from tests.doubles import scripted_start
from tests.studies import run, split_helps

BASE = {"cpu_split_kv": True, "block_size": 32}


@pytest.fixture
def records():
    """A start with its prefill, two live trials and a failure."""
    return [
        simple(0, BASE, 1.0, cost=cost(rebuild=80, prefill=5, measure=2, overhead=1)),
        simple(1, BASE, 0.9, cost=cost(apply=3, measure=1)),
        without_value(2, "failed", "gone").model_copy(update={"cost": cost(apply=2)}),
        simple(3, BASE, 0.9, cost=cost(apply=4, measure=1.5, overhead=0.5)),
    ]


@pytest.fixture
def visits():
    return [visit("baseline", 0, 1.0, measure=1), visit("best", 0, 0.9, apply=1, measure=1)]


def test_sums_are_of_all_that_was_spent(records, visits):
    data = cost_data(records, visits)
    assert list(data.spent_s) == [88, 92, 94, 100, 101, 103]
    assert list(data.trial) == [0, 1, 2, 3, None, None]
    assert data.what[-2:] == ("round 1, baseline", "round 1, best")


def test_a_restart_is_the_median_start_prefill_and_measurement(records, visits):
    data = cost_data(records, visits)
    assert data.restart_s == 80 + 5 + 1.5
    # A failed trial would have cost a restart too, but that is not known, so it is not counted.
    assert data.restarts_s == (86.5, 173, 173, 259.5, 346, 432.5)


def test_it_is_the_restart_of_the_studys_own_summary(url):
    study = run(url, scripted_start(split_helps))
    data = cost_data(study.records())
    found = summarize(study.store).cost_s
    assert data.restart_s == found.restart_trial
    assert data.restarts_s[-1] == pytest.approx(found.restart_estimate)


def test_without_a_start_there_is_no_estimate(records):
    data = cost_data(records[1:])
    assert (data.restart_s, data.restarts_s) == (None, (None, None, None))
    figure = draw_cost(data)
    assert "estimate with a restart each" not in [trace.name for trace in figure.data]
    assert "cannot be estimated" in title(figure)


def test_the_table_has_every_part_in_seconds(records, visits):
    frame = cost_data(records, visits).to_frame()
    assert list(frame) == [
        "trial", "what", "rebuild_s", "apply_s", "prefill_s", "measure_s", "overhead_s", "total_s",
        "engine_kept", "cumulated_s", "cumulated_with_restarts_s", "evidence",
    ]  # fmt: skip
    assert frame["total_s"].tolist() == [88, 4, 2, 6, 1, 2]
    assert frame["engine_kept"].tolist() == [False, True, True, True, True, True]
    assert frame["trial"].isna().tolist() == [False] * 4 + [True] * 2


def test_bars_are_stacked_and_differ_by_pattern(records):
    figure = draw_cost(cost_data(records))
    bars = [trace for trace in figure.data if trace.type == "bar"]
    assert [bar.name for bar in bars] == list(PARTS.values())
    assert figure.layout.barmode == "stack"
    assert len({bar.marker.pattern.shape for bar in bars}) == len(bars)
    assert [sum(heights) for heights in zip(*(bar.y for bar in bars), strict=True)] == [88, 4, 2, 6]


def test_a_bar_that_would_flatten_the_others_is_cut_and_says_how_high_it_is(records):
    figure = draw_cost(cost_data(records))
    top = figure.layout.yaxis.range[1]
    assert 6 < top < 88
    assert "cut at 9.6 s" in figure.layout.yaxis.title.text
    assert "▲ 1 min 28 s" in [note.text for note in figure.layout.annotations]


@pytest.mark.parametrize(("totals", "cut"), [([88, 4, 2, 6], 9.6), ([5, 4, 2, 6], None), ([90, 1], None)])
def test_bars_are_cut_only_where_one_stands_out(totals, cut):
    assert cut_at(totals) == (cut and pytest.approx(cut))


def test_the_ends_of_the_sums_are_written_beside_them(records, visits):
    notes = [note.text for note in draw_cost(cost_data(records, visits)).layout.annotations]
    assert "spent: 1 min 43 s" in notes
    assert "estimate with a restart each: 7 min 12 s" in notes


def test_visits_stand_behind_a_line_and_are_named_by_their_round(records, visits):
    layout = draw_cost(cost_data(records, visits)).layout
    assert list(layout.xaxis.ticktext) == ["0", "1", "2", "3", "r1", "r1"]
    assert {shape.x0 for shape in layout.shapes} == {3.5}
    assert layout.xaxis2.title.text == "trial [number], then visits of the confirmation [round]"


def test_thousands_of_trials_are_taken_together_and_the_title_says_so():
    records = [simple(i, BASE, 1.0, cost=cost(apply=i % 2, measure=1)) for i in range(1001)]
    figure = draw_cost(cost_data(records))
    bars = next(trace for trace in figure.data if trace.name == "measuring")
    assert len(bars.x) == 334
    assert set(bars.y) == {1.0}
    assert list(bars.x[:2]) == [1.0, 4.0]  # the middles of trials 0 to 2 and 3 to 5
    assert bars.x[-1] == 999.5  # the last two
    assert "each bar is the mean of 3 trials" in title(figure)
    assert len(cost_data(records).to_frame()) == 1001


def test_hover_says_what_a_bar_is(records):
    total = next(trace for trace in draw_cost(cost_data(records)).data if trace.name == "total")
    assert total.text[1] == "trial #1: cpu_split_kv = true, block_size = 32<br>engine kept"
    assert total.text[0].endswith("engine new")


def test_before_the_first_trial_it_is_an_honest_nothing():
    data = cost_data([])
    assert data.is_empty
    assert data.to_frame().empty
    assert len(draw_cost(data).layout.annotations) == 1
