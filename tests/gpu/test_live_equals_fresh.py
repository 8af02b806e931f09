"""An engine that was changed live to a value is the engine that was started with it.

Two processes that were started alike differ by themselves, by 1 % or more of a step of 0.3 ms. So two
engines are started with each value: how far they are apart is known, and a live engine must be within 1 %
of what lies between them. Each of them is changed away and back afterwards: within one process, what was
captured at the start and what is captured by a change must be within 1 %, too.

All engines stay, only one works at a time, and live and fresh take turns: what the GPU's clocks or the
host do meanwhile happens to all. Those that were started with a value are children, also for the home
``kernel``, since a process holds one engine. The one in this process starts first, so that all others find
its kernels in the compile cache: of engines that filled the cache at the same time, two gave other tokens.
"""

from __future__ import annotations

import gc
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from typing import Literal, NamedTuple

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from glmlab import Recipe, Workload, start  # noqa: E402
from glmlab.engines import Engine  # noqa: E402
from glmlab.measurement import Measurement  # noqa: E402

pytestmark = pytest.mark.gpu

VALUES = (1, 8, 32, 64, 128)
EACH = 2  # engines that are started with each value
ROUNDS = 3
ALIKE = 0.01
TWIN = Recipe(
    name="twin",
    model="glm-4.7@tp8-l2",
    weights="random",
    kv_cache_dtype="fp8",
    attention_backend="TRITON_ATTN",
    moe_backend="triton",
    max_model_len=16_640,
    max_num_batched_tokens=2048,
    max_num_seqs=4,
    cudagraph_capture_sizes=(1, 2, 4),
    kv_cache_bytes=200_000_000,
)
WORK = Workload(contexts=(16_384,), batch_sizes=(1,), new_tokens=48)

Home = Literal["kernel", "child"]
Alone = Callable[[], AbstractContextManager[None]]


class Engines(NamedTuple):
    """Started with each value, by it; those to be changed, by home."""

    fresh: dict[int, list[Engine]]
    live: dict[Home, Engine]


@pytest.fixture(scope="module")
def engines() -> Iterator[Engines]:
    with start(TWIN, home="kernel") as kernel, ThreadPoolExecutor() as pool:
        starting: dict[int, list[Future[Engine]]] = {
            value: [pool.submit(start, TWIN.replace(kv_splits=value), home="child") for _ in range(EACH)]
            for value in VALUES
        }
        child = pool.submit(start, TWIN, home="child")
        try:
            fresh = {value: [future.result() for future in each] for value, each in starting.items()}
            yield Engines(fresh, {"kernel": kernel, "child": child.result()})
        finally:
            for future in (child, *(future for each in starting.values() for future in each)):
                if future.exception() is None:
                    future.result().close()


def device_ms(measurement: Measurement) -> float:
    samples = measurement.points[0].device_step_ms
    assert samples
    return statistics.median(samples)


def beyond(value: float, others: list[float]) -> float:
    """How far a value lies outside of others, as a share; 0 between them."""
    return max(min(others) / value - 1, value / max(others) - 1, 0.0)


@pytest.mark.parametrize("home", ["kernel", "child"])
def test_live_equals_fresh(home: Home, engines: Engines, alone: Alone) -> None:
    with alone():
        compare(engines.live[home], engines.fresh, home)


def compare(live: Engine, fresh: dict[int, list[Engine]], home: Home) -> None:
    live.measure(WORK)
    frozen = gc.get_freeze_count()
    for value, same in fresh.items():
        for engine in same:
            assert engine.state().knobs["kv_splits"] == value
            engine.measure(WORK)
    found: dict[int, list[Measurement]] = {value: [] for value in VALUES}
    theirs: dict[int, list[list[Measurement]]] = {value: [[] for _ in range(EACH)] for value in VALUES}
    for _ in range(ROUNDS):
        for value in VALUES:
            live.apply(kv_splits=value)
            found[value].append(live.measure(WORK))
            for other, visits in zip(fresh[value], theirs[value], strict=True):
                visits.append(other.measure(WORK))
                assert found[value][-1].same_tokens(visits[-1]) == 1.0
            for engine in (live, *fresh[value]):
                assert engine.state().workers[0].used["kv_splits"] == value
    failures = []
    walls = []
    for value in VALUES:
        ours = statistics.median(map(device_ms, found[value]))
        each = [statistics.median(map(device_ms, visits)) for visits in theirs[value]]
        walls += [
            live_visit.points[0].tpot_ms / visit.points[0].tpot_ms
            for visits in theirs[value]
            for live_visit, visit in zip(found[value], visits, strict=True)
        ]
        print(
            f"{home}, {value:4} splits: device live {ours:.4f}, fresh {', '.join(f'{ms:.4f}' for ms in each)}"
            f" ms: {ours / statistics.mean(each) - 1:+.2%} of their mean, they are"
            f" {max(each) / min(each) - 1:.2%} apart"
        )
        if beyond(ours, each) >= ALIKE:
            failures.append(value)
    print(f"{home}: wall live / fresh {statistics.median(walls):.3f}, the middle of {len(walls)} pairs")
    assert not failures
    # Of one pair it moves by a quarter either way; a host path that a change left slower moves the middle.
    assert statistics.median(walls) < 1.1
    if home == "kernel":
        now = gc.get_freeze_count()
        print(f"frozen objects {frozen} at the start, {now} after {ROUNDS * len(VALUES)} changes")
        assert now > 0.9 * frozen


def test_what_a_change_captures_is_what_the_start_captured(engines: Engines, alone: Alone) -> None:
    """The last test: these engines are not fresh afterwards."""
    with alone():
        failures = []
        for value, same in engines.fresh.items():
            for engine in same:
                before = [engine.measure(WORK) for _ in range(ROUNDS)]
                after = []
                for _ in range(ROUNDS):
                    engine.apply(kv_splits=16)
                    engine.measure(WORK)
                    engine.apply(kv_splits=value)
                    after.append(engine.measure(WORK))
                assert min(visit.same_tokens(before[0]) for visit in after) == 1.0
                was, now = (statistics.median(map(device_ms, visits)) for visits in (before, after))
                print(
                    f"{value:4} splits: at first {was:.4f}, away and back {now:.4f} ms ({now / was - 1:+.2%})"
                )
                if abs(now / was - 1) >= ALIKE:
                    failures.append(value)
        assert not failures
