"""Values and spreads of a metric, and how they are written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmlab.figures.quantity import Spread, axis_title, digits, is_wide, point_spread, times, whole_spread
from glmlab.measurement import METRICS, quantile
from glmlab.workload import Workload
from tests.charted import measurement, point, steps

SAMPLES = st.lists(st.floats(0.001, 1e4), min_size=1, max_size=40)


@given(SAMPLES)
def test_a_spread_is_made_of_the_quantiles_that_the_rest_of_glmlab_uses(samples):
    found = point_spread(point(64, 1, samples), "tpot_ms")
    expected = [quantile(samples, share) for share in (0.5, 0.1, 0.9)]
    assert found == pytest.approx(expected)


@given(SAMPLES, SAMPLES, st.floats(0.1, 10))
def test_over_a_workload_value_and_spread_are_means_with_the_same_weights(one, other, weight):
    workload = Workload(contexts=(64, 256), weights={256: weight})
    found = whole_spread(measurement(point(64, 1, one), point(256, 1, other)), "tpot_ms", workload)
    expected = [
        (quantile(one, share) + weight * quantile(other, share)) / (1 + weight) for share in (0.5, 0.1, 0.9)
    ]
    assert found is not None
    assert found == pytest.approx(expected)
    assert found.value == pytest.approx(
        measurement(point(64, 1, one), point(256, 1, other)).value("tpot_ms", workload)
    )


def test_what_was_not_measured_has_no_value():
    made = measurement(point(64, 1, steps(1)))
    assert point_spread(made.points[0], "device_ms") is None
    assert whole_spread(made, "device_ms", Workload(contexts=(64,))) is None
    assert whole_spread(made, "peak_memory_bytes", Workload(contexts=(64,))) is None


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_has_an_axis_with_unit_and_direction(metric):
    text = axis_title(metric)
    assert f"[{METRICS[metric].unit}]" in text
    assert ("higher" if METRICS[metric].maximize else "lower") + " is better" in text
    assert max(map(len, text.split("<br>"))) <= 44


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (0, "0"),
        (0.00001234, "0.000012"),
        (0.94594, "0.9459"),
        (9.9, "9.9"),
        (123.456, "123.5"),
        (1234567.8, "1,234,568"),
    ],
)
def test_digits_are_never_in_exponent_form(value, written):
    assert digits(value) == written


@pytest.mark.parametrize(("ratio", "written"), [(0.5087, "×0.509"), (1.0, "×1.000"), (12.34, "×12.3")])
def test_ratios(ratio, written):
    assert times(ratio) == written


@pytest.mark.parametrize(
    ("values", "wide"),
    [([1, 8], True), ([1, 7.9], False), ([0, 8], False), ([-1, 8], False), ([None, 3], False), ([], False)],
)
def test_an_axis_is_logarithmic_only_where_that_is_needed_and_possible(values, wide):
    assert is_wide(values) is wide


def test_a_value_without_samples_says_so():
    assert Spread(1.0).words == "one value a visit, no spread"
    assert Spread(1.0, 0.5, 2.0).words == "p10 0.5, p90 2 of its samples"
