"""History: values, the best so far, the baseline's band, and trials without a value."""

from __future__ import annotations

import pytest

from glmlab.figures import draw_history, history_data
from glmlab.figures.quantity import Spread
from tests.charted import point, simple, steps, study, trial, without_value

BASE = {"cpu_split_kv": True, "block_size": 32}
FAST = {"cpu_split_kv": False, "block_size": 32}
BLOCKS = {"cpu_split_kv": True, "block_size": 64}


@pytest.fixture
def records():
    """A baseline, a better one, a failure, one that is worse, one that breaks its constraint."""
    return [
        simple(0, BASE, 1.0),
        simple(1, FAST, 0.8),
        without_value(2, "failed", "no kernel for <blocks> & co", {"block_size": 64}),
        simple(3, BLOCKS, 1.2),
        simple(4, FAST, 0.5, violations={"kv_tokens": 10.0}, constraint_values={"kv_tokens": 190.0}),
    ]


@pytest.fixture
def data(records):
    return history_data(records, study())


def test_a_value_is_the_mean_over_contexts_and_so_is_its_spread(data):
    # Medians 5.5 and 11, p10 1.9 and 3.8, p90 9.1 and 18.2 of 1..10 and of 2..20.
    assert data.spread[0] == pytest.approx((8.25, 2.85, 13.65))
    assert data.spread[1] == pytest.approx((6.6, 2.28, 10.92))
    assert data.spread[2] is None


def test_weights_of_the_workload_count_for_value_and_spread():
    workload = {"contexts": [64, 256], "batch_sizes": [1], "new_tokens": 11, "weights": {256: 3.0}}
    found = history_data([simple(0, BASE, 1.0)], study(workload=workload))
    assert found.spread[0] == pytest.approx((9.625, 3.325, 15.925))


def test_the_best_so_far_never_gets_worse_and_keeps_the_constraints(data):
    assert data.best == pytest.approx((8.25, 6.6, 6.6, 6.6, 6.6))


def test_more_is_better_where_the_objective_says_so():
    spec = study(objective="tokens_per_s")
    slow, fast = (
        trial(i, BASE if i == 0 else FAST, point(64, 1, steps(1), elapsed_ms=ms), values=[4000 / ms])
        for i, ms in enumerate((100.0, 50.0))
    )
    found = history_data([slow, fast, slow.model_copy(update={"number": 2})], spec)
    assert found.best == (40.0, 80.0, 80.0)
    assert found.spread[0] == Spread(40.0)  # a rate of a whole pass has no samples


def test_the_baseline_is_found_by_its_values(records):
    found = history_data(records, study(), FAST)
    assert found.baseline_trial == 1
    assert found.baseline == pytest.approx((6.6, 2.28, 10.92))


def test_without_its_values_the_baseline_is_what_the_recipe_says(records, data):
    assert data.baseline_trial == 0
    # A point that was enqueued before it is no baseline: it does not agree with the recipe.
    early = history_data([records[1], records[0]], study())
    assert early.baseline_trial == 0


def test_an_unfinished_study_has_no_baseline_yet():
    found = history_data([without_value(0, "failed", "no engine")], study())
    assert found.baseline is None
    assert found.best == (None,)
    assert not found.is_empty
    assert "1 failed" in draw_history(found).layout.title.text


def test_the_table_has_every_number_with_its_unit(data):
    frame = data.to_frame()
    assert list(frame) == [
        "trial", "status", "cpu_split_kv", "block_size", "tpot_ms", "tpot_ms_p10", "tpot_ms_p90",
        "ratio_to_baseline", "best_so_far_tpot_ms", "keeps_constraints", "engine_kept", "cost_s", "reason",
        "evidence",
    ]  # fmt: skip
    assert frame["trial"].tolist() == [0, 1, 2, 3, 4]
    assert frame["ratio_to_baseline"].dropna().tolist() == pytest.approx([1.0, 0.8, 1.2, 0.5])
    assert frame["tpot_ms"].isna().tolist() == [False, False, True, False, False]
    assert frame["keeps_constraints"].tolist()[-1] is False
    assert frame["reason"].tolist()[-1] == "breaks a constraint: kv_tokens = 190"
    assert set(frame["evidence"]) == {"measured"}


def test_each_kind_of_trial_is_a_trace_of_its_own(data):
    figure = draw_history(data)
    assert [trace.name for trace in figure.data] == [
        "baseline, p10 to p90",
        "trial, bar p10 to p90",
        "breaks a constraint",
        "baseline, #0: 8.25 ms",
        "best so far",
        "failed",
    ]
    symbols = {trace.name: trace.marker.symbol for trace in figure.data if trace.mode == "markers"}
    assert len(set(symbols.values())) == 3  # not by colour alone


def test_bars_reach_from_p10_to_p90(data):
    points = draw_history(data).data[1]
    assert list(points.y) == pytest.approx([8.25, 6.6, 9.9])
    assert points.error_y.array[0] == pytest.approx(13.65 - 8.25)
    assert points.error_y.arrayminus[0] == pytest.approx(8.25 - 2.85)


def test_the_band_is_the_baselines_own_spread(data):
    band = draw_history(data).data[0]
    assert list(band.y) == pytest.approx([2.85, 2.85, 13.65, 13.65])


def test_what_failed_stands_below_all_values_with_its_reason(data):
    figure = draw_history(data)
    failed = figure.data[-1]
    assert (list(failed.x), failed.yaxis) == ([2], "y2")
    assert "no kernel for &lt;blocks&gt; &amp; co" in failed.text[0]
    assert figure.layout.yaxis2.domain[1] < figure.layout.yaxis.domain[0]


def test_the_best_is_a_step_line(data):
    best = next(trace for trace in draw_history(data).data if trace.name == "best so far")
    assert (best.line.shape, best.line.dash) == ("hv", "dash")


def test_titles_say_unit_direction_and_result(data):
    layout = draw_history(data).layout
    assert layout.title.text.startswith("Trials of unit: tpot_ms (measured)")
    assert "best so far 6.6 ms, ×0.800 of the baseline's 8.25 ms" in layout.title.text
    assert layout.yaxis.title.text == "time per output token, median<br>[ms], lower is better"
    assert layout.xaxis.title.text == "trial [number]"


def test_values_far_apart_get_a_logarithmic_axis_that_says_so():
    wide = history_data([simple(0, BASE, 1.0), simple(1, FAST, 8.0)], study())
    axis = draw_history(wide).layout.yaxis
    assert axis.type == "log"
    assert "log2 scale" in axis.title.text
    near = history_data([simple(0, BASE, 1.0), simple(1, FAST, 7.9)], study())
    assert draw_history(near).layout.yaxis.type is None
