"""Measurements beside each other, as Play shows them."""

from __future__ import annotations

import pytest

from glmlab.errors import InputError
from glmlab.figures import compare_data, draw_compare
from tests.charted import measurement, point, steps, title


@pytest.fixture
def measurements():
    return {
        "kv_splits = 16": measurement(point(64, 1, steps(1)), point(256, 1, steps(2))),
        "kv_splits = 32": measurement(
            point(64, 1, steps(0.5), tokens=(1, 2, 3, 9)), point(256, 1, steps(1.8)), point(512, 1, steps(3))
        ),
    }


def test_ratios_are_to_the_first_where_both_were_measured(measurements):
    data = compare_data(measurements)
    assert [data.ratio(1, each) for each in ((64, 1), (256, 1), (512, 1))] == [
        pytest.approx(0.5), pytest.approx(0.9), None
    ]  # fmt: skip


def test_tokens_are_compared_with_the_firsts(measurements):
    assert compare_data(measurements).same_tokens == (1.0, 7 / 8)


def test_the_table_has_a_row_for_each_point(measurements):
    frame = compare_data(measurements).to_frame()
    assert list(frame) == [
        "label", "context_tokens", "batch_requests", "tpot_ms", "tpot_ms_p10", "tpot_ms_p90",
        "ratio_to_first", "same_tokens_share", "evidence",
    ]  # fmt: skip
    assert len(frame) == 5
    assert frame["tpot_ms"].tolist() == pytest.approx([5.5, 11, 2.75, 9.9, 16.5])


def test_the_first_is_in_ink_and_the_last_is_heavy(measurements):
    first, last = draw_compare(compare_data(measurements), "dark").data
    assert (first.line.color, first.line.dash, first.line.width) == ("#FFFFFF", "dash", 2)
    assert (last.line.width, last.line.dash) == (4, "solid")
    assert first.marker.symbol != last.marker.symbol


def test_the_title_says_how_much_faster_and_whether_tokens_are_the_same(measurements):
    assert title(draw_compare(compare_data(measurements))) == (
        "tpot_ms against context (measured) bars: p10 to p90 of the samples; kv_splits = 32 gives 88% of the"
        " tokens of kv_splits = 16; ×0.500 to ×0.900 of its tpot_ms"
    )


def test_one_measurement_is_compared_with_nothing(measurements):
    [(label, one), _] = measurements.items()
    figure = draw_compare(compare_data({label: one}))
    assert [trace.name for trace in figure.data] == ["kv_splits = 16"]
    assert "tokens of" not in title(figure)


def test_several_kinds_of_evidence_are_all_named(measurements):
    first, second = measurements.values()
    data = compare_data({"a": first, "b": second.model_copy(update={"evidence": "replayed"})})
    assert data.evidence == "measured, replayed"
    assert [trace.name for trace in draw_compare(data).data] == ["a (measured)", "b (replayed)"]
    assert set(data.to_frame().query("label == 'b'")["evidence"]) == {"replayed"}


def test_a_metric_of_a_whole_measurement_is_refused(measurements):
    with pytest.raises(InputError, match="is of a whole measurement, not of a context"):
        compare_data(measurements, "peak_memory_bytes")


@pytest.mark.parametrize(
    ("metric", "which", "said"),
    [
        ("device_ms", slice(None), "No measurement with device_ms."),
        ("tpot_ms", slice(0), "Nothing has been measured yet."),
    ],
)
def test_nothing_to_compare_says_so(measurements, metric, which, said):
    data = compare_data(dict(list(measurements.items())[which]), metric)
    assert (data.is_empty, data.missing) == (True, said)
    assert data.to_frame().empty
    assert len(draw_compare(data).layout.annotations) == 1
