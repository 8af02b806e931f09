"""Ranks on two GPUs: live knobs through all of them, with either all-reduce, and a clean end."""

from __future__ import annotations

import itertools
import os
import signal
import statistics
import time
from collections.abc import Iterator
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if torch.cuda.device_count() < 2:
    pytest.skip("needs two NVIDIA GPUs", allow_module_level=True)

from glmlab import Recipe, Workload, find_recipe, start  # noqa: E402
from glmlab.engines import Engine  # noqa: E402
from glmlab.errors import EngineDiedError  # noqa: E402
from glmlab.hardware import machine  # noqa: E402
from tests.processes import wait_until_gone  # noqa: E402

pytestmark = pytest.mark.gpu

WORK = Workload(contexts=(512, 3000), batch_sizes=(1, 4), new_tokens=24)
SEEN_S = 3.0  # what a change to a value that was there before may take
GROWTH_BYTES = 64 * 2**20  # of one rank, over all changes
CHANGES = 60
PLAN_CHANGES = 20


def recipe(**changes: Any) -> Recipe:
    common: dict[str, Any] = {
        "block_size": 32,
        "moe_backend": "triton",
        "enforce_eager": False,
        "cudagraph_capture_sizes": (1, 2, 4),
        "max_num_seqs": 4,
        "prefix_caching": True,
        "attention_backend": "TRITON_ATTN",
    }
    return find_recipe("tiny-glm4-moe").replace(**common, **changes)


PLANS: dict[str, dict[str, Any]] = {
    "custom all-reduce": {"tensor_parallel": 2},
    "NCCL": {"tensor_parallel": 2, "custom_all_reduce": False},
    "experts apart": {"tensor_parallel": 2, "expert_parallel": True},
    "pipeline": {"pipeline_parallel": 2},
}


@pytest.fixture(scope="module", params=PLANS)
def engine(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with start(recipe(**PLANS[request.param]), home="child") as started:
        yield started


def changed(engine: Engine, splits: int) -> float:
    """Seconds of a change that every rank proves, by its state and by what its launches had."""
    report = engine.apply(kv_splits=splits)
    assert report.kv_kept
    measured = engine.measure(WORK)
    workers = engine.state().workers
    assert [worker.rank for worker in workers] == [0, 1]
    assert all(worker.values["kv_splits"] == worker.used["kv_splits"] == splits for worker in workers)
    assert all(min(point.warmup_cached_tokens) > 0 for point in measured.points), "prefilled again"
    return report.seconds


def test_live_splits_on_both_ranks(engine: Engine) -> None:
    status = engine.knobs()["kv_splits"]
    assert status.live, status.why
    assert status.default is not None
    first = engine.measure(WORK)
    new_s = [changed(engine, splits) for splits in (64, 8, 128)]
    engine.apply(kv_splits=status.default)
    before = engine.measure(WORK)
    seen_s = [engine.apply(kv_splits=(64, 8, 128)[index % 3]).seconds for index in range(CHANGES)]
    engine.apply(kv_splits=status.default)
    after = engine.measure(WORK)
    grown = [
        (now.device_bytes or 0) - (then.device_bytes or 0)
        for now, then in zip(after.memory, before.memory, strict=True)
    ]
    print(
        f"new {[round(s, 2) for s in new_s]} s; seen median {statistics.median(seen_s):.2f} s,"
        f" most {max(seen_s):.2f} s; {CHANGES} changes grew ranks by {[round(b / 1e6, 1) for b in grown]} MB"
    )
    assert first.same_tokens(before) == first.same_tokens(after) == 1.0
    assert statistics.median(seen_s) < SEEN_S
    assert max(grown) <= GROWTH_BYTES


def test_what_an_all_reduce_takes(engine: Engine, request: pytest.FixtureRequest) -> None:
    plan = PLANS[request.node.callspec.params["engine"]]
    times = engine.all_reduce_times()  # type: ignore[attr-defined]
    for found in times:
        print(found.model_dump())
    if "pipeline_parallel" in plan:
        assert times == []
        return
    paths = {found.path for found in times}
    # Where vLLM does not find NCCL's library it has torch call it, and there is no path of that name.
    assert paths - {"nccl"} == ({"vllm"} if "custom_all_reduce" in plan else {"vllm", "custom"})
    assert all(found.right and found.ranks == 2 for found in times)
    assert all(found.device_us is not None and 0 < found.device_us < 1000 for found in times)
    # The graphs of the engine are as good as before: the probe registers buffers of its own.
    first = engine.measure(WORK)
    engine.apply(kv_splits=64)
    engine.apply(kv_splits=engine.knobs()["kv_splits"].default)
    assert first.same_tokens(engine.measure(WORK)) == 1.0


def used_bytes() -> list[int]:
    return [gpu.memory_used_bytes or 0 for gpu in machine().gpus]


def measure_until_it_fails(engine: Engine) -> None:
    for _ in range(100):
        engine.measure(WORK)


def test_a_rank_that_dies_leaves_nothing_on_either_gpu() -> None:
    before = used_bytes()
    engine = start(recipe(tensor_parallel=2), home="child")
    try:
        assert all(now > then + 2**30 for now, then in zip(used_bytes(), before, strict=True))
        pids = engine.pids
        os.kill(engine.state().workers[1].pid, signal.SIGKILL)
        begin = time.monotonic()
        with pytest.raises(EngineDiedError) as death:
            measure_until_it_fails(engine)
        print(f"{death.value}: told after {time.monotonic() - begin:.1f} s")
    finally:
        engine.close()
    assert not wait_until_gone(pids)
    assert max(now - then for now, then in zip(used_bytes(), before, strict=True)) < 2**26


@pytest.mark.timeout(1200)
def test_twenty_plan_changes_leave_nothing() -> None:
    """As a study goes through plans: each engine is closed before the next one starts."""
    before = used_bytes()
    short = Workload(contexts=(512,), batch_sizes=(1,), new_tokens=4)
    for number, (plan, changes) in enumerate(itertools.islice(itertools.cycle(PLANS.items()), PLAN_CHANGES)):
        eager = recipe(**changes).replace(enforce_eager=True, cudagraph_capture_sizes=None)
        with start(eager, home="child") as engine:
            engine.measure(short)
            pids = engine.pids
        left = [now - then for now, then in zip(used_bytes(), before, strict=True)]
        print(f"{number} {plan}: {engine.started.seconds:.1f} s, left {[round(b / 1e6) for b in left]} MB")
        assert not wait_until_gone(pids)
        assert max(left) < 2**26
