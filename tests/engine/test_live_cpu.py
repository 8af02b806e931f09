"""Live knobs really change the running CPU engine, are proved, and can be taken back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from glmlab import Workload
from glmlab.engines.vllm_engine import VllmEngine
from glmlab.errors import ApplyError, EngineError, EngineStartError, KnobError, MeasureError
from glmlab.live import cpu_attention
from glmlab.recipe import Recipe

DEFAULTS = {
    "cpu_split_kv": True,
    "max_num_seqs": 8,
    "max_num_batched_tokens": 2048,
    "long_prefill_token_threshold": 0,
}


@pytest.fixture(scope="module")
def running(recipe: Recipe) -> Iterator[VllmEngine]:
    with VllmEngine(recipe, ceilings={"max_num_seqs": 16}) as engine:
        yield engine


@pytest.fixture
def engine(running: VllmEngine) -> Iterator[VllmEngine]:
    """The module's engine, with its defaults restored afterwards."""
    isa = running.state().knobs["cpu_attn_isa"]
    yield running
    running.apply(**DEFAULTS, cpu_attn_isa=isa)


def metadata_of_a_step(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The kernels' work lists of one long request, as vLLM's own operator gives them."""
    from vllm import _custom_ops as ops

    seen = []
    inner = ops.cpu_attn_get_scheduler_metadata.glmlab_wraps

    def recording(*args: Any, **kwargs: Any) -> Any:
        seen.append((dict(kwargs), inner(*args, **kwargs)))
        return seen[-1][1]

    with monkeypatch.context() as patch:
        # Below glmlab's wrapper: what arrives here is what the kernels get.
        closure = ops.cpu_attn_get_scheduler_metadata.__closure__
        cell = next(cell for cell in closure if cell.cell_contents is inner)
        patch.setattr(cell, "cell_contents", recording)
        engine.measure(Workload(contexts=(1500,), batch_sizes=(1,), new_tokens=3))
    return seen


def test_what_is_live_is_said_with_its_values(engine: VllmEngine) -> None:
    knobs = engine.knobs()
    assert {name for name, status in knobs.items() if status.live} == {*DEFAULTS, "cpu_attn_isa"}
    assert knobs["kv_splits"].why == (
        "the model's attention backend is CPU_ATTN, not TRITON_ATTN;"
        " the model's attention backend is CPU_ATTN, not TRITON_MLA"
    )
    assert "CPU" in knobs["moe_tiles"].why
    assert knobs["cpu_split_kv"].values == (True, False)
    assert (knobs["max_num_seqs"].low, knobs["max_num_seqs"].high) == (1, 16)
    assert knobs["max_num_batched_tokens"].high == 2048


def test_split_kv_changes_what_the_kernels_are_given(
    engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = {}
    for value in (True, False):
        report = engine.apply(cpu_split_kv=value)
        assert report.kv_kept
        steps = metadata_of_a_step(engine, monkeypatch)
        assert {kwargs["enable_kv_split"] for kwargs, _ in steps} == {value}
        work[value] = steps[-1][1]
        assert engine.state().workers[0].used["cpu_split_kv"] is value
    assert work[True].tolist() != work[False].tolist()


def test_every_kernel_variant_gives_the_same_tokens_from_kept_kv_and_from_new(
    engine: VllmEngine, workload: Workload
) -> None:
    before = engine.measure(workload)
    variants = engine.knobs()["cpu_attn_isa"].values
    assert variants is not None
    for isa in variants:
        engine.apply(cpu_attn_isa=isa)
        kept = engine.measure(workload)
        assert engine.state().workers[0].used["cpu_attn_isa"] == isa
        engine.reset_prefix_cache()
        anew = engine.measure(workload)
        # Kernels round differently, and random weights leave near ties; garbage would be near 0.
        assert kept.same_tokens(anew) > 0.9
        assert before.same_tokens(kept) > 0.9


def test_prefilled_kv_survives_live_changes(engine: VllmEngine, workload: Workload) -> None:
    engine.measure(workload)
    for knobs in ({"cpu_split_kv": False}, {"max_num_seqs": 4}, {"max_num_batched_tokens": 512}):
        assert engine.apply(**knobs).kv_kept
        again = engine.measure(workload)
        for point in again.points:
            assert min(point.warmup_cached_tokens) >= point.context - 32 > 0
        assert again.prefill_ms == 0


def test_max_num_seqs_bounds_the_sequences_of_a_step(engine: VllmEngine, workload: Workload) -> None:
    for limit in (8, 3, 1):
        engine.apply(max_num_seqs=limit)
        point = engine.measure(workload).point(64, 4)
        assert max(point.step_tokens) == min(limit, 4)


def steps_to_first_token(engine: VllmEngine, context: int, batch: int) -> int:
    workload = Workload(
        contexts=(context,), batch_sizes=(batch,), new_tokens=2, warmup_tokens=1, cold_prefill=True
    )
    tokens = engine.measure(workload).points[0].step_tokens
    return next(i for i, count in enumerate(tokens) if count) + 1


def test_max_num_batched_tokens_cuts_prompts_into_chunks(engine: VllmEngine) -> None:
    assert steps_to_first_token(engine, 700, 1) == 1
    engine.apply(max_num_batched_tokens=100)
    assert steps_to_first_token(engine, 700, 1) == 7


def test_long_prefill_threshold_cuts_prompts_that_share_a_step(engine: VllmEngine) -> None:
    assert steps_to_first_token(engine, 600, 2) == 1
    engine.apply(long_prefill_token_threshold=100)
    assert steps_to_first_token(engine, 600, 2) == 6


@pytest.mark.parametrize(
    ("knobs", "says"),
    [
        ({"block_size": 64}, "block_size: needs a new engine"),
        ({"nonsense": 1}, "nonsense: no such knob"),
        ({"cpu_split_kv": 1}, "cpu_split_kv = 1: this engine allows True, False"),
        ({"cpu_attn_isa": "neon"}, "cpu_attn_isa = 'neon': this engine allows vec"),
        ({"max_num_seqs": 17}, "max_num_seqs = 17: this engine allows 1 to 16"),
        ({"max_num_seqs": 0}, "max_num_seqs = 0: this engine allows 1 to 16"),
        ({"max_num_seqs": 2.0}, "max_num_seqs = 2.0"),
        ({"max_num_batched_tokens": 4}, "must not be below max_num_seqs = 8"),
        ({"cpu_split_kv": False, "max_num_seqs": 99}, "max_num_seqs = 99"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_and_changes_nothing(
    engine: VllmEngine, knobs: dict[str, Any], says: str
) -> None:
    before = engine.state().knobs
    with pytest.raises(KnobError) as refusal:
        engine.apply(**knobs)
    assert says in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert engine.state().knobs == before


def test_a_rank_that_reports_another_state_fails_the_change_and_restores(
    engine: VllmEngine, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = engine.measure(workload)
    inner = cpu_attention.CpuAttention.set

    def deaf(self: cpu_attention.CpuAttention, name: str, value: Any) -> bool:
        return inner(self, name, True) if name == "cpu_split_kv" else inner(self, name, value)

    with monkeypatch.context() as patch:
        patch.setattr(cpu_attention.CpuAttention, "set", deaf)
        with pytest.raises(ApplyError, match="asked for False, rank 0 has True"):
            engine.apply(max_num_seqs=2, cpu_split_kv=False)
    assert engine.state().knobs["max_num_seqs"] == 8
    assert engine.state().knobs["cpu_split_kv"] is True
    assert engine.measure(workload).same_tokens(before) > 0.98


def test_a_crash_in_a_worker_during_a_change_restores(
    engine: VllmEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = cpu_attention.CpuAttention.set

    def crashing(self: cpu_attention.CpuAttention, name: str, value: Any) -> bool:
        if value is False:
            raise ZeroDivisionError("planted")
        return inner(self, name, value)

    monkeypatch.setattr(cpu_attention.CpuAttention, "set", crashing)
    with pytest.raises(ApplyError, match=r"planted.*former values restored"):
        engine.apply(max_num_seqs=3, cpu_split_kv=False)
    assert engine.state().knobs["max_num_seqs"] == 8


def test_a_knob_that_did_not_reach_the_kernels_fails_the_measurement(
    engine: VllmEngine, workload: Workload, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_attention.CpuAttention, "used", lambda _self: {"cpu_split_kv": False})
    with pytest.raises(MeasureError, match="cpu_split_kv: set to True on rank 0, but"):
        engine.measure(workload)


def test_nothing_changes_while_requests_run(engine: VllmEngine, workload: Workload) -> None:
    engine.submit("mine", [5] * 40, 20)
    engine.step()
    with pytest.raises(ApplyError, match="requests are running"):
        engine.apply(cpu_split_kv=False)
    with pytest.raises(MeasureError, match="still has requests"):
        engine.measure(workload)
    tokens = []
    while engine.has_unfinished():
        tokens += [token for output in engine.step() for token in output.new_tokens]
    assert len(tokens) == 19
    assert engine.state().knobs["cpu_split_kv"] is True


def test_two_calls_at_once_are_refused(engine: VllmEngine) -> None:
    with engine._exclusively("measure"), pytest.raises(EngineError, match="busy with another call"):
        engine.apply(cpu_split_kv=False)


def test_a_workload_that_cannot_fit_is_refused_with_the_numbers(engine: VllmEngine) -> None:
    with pytest.raises(MeasureError, match=r"needs 5032 tokens, the engine's max_model_len is 4096"):
        engine.measure(Workload(contexts=(5000,)))


def test_a_second_engine_in_this_process_is_refused(engine: VllmEngine, recipe: Recipe) -> None:
    with pytest.raises(EngineStartError, match="already runs in this process"):
        VllmEngine(recipe)
    assert engine.state().kv_tokens > 0


def test_measuring_keeps_every_sample_and_says_how_quiet_the_host_was(
    engine: VllmEngine, workload: Workload
) -> None:
    found = engine.measure(workload)
    assert found.evidence == "measured"
    for point in found.points:
        assert len(point.token_gap_ms) == point.batch * (workload.new_tokens - 1)
        assert len(point.ttft_ms) == point.batch
        assert sum(point.step_tokens) == point.batch * workload.new_tokens
        assert len(point.wall_step_ms) == len(point.step_tokens)
        assert sum(point.wall_step_ms) <= point.elapsed_ms
        assert point.device_step_ms is None
    assert found.noise is not None
    assert found.noise.frozen_objects > 100_000
    assert found.memory[0].peak_rss_bytes > 100e6


def test_a_changed_engine_steps_as_fast_as_it_did(engine: VllmEngine) -> None:
    """Fifty changes leave nothing behind: same tokens, and no drift of the step time."""
    workload = Workload(contexts=(128,), batch_sizes=(2,), new_tokens=48)
    first = engine.measure(workload)
    for index in range(50):
        engine.apply(cpu_split_kv=bool(index % 2), max_num_seqs=1 + index % 8)
    engine.apply(**DEFAULTS)
    later = [engine.measure(workload) for _ in range(3)]
    assert all(first.same_tokens(each) == 1 for each in later)
    # The quickest steps: what else runs on this machine slows most of them, a slower path slows all.
    quickest_ms = [min(each.points[0].token_gap_ms) for each in (first, *later)]
    assert min(quickest_ms[1:]) < 2 * quickest_ms[0]
