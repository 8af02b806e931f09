"""Heat map: values of a knob against contexts, beside the baseline."""

from __future__ import annotations

import math

import pytest

from glmlab import theme as themes
from glmlab.errors import InputError
from glmlab.figures import draw_heatmap, heatmap_data
from tests.charted import point, simple, steps, study, trial

SIZES = {"block_size": [32, 64, 128]}


@pytest.fixture
def records():
    return [
        simple(0, {"block_size": 32}, 1.0),
        simple(1, {"block_size": 64}, 0.5),
        trial(2, {"block_size": 128}, point(64, 1, steps(4.0))),  # 256 was not measured
    ]


@pytest.fixture
def data(records):
    return heatmap_data(records, study(SIZES))


def test_cells_are_values_and_ratios_at_the_same_context(data):
    assert data.contexts == (64, 256)
    cells = [[(data.value(row, c), data.ratio(row, c)) for c in data.contexts] for row in data.rows]
    assert cells == [
        [(5.5, 1.0), (11.0, 1.0)],
        [(2.75, 0.5), (5.5, 0.5)],
        [(22.0, 4.0), (None, None)],
    ]


def test_the_table_has_the_measured_cells_only(data):
    frame = data.to_frame()
    assert len(frame) == 5
    assert frame["ratio_to_baseline"].tolist() == [1.0, 1.0, 0.5, 0.5, 4.0]
    assert {"block_size", "context_tokens", "batch_requests", "tpot_ms", "evidence"} <= set(frame)


def test_cells_are_written_with_value_and_ratio(data):
    [cells] = draw_heatmap(data).data
    assert cells.text[1] == ["2.75<br>×0.50", "5.5<br>×0.50"]
    assert cells.text[2] == ["22<br>×4.00", ""]
    assert list(cells.y) == ["32 (baseline)", "64 (best)", "128"]


def test_colours_are_logarithms_of_the_ratio_and_end_at_half_and_twice(data):
    [cells] = draw_heatmap(data).data
    assert [list(row) for row in cells.z] == [[0.0, 0.0], [-1.0, -1.0], [2.0, None]]
    assert (cells.zmin, cells.zmax) == (-1.0, 1.0)
    assert cells.colorbar.ticktext[0] == "≤ ×0.50"
    assert cells.colorbar.ticktext[-1] == "≥ ×2.00"
    assert cells.colorscale[0] == (0.0, themes.BETTER)


def test_where_nothing_is_far_off_the_colours_reach_as_far_as_the_values():
    records = [simple(0, {"block_size": 32}, 1.0), simple(1, {"block_size": 64}, 1.25)]
    [cells] = draw_heatmap(heatmap_data(records, study(SIZES))).data
    assert cells.zmax == pytest.approx(math.log2(1.25))
    assert cells.colorbar.ticktext[-1] == "×1.25"


def test_noise_does_not_take_the_whole_of_the_colours():
    records = [simple(0, {"block_size": 32}, 1.0), simple(1, {"block_size": 64}, 1.001)]
    [cells] = draw_heatmap(heatmap_data(records, study(SIZES))).data
    assert cells.zmax == pytest.approx(math.log2(1.05))


def test_blue_is_better_for_a_rate_too(records):
    [cells] = draw_heatmap(heatmap_data(records, study(SIZES), metric="tokens_per_s")).data
    assert cells.colorscale[-1] == (1.0, themes.BETTER)


def test_the_baselines_row_is_framed(data):
    [frame] = draw_heatmap(data, "light").layout.shapes
    assert (frame.y0, frame.y1, frame.x0, frame.x1) == (-0.5, 0.5, -0.5, 1.5)


def test_of_two_trials_with_the_baselines_value_the_better_is_the_row():
    records = [
        simple(0, {"cpu_split_kv": True, "block_size": 32}, 1.0),
        simple(1, {"cpu_split_kv": True, "block_size": 64}, 0.5),
    ]
    data = heatmap_data(records, study())
    assert [(row.value, row.trial) for row in data.rows] == [(True, 1)]
    assert data.ratio(data.rows[0], 64) == 0.5
    assert not draw_heatmap(data).layout.shapes


def test_without_a_baseline_colour_is_the_value():
    records = [simple(0, {"block_size": 64}, 1.0), simple(1, {"block_size": 128}, 2.0)]
    data = heatmap_data(records, study(SIZES))
    assert data.baseline is None
    [cells] = draw_heatmap(data).data
    assert [list(row) for row in cells.z] == [[5.5, 11.0], [11.0, 22.0]]
    assert cells.text[0] == ["5.5", "11"]
    assert cells.colorbar.title.text == "tpot_ms<br>[ms]"


def test_a_batch_size_is_chosen_or_the_smallest():
    records = [trial(0, {"block_size": 32}, *(point(64, b, steps(b)) for b in (8, 2)))]
    assert heatmap_data(records, study(SIZES)).batch == 2
    data = heatmap_data(records, study(SIZES), batch=8)
    assert data.value(data.rows[0], 64) == 44.0
    assert "batch 8" in draw_heatmap(data).layout.title.text
    with pytest.raises(InputError, match=r"^batch = 4: was not measured; measured: 2, 8$"):
        heatmap_data(records, study(SIZES), batch=4)


def test_with_many_rows_numbers_and_names_give_way():
    space = {"block_size": list(range(32, 32 * 61, 32))}
    records = [simple(i, {"block_size": 32 * (i + 1)}, 1 + i) for i in range(60)]
    figure = draw_heatmap(heatmap_data(records, study(space)))
    assert figure.data[0].texttemplate is None
    assert len(figure.layout.yaxis.tickvals) <= 40
    assert figure.layout.yaxis.tickvals[0] == "32 (baseline, best)"


def test_the_title_says_evidence_unit_and_which_way_is_better(data):
    text = draw_heatmap(data).layout.title.text
    assert text.startswith("tpot_ms by block_size and context, batch 1 (measured)")
    assert "time per output token, median [ms]; ratio to the baseline, below ×1 is better" in text


def test_hover_says_all_of_a_cell_and_nothing_of_a_gap(data):
    [cells] = draw_heatmap(data).data
    assert cells.customdata[1][0].split("<br>") == [
        "block_size = 64 (best)",
        "context 64 tokens, batch 1",
        "tpot_ms 2.75 ms, ×0.500 of the baseline",
        "p10 0.95, p90 4.55 of its samples",
        "trial #1: block_size = 64",
    ]
    assert cells.hoverongaps is False


def test_before_the_first_trial_it_is_an_honest_nothing():
    data = heatmap_data([], study(SIZES))
    assert data.is_empty
    assert data.to_frame().empty
    assert len(draw_heatmap(data).layout.annotations) == 1
