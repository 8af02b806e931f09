"""The confirmation: values of each round, ratios, and the interval of the verdict."""

from __future__ import annotations

import pytest

from glmlab.figures import draw_rounds, rounds_data
from glmlab.stats import Verdict, judge
from tests.charted import study, title, visit

TIMES = [(1.0, 0.5), (1.1, 0.6), (0.9, 0.5)]


@pytest.fixture
def visits():
    return [
        visit(side, number, times)
        for number, pair in enumerate(TIMES)
        for side, times in zip(("baseline", "best"), pair, strict=True)
    ]


@pytest.fixture
def verdict():
    return judge([8.25 * a for a, _ in TIMES], [8.25 * b for _, b in TIMES], metric="tpot_ms")


def test_each_round_has_both_values_and_their_ratio(visits, verdict):
    data = rounds_data(visits, verdict, study())
    assert data.round == (1, 2, 3)
    assert data.baseline[0] == pytest.approx((8.25, 2.85, 13.65))
    assert [s and s.value for s in data.best] == pytest.approx([4.125, 4.95, 4.125])
    assert data.ratios == pytest.approx([0.5, 0.6 / 1.1, 0.5 / 0.9])


def test_a_round_that_is_not_finished_has_no_ratio(visits):
    data = rounds_data(visits[:3], None, study())
    assert data.ratios == [pytest.approx(0.5), None]
    assert data.best[1] is None
    assert "1 round so far, no verdict yet" in title(draw_rounds(data))


def test_the_verdicts_metric_is_shown_whatever_the_objective(visits, verdict):
    other = verdict.model_copy(update={"metric": "ttft_ms"})
    assert rounds_data(visits, other, study()).metric == "ttft_ms"
    assert rounds_data(visits, None, study()).metric == "tpot_ms"


def test_the_table_has_a_row_for_each_round(visits, verdict):
    frame = rounds_data(visits, verdict, study()).to_frame()
    assert list(frame) == [
        "round", "baseline_tpot_ms", "baseline_tpot_ms_p10", "baseline_tpot_ms_p90", "best_tpot_ms",
        "best_tpot_ms_p10", "best_tpot_ms_p90", "ratio", "evidence",
    ]  # fmt: skip
    assert frame["ratio"].tolist() == pytest.approx([0.5, 0.6 / 1.1, 0.5 / 0.9])


def test_the_interval_is_drawn_as_it_was_judged(visits, verdict):
    figure = draw_rounds(rounds_data(visits, verdict, study()))
    assert [trace.name for trace in figure.data] == [
        "baseline", "best", "one round", "all rounds, 95% interval"
    ]  # fmt: skip
    whole = figure.data[-1]
    assert list(whole.x) == [verdict.ratio]
    assert whole.x[0] + whole.error_x.array[0] == pytest.approx(verdict.high)
    assert whole.x[0] - whole.error_x.arrayminus[0] == pytest.approx(verdict.low)
    assert len({trace.marker.symbol for trace in figure.data[:3]}) == 3


def test_no_difference_is_a_line_and_the_better_side_is_named(visits, verdict):
    layout = draw_rounds(rounds_data(visits, verdict, study())).layout
    assert [(shape.x0, shape.x1) for shape in layout.shapes] == [(1, 1)]
    assert layout.xaxis2.title.text == "best / baseline [ratio]<br>below 1 is better"
    rate = verdict.model_copy(update={"metric": "tokens_per_s"})
    turned = draw_rounds(rounds_data(visits, rate, study())).layout
    assert turned.xaxis2.title.text.endswith("above 1 is better")


def test_the_title_is_the_verdict_with_its_interval_and_evidence(visits, verdict):
    assert title(draw_rounds(rounds_data(visits, verdict, study()))) == (
        "Confirmation: best against baseline (measured)"
        f" win: tpot_ms ×{verdict.ratio:.3f} ({verdict.low:.3f} to {verdict.high:.3f}, 95% interval),"
        " 3 rounds"
    )


def test_a_single_round_has_no_interval(visits):
    single = judge([8.25], [4.125], metric="tpot_ms")
    figure = draw_rounds(rounds_data(visits[:2], single, study()))
    assert figure.data[-1].error_x.array is None
    assert title(figure).endswith("tie: tpot_ms ×0.500, 1 round")


def test_before_the_confirmation_it_says_what_will_happen():
    data = rounds_data([], None, study())
    assert data.is_empty
    assert data.missing.startswith("Not confirmed yet")
    assert data.to_frame().empty


def test_where_nothing_beat_the_baseline_it_says_that():
    reason = "no trial was better than the baseline: keep the default"
    tie = Verdict(outcome="tie", ratio=1, low=None, high=None, metric="tpot_ms", rounds=0, reason=reason)
    data = rounds_data([], tie, study())
    assert data.missing == "No trial was better than the baseline: keep the default. Nothing was confirmed."
