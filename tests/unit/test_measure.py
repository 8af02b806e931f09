"""The stepping loop, against a small engine whose clock we hold."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

import pytest

from glmlab import measure as module
from glmlab.errors import MeasureError
from glmlab.measure import DeviceTime, StepOutput, measure
from glmlab.measurement import PointMeasurement, WorkerMemory
from glmlab.workload import Workload


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def advance(self, ms: float) -> None:
        self.now_s += ms / 1e3


class TinyEngine:
    """Serves all requests together: a step costs 1 ms, and 1 ms more for each uncached prompt token.

    `per_step` tokens of each request come with every step after the prefill; with `one_prompt`
    a step prefills one request only, as chunked prefill may.
    """

    vocab_size = 1000
    frozen_objects = 5

    def __init__(
        self,
        clock: Clock,
        *,
        per_step: int = 1,
        device_tokens: int = 0,
        stuck: bool = False,
        one_prompt: bool = False,
        empty_between: bool = False,
        keeps_prompts: bool = True,
    ) -> None:
        self.clock, self.per_step, self.device_tokens = clock, per_step, device_tokens
        self.stuck, self.one_prompt, self.empty_between = stuck, one_prompt, empty_between
        self.keeps_prompts = keeps_prompts
        self.requests: dict[str, Any] = {}
        self.cache: set[tuple[int, ...]] = set()
        self.log: list[str] = []

    def submit(self, request_id: str, prompt: list[int], max_tokens: int) -> None:
        self.log.append("submit")
        request = SimpleNamespace(prompt=tuple(prompt), left=max_tokens, cached=0, begun=False)
        self.requests[request_id] = request

    def has_unfinished(self) -> bool:
        return bool(self.requests)

    def step(self) -> list[StepOutput]:
        self.log.append("step")
        self.clock.advance(1)
        if self.stuck or (self.empty_between and self.log.count("step") % 2):
            return []
        outputs, prefilled = [], False
        for request_id, request in list(self.requests.items()):
            if not request.begun:
                if self.one_prompt and prefilled:
                    continue
                request.begun = prefilled = True
                request.cached = len(request.prompt) if request.prompt in self.cache else 0
                self.clock.advance(len(request.prompt) - request.cached)
                if self.keeps_prompts:
                    self.cache.add(request.prompt)
                count = 1
            else:
                count = min(self.per_step, request.left)
            request.left -= count
            if not request.left:
                del self.requests[request_id]
            outputs.append(StepOutput(request_id, [7] * count, not request.left, request.cached))
        return outputs

    def abort(self, request_ids: Iterable[str]) -> None:
        self.log.append("abort")
        for request_id in request_ids:
            self.requests.pop(request_id, None)

    def reset_prefix_cache(self) -> None:
        self.log.append("reset")
        self.cache.clear()

    def start_device_clock(self) -> None:
        self.log.append("clock on")

    def stop_device_clock(self, step_ends_ns: list[int]) -> DeviceTime:
        self.log.append("clock off")
        assert step_ends_ns == sorted(step_ends_ns)
        self.ends_ms = [end / 1e6 for end in step_ends_ns]
        return DeviceTime([0.5] * (len(step_ends_ns) - 1), family_ms={"attention": 0.3, "other": 0.2})

    def memory(self) -> list[WorkerMemory]:
        return [WorkerMemory(rank=0, peak_rss_bytes=1)]


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    held = SimpleNamespace(
        perf_counter=lambda: clock.now_s, time=lambda: clock.now_s, time_ns=lambda: int(clock.now_s * 1e9)
    )
    monkeypatch.setattr(module, "time", held)
    return clock


def one_point(
    engine: TinyEngine, context: int = 10, batch: int = 1, new_tokens: int = 4, **changes: Any
) -> PointMeasurement:
    workload = Workload(
        contexts=(context,), batch_sizes=(batch,), new_tokens=new_tokens, warmup_tokens=2, **changes
    )
    [point] = measure(engine, workload).points
    return point


def ms(*values: float) -> Any:
    return pytest.approx(list(values))


def test_every_step_and_every_gap_is_kept(clock):
    point = one_point(TinyEngine(clock))
    assert point.wall_step_ms == ms(1, 1, 1, 1)
    assert point.token_gap_ms == ms(1, 1, 1)
    assert point.step_tokens == [1, 1, 1, 1]
    assert point.tokens == [[7, 7, 7, 7]]
    assert point.elapsed_ms == pytest.approx(4)


def test_the_warm_up_pays_the_prefill_and_the_measured_pass_finds_it_cached(clock):
    point = one_point(TinyEngine(clock), context=10)
    assert (point.warmup_ttft_ms, point.warmup_cached_tokens) == (ms(11), [0])
    assert (point.ttft_ms, point.cached_tokens) == (ms(1), [10])
    assert point.warmup_ms == pytest.approx(12 + 2), "and once more, as the measured pass will go"


def test_a_cold_prefill_empties_the_cache_between_the_passes(clock):
    engine = TinyEngine(clock)
    point = one_point(engine, context=10, cold_prefill=True)
    assert engine.log.index("reset") > engine.log.index("step")
    assert engine.log.count("reset") == 1
    assert (point.ttft_ms, point.cached_tokens) == (ms(11), [0])


def test_time_to_first_token_counts_from_the_handing_over_of_the_batch(clock):
    point = one_point(TinyEngine(clock, one_prompt=True), context=10, batch=2, cold_prefill=True)
    assert point.ttft_ms == ms(11, 22)


def test_a_step_that_delivers_several_tokens_counts_as_as_many_shares_of_its_time(clock):
    point = one_point(TinyEngine(clock, per_step=2), new_tokens=5)
    assert point.step_tokens == [1, 2, 2]
    assert point.token_gap_ms == ms(0.5, 0.5, 0.5, 0.5)


def test_each_request_of_a_batch_has_its_own_gaps(clock):
    point = one_point(TinyEngine(clock), batch=3)
    assert len(point.token_gap_ms) == 3 * 3
    assert point.step_tokens == [3, 3, 3, 3]
    assert len(point.ttft_ms) == 3


def test_all_points_are_measured_in_order_in_one_visit(clock):
    workload = Workload(contexts=(20, 10), batch_sizes=(1, 2), new_tokens=2)
    found = measure(TinyEngine(clock), workload, evidence="simulated")
    assert [(p.context, p.batch) for p in found.points] == list(workload.points)
    assert found.evidence == "simulated"
    assert found.memory[0].peak_rss_bytes == 1


# ------------------------------------------------------------------------------ what goes wrong
def test_an_engine_that_never_delivers_is_given_up_and_its_requests_aborted(clock):
    engine = TinyEngine(clock, stuck=True)
    with pytest.raises(MeasureError, match="1000 steps without a token at context 10, batch 1"):
        one_point(engine)
    assert engine.log.count("abort") == 1
    assert not engine.has_unfinished()


@pytest.mark.parametrize("error", [RuntimeError("CUDA error"), KeyboardInterrupt()])
def test_whatever_ends_a_pass_its_requests_are_aborted_and_the_collector_is_back(clock, monkeypatch, error):
    engine = TinyEngine(clock)
    steps = iter([1, 2])
    real = engine.step

    def step():
        if next(steps, None) is None:
            monkeypatch.setattr(engine, "step", real)
            raise error
        return real()

    monkeypatch.setattr(engine, "step", step)
    with pytest.raises(type(error)):
        one_point(engine, new_tokens=8)
    assert not engine.has_unfinished()
    assert gc.isenabled()


def test_an_engine_that_is_busy_is_refused_and_left_alone(clock):
    engine = TinyEngine(clock)
    engine.submit("somebody else's", [3, 4], 5)
    with pytest.raises(MeasureError, match="still has requests"):
        one_point(engine)
    assert list(engine.requests) == ["somebody else's"]


def test_the_garbage_collector_sleeps_while_steps_are_timed(clock, monkeypatch):
    seen = []
    engine = TinyEngine(clock)
    real = engine.step

    def step():
        seen.append(gc.isenabled())
        return real()

    monkeypatch.setattr(engine, "step", step)
    noise = measure(engine, Workload(contexts=(4,), new_tokens=2)).noise
    assert noise is not None
    assert set(seen) == {False}
    assert gc.isenabled()
    assert (noise.collector_paused, noise.frozen_objects) == (True, 5)


def test_a_kept_prompt_is_gone_through_once_more_before_it_is_measured_but_once_only(clock):
    engine = TinyEngine(clock)
    work = Workload(contexts=(10,), batch_sizes=(1,), new_tokens=4, warmup_tokens=2)
    passes = []
    for _ in range(2):
        engine.log.clear()
        measure(engine, work)
        passes.append(engine.log.count("submit"))
    assert passes == [3, 2]


@pytest.mark.parametrize("changes", [{"cold_prefill": True}, {}])
def test_prompts_that_are_not_kept_are_not_computed_a_third_time(clock, changes):
    engine = TinyEngine(clock, keeps_prompts=bool(changes))
    one_point(engine, **changes)
    assert engine.log.count("submit") == 2


# ------------------------------------------------------------------------------ device
def test_without_a_device_no_device_time_is_claimed(clock):
    assert one_point(TinyEngine(clock)).device_step_ms is None


def test_device_steps_follow_the_measured_ones_and_do_not_count_among_them(clock):
    engine = TinyEngine(clock, device_tokens=6)
    point = one_point(engine, new_tokens=4)
    assert point.device_step_ms == [0.5] * 4
    assert point.device_family_ms == {"attention": 0.3, "other": 0.2}
    assert len(point.wall_step_ms) == 4
    assert point.elapsed_ms == pytest.approx(4)
    assert engine.log.count("clock on") == engine.log.count("clock off") == 1
    assert not engine.has_unfinished()


def test_a_step_that_delivers_nothing_is_a_part_of_the_next_on_the_device(clock):
    """A pipeline of two returns from every other step empty-handed."""
    engine = TinyEngine(clock, device_tokens=6, empty_between=True)
    point = one_point(engine, new_tokens=4)
    assert len(point.device_step_ms or []) == 4
    assert [b - a for a, b in itertools.pairwise(engine.ends_ms)] == pytest.approx([2] * 4)


def test_a_device_clock_is_stopped_where_nothing_comes_any_more(clock, monkeypatch):
    engine = TinyEngine(clock, device_tokens=6)
    own = engine.start_device_clock

    def stick() -> None:
        own()
        engine.stuck = True

    monkeypatch.setattr(engine, "start_device_clock", stick)
    monkeypatch.setattr(engine, "stop_device_clock", lambda _: DeviceTime([]))
    assert one_point(engine).device_step_ms == []
    assert not engine.has_unfinished()


def test_the_device_clock_runs_in_the_measured_pass_only(clock):
    engine = TinyEngine(clock, device_tokens=3)
    one_point(engine)
    warm_up = engine.log[: engine.log.index("submit", engine.log.index("step"))]
    assert "clock on" not in warm_up


def test_tokens_are_as_many_as_asked_for_however_the_prompts_were_staggered(clock):
    """Else the same greedy output would differ in length between prefill chunk sizes."""
    together = one_point(TinyEngine(clock, device_tokens=8), batch=3)
    staggered = one_point(TinyEngine(clock, device_tokens=8, one_prompt=True), batch=3)
    assert staggered.tokens == together.tokens == [[7] * 4] * 3


def test_the_rank_that_others_wait_for_is_the_one_that_counts():
    """The early rank shows the longer step: it spins in the all-reduce until the late one comes."""
    early = DeviceTime([5.0, 6.0], collectives_ms=[3.0, 4.0], family_ms={"collectives": 3.5, "gemm": 2.0})
    late = DeviceTime([4.0, 4.5], collectives_ms=[0.5, 0.5], family_ms={"collectives": 0.5, "gemm": 3.7})
    assert DeviceTime.of_slowest([early, late]) is late
    assert late.compute_ms == [3.5, 4.0]


def test_without_collectives_device_time_is_all_there_is():
    quick, slow = DeviceTime([1.0], collectives_ms=[0.0]), DeviceTime([2.0])
    assert DeviceTime.of_slowest([quick, slow]) is slow
    assert quick.compute_ms is slow.compute_ms is None
