from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmlab.errors import InputError
from glmlab.measurement import (
    METRICS,
    Measurement,
    PointMeasurement,
    WorkerMemory,
    find_metric,
    kernel_metric,
    quantile,
)
from glmlab.workload import Workload

SAMPLES = st.lists(st.floats(0, 1e6), min_size=1, max_size=40)


def point(
    context: int = 64, batch: int = 1, *, gaps: tuple[float, ...] = (2.0, 4.0, 3.0), **changes: Any
) -> PointMeasurement:
    fields: dict[str, Any] = {
        "context": context, "batch": batch, "wall_step_ms": [10.0, *gaps], "step_tokens": [batch] * 4,
        "token_gap_ms": list(gaps), "ttft_ms": [10.0] * batch, "cached_tokens": [context] * batch,
        "warmup_ms": 20.0, "warmup_ttft_ms": [12.0] * batch, "warmup_cached_tokens": [0] * batch,
        "elapsed_ms": 20.0, "tokens": [[1, 2, 3, 4]] * batch,
    }  # fmt: skip
    return PointMeasurement(**{**fields, **changes})


def measurement(*points: PointMeasurement, **changes: Any) -> Measurement:
    fields: dict[str, Any] = {
        "evidence": "measured",
        "points": list(points) or [point()],
        "started_unix_s": 0.0,
        "duration_s": 1.0,
    }
    return Measurement(**{**fields, **changes})


# ------------------------------------------------------------------------------ quantiles
@given(SAMPLES, st.floats(0, 1))
def test_a_quantile_is_numpys(samples, share):
    assert quantile(samples, share) == pytest.approx(np.quantile(samples, share), rel=1e-9, abs=1e-9)


@given(SAMPLES, st.floats(0, 1))
def test_a_quantile_lies_within_the_samples_whatever_their_order(samples, share):
    found = quantile(samples, share)
    assert min(samples) - 1e-9 <= found <= max(samples) * (1 + 1e-12) + 1e-9
    assert found == quantile(samples[::-1], share)


# ------------------------------------------------------------------------------ metrics
@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("tpot_ms", 3.0),
        ("tpot_p90_ms", 3.8),
        ("tpot_p99_ms", 3.98),
        ("ttft_ms", 10.0),
        ("tokens_per_s", 200.0),
        ("device_ms", None),
        ("peak_memory_bytes", None),
    ],
)
def test_a_metric_is_read_off_its_samples(metric, value):
    found = measurement().value(metric, Workload(contexts=(64,)))
    assert found == (None if value is None else pytest.approx(value))


def test_device_time_is_the_median_of_its_steps():
    found = measurement(point(device_step_ms=[1.0, 9.0, 2.0])).value("device_ms", Workload())
    assert found == 2.0


def test_one_point_without_device_time_leaves_the_metric_unmeasured():
    mixed = measurement(point(device_step_ms=[1.0]), point(128))
    assert mixed.value("device_ms", Workload()) is None


def test_memory_is_that_of_the_fullest_worker_on_the_device_where_there_is_one():
    on_cpu = measurement(
        memory=[WorkerMemory(rank=r, peak_rss_bytes=size) for r, size in enumerate((5, 9, 7))]
    )
    on_gpu = measurement(memory=[WorkerMemory(rank=0, peak_rss_bytes=90, peak_device_bytes=3)])
    assert on_cpu.value("peak_memory_bytes", Workload()) == 9
    assert on_gpu.value("peak_memory_bytes", Workload()) == 3


@pytest.mark.parametrize(
    ("weights", "expected"), [({}, 5.0), ({64: 3, 256: 1}, 3.5), ({64: 0, 256: 2}, 8.0), ({256: 0}, 2.0)]
)
def test_the_value_of_a_workload_is_the_weighted_mean_over_its_points(weights, expected):
    two = measurement(point(64, gaps=(2.0,)), point(256, gaps=(8.0,)))
    assert two.value("tpot_ms", Workload(contexts=(64, 256), weights=weights)) == pytest.approx(expected)


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_has_its_unit_in_its_name_or_is_a_rate(name):
    metric = find_metric(name)
    assert metric.help
    assert name.endswith(("_ms", "_bytes")) or metric.unit.endswith("/s")
    assert metric.maximize == metric.unit.endswith("/s")


def test_an_unknown_metric_is_answered_with_the_nearest():
    with pytest.raises(InputError, match=r"^tpot: no such metric; did you mean tpot_ms"):
        find_metric("tpot")


def test_a_point_is_found_by_context_and_batch_or_the_others_are_named():
    two = measurement(point(64), point(256, 4))
    assert two.point(256, 4) is two.points[1]
    with pytest.raises(
        InputError, match=r"point \(64, 4\): was not measured; measured: \(64, 1\), \(256, 4\)"
    ):
        two.point(64, 4)


# ------------------------------------------------------------------------------ tokens
@pytest.mark.parametrize(
    ("mine", "theirs", "share"),
    [
        ([[1, 2, 3, 4]], [[1, 2, 3, 4]], 1.0),
        ([[1, 2, 3, 4]], [[1, 2, 9, 9]], 0.5),
        ([[1, 2, 3, 4]], [[1, 2]], 0.5),
        ([[1, 2], [3, 4]], [[1, 2], [9, 4]], 0.75),
        ([[]], [[]], 0.0),
    ],
)
def test_same_tokens_is_the_share_that_agrees(mine, theirs, share):
    one, other = measurement(point(tokens=mine)), measurement(point(tokens=theirs))
    assert one.same_tokens(other) == one.same_tokens(other) == share


def test_same_tokens_compares_common_points_only():
    one = measurement(point(64), point(256, tokens=[[9]]))
    assert one.same_tokens(measurement(point(64))) == 1.0
    assert one.same_tokens(measurement(point(512))) == 0.0


# ------------------------------------------------------------------------------ prefill
@pytest.mark.parametrize(
    ("cached", "expected"),
    [([0, 0], 30.0), ([64, 64], 0.0), ([64, 0], 30.0), ([32, 32], 0.0), ([31, 64], 30.0)],
)
def test_prefill_counts_the_warm_ups_that_had_to_compute_half_a_prompt_or_more(cached, expected):
    made = measurement(point(64, 2, warmup_cached_tokens=cached, warmup_ttft_ms=[12.0, 30.0]))
    assert made.prefill_ms == expected


def test_prefill_is_summed_over_the_points():
    assert measurement(point(64), point(256)).prefill_ms == 24.0


# ------------------------------------------------------------------------------ JSON
@given(gaps=st.lists(st.floats(0, 1e6), min_size=1, max_size=9), context=st.integers(1, 10**6))
def test_a_measurement_survives_json_sample_by_sample(gaps, context):
    made = measurement(point(context, gaps=tuple(gaps)), memory=[WorkerMemory(rank=0, peak_rss_bytes=1)])
    assert Measurement.model_validate_json(made.model_dump_json()) == made


@pytest.mark.parametrize("changes", [{"points": []}, {"evidence": "guessed"}])
def test_a_measurement_without_points_or_with_unknown_evidence_cannot_be(changes):
    with pytest.raises(ValueError, match="validation error"):
        measurement(**changes)


# ------------------------------------------------------------------------------ kernels over several ranks
TOGETHER = {"device_step_ms": [5.0, 4.0, 6.0], "device_family_ms": {"collectives": 2.0, "gemm": 3.0}}
ALONE = {"device_step_ms": [3.0, 3.1, 2.9], "device_family_ms": {"gemm": 3.0}}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({**TOGETHER, "device_compute_ms": [3.0, 3.2, 3.1]}, 3.1),
        (ALONE, 3.0),
        (TOGETHER, None),  # kept before it was known
        ({}, None),
    ],
)
def test_compute_time_is_device_time_without_waiting_for_other_ranks(fields, expected):
    assert measurement(point(**fields)).value("compute_ms", Workload()) == expected


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([{**TOGETHER, "device_compute_ms": [3.0, 3.2, 3.1]}, ALONE], "compute_ms"),
        ([ALONE], "device_ms"),
        ([TOGETHER], "device_ms"),
        ([ALONE, {}], None),
        ([], None),
    ],
)
def test_kernels_are_compared_by_the_time_that_repeats_best(points, expected):
    assert kernel_metric([measurement(point(**fields)) for fields in points]) == expected
