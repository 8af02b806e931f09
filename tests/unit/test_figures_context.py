"""A metric against context: one line for each value of a knob, the baseline among them."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

from glmlab.errors import InputError, KnobError
from glmlab.figures import context_data, draw_context
from glmlab.figures.context import MOST_LINES, lines_to_draw
from glmlab.figures.context_axis import labels
from tests.charted import point, simple, steps, study, trial, without_value

BASE = {"cpu_split_kv": True, "block_size": 32}


def both(split: bool, blocks: int) -> dict[str, Any]:
    return {"cpu_split_kv": split, "block_size": blocks}


@pytest.fixture
def records():
    return [
        simple(0, both(True, 32), 1.0),
        simple(1, both(False, 32), 0.8),
        simple(2, both(True, 64), 0.9),
        simple(3, both(False, 64), 1.1),
        without_value(4, "failed", "gone"),
    ]


def test_a_line_is_the_best_trial_with_a_value_and_the_baseline_has_its_own(records):
    found = context_data(records, study())
    assert found.knob == "cpu_split_kv"  # the first live knob
    assert [(line.value, line.trial, line.trials, line.label) for line in found.lines] == [
        (True, 0, 2, "true (baseline)"),
        (True, 2, 2, "true"),
        (False, 1, 2, "false (best)"),
    ]


def test_points_have_value_and_spread(records):
    base = context_data(records, study()).lines[0]
    assert base.points == {(64, 1): pytest.approx((5.5, 1.9, 9.1)), (256, 1): pytest.approx((11, 3.8, 18.2))}


def test_ratios_are_to_the_baseline_at_the_same_context(records):
    found = context_data(records, study())
    assert found.ratio(found.lines[2], (256, 1)) == pytest.approx(0.8)


def test_a_trial_that_breaks_a_constraint_stands_only_where_no_other_does():
    broken = {"violations": {"kv_tokens": 1.0}}
    records = [
        simple(0, both(True, 32), 1.0),
        simple(1, both(True, 64), 0.5, **broken),
        simple(2, both(False, 32), 0.6, **broken),
        simple(3, both(False, 64), 0.7, **broken),
    ]
    assert [line.trial for line in context_data(records, study()).lines] == [0, 2]


def test_kv_splits_is_the_knob_of_choice():
    space = {"attn_decode_tile": [16, 32], "kv_splits": [1, 2]}
    recipe = {**study().base_recipe.model_dump(exclude_defaults=True), "attention_backend": "TRITON_ATTN"}
    assert context_data([], study(space, recipe=recipe)).knob == "kv_splits"


def test_a_study_of_plans_only_has_lines_for_plans():
    assert context_data([], study({"block_size": [32, 64]})).knob == "block_size"


def test_numbers_are_in_order_whatever_the_order_of_trials():
    spec = study({"block_size": [64, 32, 128]})
    records = [simple(i, {"block_size": size}, 1.0 + i) for i, size in enumerate((64, 128, 32))]
    assert [line.value for line in context_data(records, spec).lines] == [32, 64, 128]


def test_where_a_knob_was_not_active_comes_last_and_says_so():
    space = {
        "cpu_split_kv": [True, False],
        "block_size": {"values": [32, 64], "when": {"cpu_split_kv": [True]}},
    }
    records = [simple(0, BASE, 1.0), simple(1, {"cpu_split_kv": False}, 0.9)]
    lines = context_data(records, study(space), knob="block_size").lines
    assert [line.label for line in lines] == ["32 (baseline)", "not active (best)"]


@pytest.mark.parametrize("metric", ["device_ms", None])
def test_device_time_is_shown_where_every_trial_has_it(metric):
    with_device = trial(0, BASE, point(64, 1, steps(1), device_ms=steps(0.1)))
    found = context_data([with_device], study(), metric=metric)
    assert found.metric == "device_ms"
    assert found.lines[0].points[64, 1] == pytest.approx((0.55, 0.19, 0.91))


def test_one_trial_without_device_time_and_the_objective_is_shown():
    records = [
        trial(0, BASE, point(64, 1, steps(1), device_ms=steps(0.1))),
        trial(1, both(False, 32), point(64, 1, steps(1))),
    ]
    assert context_data(records, study()).metric == "tpot_ms"
    assert context_data(records, study(objective="ttft_ms")).metric == "ttft_ms"


def test_memory_as_objective_has_no_context_so_time_per_token_is_shown():
    assert context_data([], study(objective="peak_memory_bytes")).metric == "tpot_ms"


def test_a_percentile_and_a_rate_have_no_spread(records):
    found = context_data(records, study(), metric="tpot_p90_ms")
    percentile = found.lines[0].points[64, 1]
    assert percentile.value == pytest.approx(9.1)
    assert percentile.words == "one value a visit, no spread"
    assert draw_context(found).data[0].error_y.array is None


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"knob": "kv_splits"}, KnobError, "knob = 'kv_splits': study 'unit' does not move it"),
        ({"knob": "blok_size"}, KnobError, "did you mean block_size?"),
        ({"metric": "tpot"}, InputError, "tpot: no such metric"),
        ({"metric": "peak_memory_bytes"}, InputError, "is of a whole measurement, not of a context"),
    ],
)
def test_what_there_is_not_is_refused_in_one_line(records, changes, error, said):
    with pytest.raises(error, match=re.escape(said)) as caught:
        context_data(records, study(), **changes)
    assert "\n" not in str(caught.value)


def test_the_table_names_units(records):
    frame = context_data(records, study()).to_frame()
    assert list(frame) == [
        "cpu_split_kv", "context_tokens", "batch_requests", "tpot_ms", "tpot_ms_p10", "tpot_ms_p90",
        "ratio_to_baseline", "trial", "of_trials", "is_baseline", "is_best", "evidence",
    ]  # fmt: skip
    assert len(frame) == 6
    best = frame[frame["is_best"]]
    assert best["tpot_ms"].tolist() == pytest.approx([4.4, 8.8])
    assert best["ratio_to_baseline"].tolist() == pytest.approx([0.8, 0.8])


def test_the_baseline_is_heavy_in_ink_and_drawn_last(records):
    figure = draw_context(context_data(records, study()), "light")
    assert [trace.name for trace in figure.data] == ["true", "false (best)", "true (baseline)"]
    base = figure.data[-1]
    assert (base.line.width, base.line.color, base.line.dash) == (4, "#111111", "solid")
    assert {trace.line.width for trace in figure.data[:-1]} == {2}
    # The legend keeps the order of the values.
    assert [trace.legendrank for trace in figure.data] == [1001, 1002, 1000]


def test_lines_differ_in_marker_and_dash_too(records):
    traces = draw_context(context_data(records, study())).data
    assert len({(trace.marker.symbol, trace.line.dash) for trace in traces}) == 3


def test_contexts_are_ticks_of_their_own_on_a_logarithmic_axis(records):
    axis = draw_context(context_data(records, study())).layout.xaxis
    assert (axis.type, list(axis.tickvals), list(axis.ticktext)) == ("log", [64, 256], ["64", "256"])
    assert axis.title.text == "context [tokens, log2 scale]"
    assert axis.range[0] < math.log10(64) < math.log10(256) < axis.range[1]


@pytest.mark.parametrize(
    ("contexts", "share", "written"),
    [
        ([65536, 150000], 0.11, ["65,536", "150,000"]),
        ([64, 65, 256, 4096], 0.11, ["64", "", "256", "4,096"]),
        ([1024, 4096, 65536, 149999, 150000], 0.11, ["1,024", "4,096", "65,536", "", "150,000"]),
        ([1024, 4096, 16384, 65536, 150000], 0.33, ["1,024", "", "16,384", "", "150,000"]),
        ([64], 0.11, ["64"]),
    ],
)
def test_contexts_too_close_for_two_labels_keep_their_ticks(contexts, share, written):
    assert labels(contexts, share) == written


def test_each_batch_size_is_a_panel_with_one_legend():
    points = [point(c, b, steps(b)) for c in (64, 256) for b in (1, 4, 8, 16)]
    figure = draw_context(context_data([trial(0, BASE, *points)], study()))
    assert [note.text for note in figure.layout.annotations] == [f"batch {b}" for b in (1, 4, 8, 16)]
    assert [trace.showlegend for trace in figure.data] == [True, False, False, False]
    assert len({(trace.xaxis, trace.yaxis) for trace in figure.data}) == 4
    titles = [axis.title.text for axis in figure.select_xaxes() if axis.title.text]
    assert titles == ["context [tokens, log2 scale]"]
    assert len({axis.range for axis in figure.select_yaxes()}) == 1  # one scale for two rows of panels
    assert figure.layout.yaxis.title.text == "tpot_ms<br>[ms, log2 scale]<br>lower is better"


def test_hover_says_value_spread_and_trial(records):
    figure = draw_context(context_data(records, study()))
    assert figure.data[1].text[0].split("<br>") == [
        "cpu_split_kv = false (best)",
        "context 64 tokens, batch 1",
        "tpot_ms 4.4 ms, ×0.800 of the baseline",
        "p10 1.52, p90 7.28 of its samples",
        "trial #1: cpu_split_kv = false, block_size = 32",
    ]


def test_the_title_says_evidence_and_that_a_line_is_the_best_of_several(records):
    replayed = [r.model_copy(update={"evidence": "replayed"}) for r in records]
    text = draw_context(context_data(replayed, study())).layout.title.text
    assert text.startswith("tpot_ms against context, by cpu_split_kv (replayed)")
    assert "each line: the best trial with that value" in text


def test_of_many_lines_baseline_best_and_an_even_choice_are_drawn():
    spec = study({"block_size": list(range(32, 32 * 41, 32))})
    records = [simple(i, {"block_size": 32 * (i + 1)}, 1 + abs(i - 23)) for i in range(40)]
    data = context_data(records, spec)
    drawn = [line.trial for line in lines_to_draw(data.lines)]
    assert len(data.lines) == 40
    assert len(drawn) == MOST_LINES + 2
    assert {0, 1, 23, 39} <= set(drawn)  # baseline, both ends of the others, best
    assert drawn == sorted(drawn)
    assert "10 of 40 lines drawn" in draw_context(data).layout.title.text
    assert len(data.to_frame()) == 80


def test_before_the_first_trial_it_says_what_will_be_here():
    data = context_data([without_value(0, "failed", "no engine")], study())
    assert data.is_empty
    assert data.to_frame().empty
    [note] = draw_context(data).layout.annotations
    assert note.text.replace("<br>", " ") == (
        "No trial with tpot_ms has finished yet: a value of cpu_split_kv is a line."
    )
