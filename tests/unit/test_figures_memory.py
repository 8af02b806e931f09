"""Memory: one bar for each GPU, made of what ``fit`` computed."""

from __future__ import annotations

import pytest

from glmlab import fit
from glmlab.figures import draw_memory, memory_data
from glmlab.footprint.part import GROUPS
from tests.charted import title


@pytest.fixture(scope="module")
def found():
    return fit("glm-4.5-air-fp8", "rtx-pro-6000", 4)


@pytest.fixture
def data(found):
    return memory_data(found)


def test_parts_and_what_is_free_make_up_what_is_usable(data, found):
    frame = data.to_frame()
    parts = frame[[f"{group}_gb" for group in GROUPS]].sum(axis=1)
    assert (parts + frame["free_gb"]).tolist() == pytest.approx([found.gpu.usable_memory_bytes / 1e9] * 4)
    assert frame["weights_gb"].tolist() == pytest.approx([found.gb("weights")] * 2 + [0.0, 0.0])
    assert set(frame["evidence"]) == {"predicted"}


def test_gpus_that_the_recipe_leaves_idle_are_shown_idle(data, found):
    assert found.ranks == 2
    assert data.gpus == ("GPU 0", "GPU 1", "GPU 2, idle", "GPU 3, idle")


def test_bars_are_stacked_in_the_order_of_the_parts_and_differ_by_pattern(data, found):
    figure = draw_memory(data)
    bars = [trace for trace in figure.data if trace.type == "bar"]
    shown = [group for group in GROUPS if found.gb(group)]
    assert [bar.legendgroup for bar in bars] == [*shown, "free"]
    assert figure.layout.barmode == "stack"
    assert len({bar.marker.pattern.shape for bar in bars[:-1]}) == len(shown)
    assert bars[0].name == f"weights {found.gb('weights'):.1f} GB"


def test_the_sum_has_its_doubt(data, found):
    total = next(trace for trace in draw_memory(data).data if trace.type == "scatter")
    assert list(total.x) == pytest.approx([found.gb()] * 2)
    assert list(total.error_x.array) == pytest.approx([found.plus_minus_bytes / 1e9] * 2)


def test_a_line_says_what_is_usable(data, found):
    layout = draw_memory(data).layout
    assert [shape.x0 for shape in layout.shapes] == pytest.approx([found.gpu.usable_memory_bytes / 1e9])
    assert "usable 102.0 GB" in [note.text for note in layout.annotations]


def test_hover_says_where_a_number_comes_from(data):
    [weights] = [trace for trace in draw_memory(data).data if trace.legendgroup == "weights"]
    assert "computed" in weights.hovertemplate
    assert "config.json" in weights.hovertemplate


def test_the_title_says_whether_it_fits_and_how_much_context(data, found):
    said = title(draw_memory(data))
    assert said.startswith("Memory of glm-4.5-air-fp8 on 4 x NVIDIA RTX PRO 6000")
    assert "(predicted) fits 2 x rtx-pro-6000" in said
    assert f"KV: {found.kv_tokens:,} tokens, longest context {found.longest_context:,}" in said


def test_too_much_is_drawn_past_the_line_and_nothing_is_free():
    found = fit("glm-4.7-fp8", "h100", 4)
    data = memory_data(found)
    assert data.free_gb[0] < 0
    figure = draw_memory(data)
    assert "free" not in [trace.legendgroup for trace in figure.data]
    assert max(sum(column) for column in zip(*(t.x for t in figure.data if t.type == "bar"), strict=True)) > (
        data.usable_gb
    )
    assert "does not fit" in title(figure)


def test_fewer_gpus_than_ranks_are_drawn_as_many_as_it_needs():
    assert len(memory_data(fit("glm-4.7-fp8", "h200", 2)).gpus) == 4
