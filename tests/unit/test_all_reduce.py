"""What all-reduces cost several ranks, told as one."""

from __future__ import annotations

import pytest

from glmlab.all_reduce_time import AllReduceTime, slowest


def time(path: str, wall_us: float, *, device_us: float | None = None, right: bool = True) -> AllReduceTime:
    return AllReduceTime(path=path, bytes=1024, ranks=2, right=right, wall_us=wall_us, device_us=device_us)


def test_the_slowest_rank_counts_on_the_device_where_there_is_one() -> None:
    quick, slow = time("nccl", 9.0, device_us=4.0), time("nccl", 8.0, device_us=6.0)
    assert slowest([[quick], [slow]]) == [slow]
    assert slowest([[time("vllm", 9.0)], [time("vllm", 8.0)]]) == [time("vllm", 9.0)]


def test_one_wrong_sum_is_one_too_many() -> None:
    (found,) = slowest([[time("custom", 5.0)], [time("custom", 4.0, right=False)]])
    assert (found.wall_us, found.right) == (5.0, False)


def test_each_path_and_size_by_itself() -> None:
    ranks = [[time("vllm", 1.0), time("nccl", 3.0)], [time("vllm", 2.0), time("nccl", 2.0)]]
    assert [(each.path, each.wall_us) for each in slowest(ranks)] == [("vllm", 2.0), ("nccl", 3.0)]
    assert slowest([[], []]) == []


def test_ranks_that_answer_differently_are_no_answer() -> None:
    with pytest.raises(ValueError, match="shorter"):
        slowest([[time("vllm", 1.0)], []])
