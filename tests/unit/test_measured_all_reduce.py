"""Predictions made with all-reduces that an engine measured, in place of the packaged tables."""

from __future__ import annotations

from typing import Any

import pytest

from glmlab.all_reduce_time import AllReduceTime, all_reduce_plan
from glmlab.decode.constants import CASES, constants
from glmlab.decode.measured_all_reduce import MeasuredAllReduce
from glmlab.decode.prediction import Prediction
from glmlab.errors import InputError
from glmlab.predictor import predict
from glmlab.recipe import Recipe

SIZES = (1024, 4096, 16_384, 65_536, 262_144, 1_048_576)
PLAN: dict[str, Any] = {
    "name": "it", "model": "glm-4.7-nvfp4", "kv_cache_dtype": "fp8", "attention_backend": "TRITON_ATTN",
    "tensor_parallel": 4,
}  # fmt: skip


def time(size: int, device_us: float | None, **fields: Any) -> AllReduceTime:
    given = {"path": "vllm", "ranks": 4, "right": True, "wall_us": 90.0, **fields}
    return AllReduceTime(bytes=size, device_us=device_us, **given)


def times(device_us: float | None, **fields: Any) -> list[AllReduceTime]:
    return [time(size, device_us, **fields) for size in SIZES]


def of(all_reduce: list[AllReduceTime] | None, batch: int = 1, **fields: Any) -> Prediction:
    recipe = Recipe(**{**PLAN, **fields})
    return predict(recipe, "rtx-pro-6000", contexts=(256,), batch_sizes=(batch,), all_reduce=all_reduce)


def collectives(found: Prediction) -> tuple[float, ...]:
    return tuple(found.points[0].terms["collectives"])


def notes_on_all_reduces(found: Prediction) -> list[str]:
    return [note for note in found.notes if note.startswith("all-reduces")]


def test_what_was_measured_takes_the_place_of_the_tables():
    """Latency alone: twice the time of each is twice the term, range and all."""
    once, twice = collectives(of(times(50.0))), collectives(of(times(100.0)))
    assert twice == pytest.approx([2 * end for end in once])
    assert once[1] > collectives(of(None))[1]
    [note] = notes_on_all_reduces(of(times(50.0)))
    assert note == (
        "all-reduces of 4 ranks as they were measured, by device time, up to 1.05 MB; larger"
        " ones from the packaged tables"
    )


def test_the_range_is_that_of_calls_in_a_graph():
    share = constants().probed_all_reduce_share
    low, value, high = collectives(of(times(50.0)))
    assert (low / value, high / value) == pytest.approx((share.best, share.worst))
    assert low < value < high


def test_sizes_between_lie_on_a_line_and_larger_messages_bound_smaller_ones():
    found = MeasuredAllReduce.of([time(1024, 30.0), time(4096, 10.0), time(8192, 20.0)])
    assert found.microseconds(4, 512) == found.microseconds(4, 1024) == 10.0
    assert found.microseconds(4, 6144) == pytest.approx(15.0)
    assert found.microseconds(4, 10**9) == 20.0


@pytest.mark.parametrize("case", CASES)
def test_larger_messages_are_the_tables_but_never_faster_than_the_largest_measured(case):
    slow, quick = (of([time(1024, us), time(2048, us)]).setup for us in (10_000.0, 0.001))
    plain = of(None).setup
    for size in (4096, 10**6, 10**7):
        assert quick.all_reduce_ms(4, size, case) == pytest.approx(plain.all_reduce_ms(4, size, case))
        assert slow.all_reduce_ms(4, size, case) == slow.all_reduce_ms(4, 2048, case)
    steps = [slow.all_reduce_ms(4, size, case) for size in (0, 1024, 2048, 2049, 10**6, 10**9)]
    assert steps == sorted(steps)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ([], "none was measured"),
        (times(50.0, ranks=2), "none was measured"),
        (times(50.0, path="nccl"), "none was measured"),
        (times(None), "wall time alone was measured, which has launches in it that a CUDA graph saves"),
        (times(50.0, right=False), "their sums were wrong"),
        ([time(1024, 50.0)], "a single size was measured"),
    ],
)
def test_what_cannot_be_used_is_said_and_leaves_the_tables(given, why):
    found = of(given)
    assert notes_on_all_reduces(found) == [f"all-reduces of 4 ranks from the packaged tables: {why}"]
    assert collectives(found) == collectives(of(None))


def test_nobody_who_measured_nothing_is_told_of_it():
    assert notes_on_all_reduces(of(None)) == []
    assert notes_on_all_reduces(of(times(50.0), tensor_parallel=1)) == []


def test_ranks_beyond_a_layer_go_by_nccl_whatever_a_layer_measured():
    """Two replicas of two ranks: the tokens go to the experts of all four, which is another group."""
    fields = {"tensor_parallel": 2, "data_parallel": 2}
    plain, measured = of(None, **fields).setup, of(times(10_000.0), **fields).setup
    assert measured.all_reduce_ms(4, 8192, "value") == plain.all_reduce_ms(4, 8192, "value")


def test_two_plans_are_not_one_table():
    with pytest.raises(InputError, match="all_reduce: 4 ranks at 1,024 bytes is there twice; give the times"):
        of([*times(50.0), *times(40.0)])


def test_a_study_keeps_them_under_the_plan_that_decides_between_paths():
    assert all_reduce_plan(Recipe(**PLAN)) == "tensor_parallel=4"
    told = Recipe(**PLAN, custom_all_reduce=False)
    assert all_reduce_plan(told) == "tensor_parallel=4, custom_all_reduce=false"
