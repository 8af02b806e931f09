"""Every live knob of the GPU on a running engine: applied, proved, gone back, refused."""

from __future__ import annotations

import json
import os
import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest

torch = pytest.importorskip("torch")
if not torch.cuda.is_available():
    pytest.skip("needs an NVIDIA GPU", allow_module_level=True)

from glmlab import Recipe, Workload, find_recipe, start  # noqa: E402
from glmlab.engines import Engine  # noqa: E402
from glmlab.engines.vllm_engine import VllmEngine  # noqa: E402
from glmlab.errors import ApplyError, EngineError, KnobError  # noqa: E402
from glmlab.measurement import Measurement  # noqa: E402

pytestmark = pytest.mark.gpu

Alone = Callable[[], AbstractContextManager[None]]
WORK = Workload(contexts=(512, 3000), batch_sizes=(1, 4), new_tokens=24)
ALIKE = 0.5
COMMON: dict[str, Any] = {
    "block_size": 32,
    "moe_backend": "triton",
    "enforce_eager": False,
    "cudagraph_capture_sizes": (1, 2, 4, 8),
    "max_num_seqs": 8,
}


def recipe(backend: str, **changes: Any) -> Recipe:
    name = "tiny-glm4-moe-lite" if "MLA" in backend else "tiny-glm4-moe"
    # The first is made for a CPU, where MLA has no prefix cache; that KV is kept could not be seen.
    return find_recipe(name).replace(
        **{**COMMON, "prefix_caching": True, "attention_backend": backend, **changes}
    )


def steady_ms(measurement: Measurement, context: int, batch: int) -> float:
    device = measurement.point(context, batch).device_step_ms
    assert device
    return statistics.median(device)


@pytest.fixture(scope="module", params=["kernel", "child"])
def triton(request: pytest.FixtureRequest) -> Iterator[Engine]:
    with start(recipe("TRITON_ATTN"), home=request.param) as engine:
        yield engine


@pytest.fixture(scope="module")
def mla() -> Iterator[Engine]:
    with start(recipe("TRITON_MLA", kv_cache_dtype="fp8"), home="child") as engine:
        yield engine


def default(engine: Engine, *names: str) -> dict[str, Any]:
    status = engine.knobs()
    return {name: status[name].default for name in names}


def changed_and_proved(engine: Engine, former: Measurement, **knobs: Any) -> Measurement:
    report = engine.apply(**knobs)
    state = engine.state()
    measured = engine.measure(WORK)
    used = [worker.used for worker in engine.state().workers]
    print(f"{knobs}  {report.seconds:.2f} s  graphs {report.graphs_captured}  used {used[0]}")
    for name, value in knobs.items():
        assert state.knobs[name] == value
        assert all(worker[name] == value for worker in used)
    assert report.kv_kept
    assert all(min(point.warmup_cached_tokens) > 0 for point in measured.points), "prefilled again"
    # Another kernel rounds otherwise and greedy chains of a random model part at near ties; of 1,024
    # tokens a broken kernel would meet one by chance.
    assert former.same_tokens(measured) > ALIKE, f"tokens changed: {former.same_tokens(measured):.3f}"
    return measured


def test_what_can_be_live(triton: Engine) -> None:
    status = triton.knobs()
    print(json.dumps({name: item.model_dump() for name, item in status.items()}, indent=1))
    assert status["kv_splits"].live
    assert status["kv_splits"].default == 16
    assert 64 in (status["kv_splits"].values or ())
    assert not status["flash_attn_max_splits"].live
    assert status["moe_tiles"].live


def test_kv_splits_change_and_go_back(triton: Engine) -> None:
    first = triton.measure(WORK)
    graphs = triton.state().workers[0].graphs
    assert graphs["FULL"] > 0
    for splits in (64, 8, 128, 1, 64, 16):
        changed_and_proved(triton, first, kv_splits=splits)
        assert triton.state().workers[0].graphs == graphs, "piecewise graphs stay, full ones come back"
    again = triton.measure(WORK)
    assert first.same_tokens(again) == 1.0, "the same kernels must give the same tokens"


def test_splits_of_one_are_slower_where_context_is_long(triton: Engine) -> None:
    work = Workload(contexts=(3900,), batch_sizes=(1,), new_tokens=16)
    triton.apply(kv_splits=1)
    one = triton.measure(work)
    triton.apply(kv_splits=16)
    many = triton.measure(work)
    attention = [m.points[0].device_family_ms["attention"] for m in (one, many)]  # type: ignore[index]
    print("attention ms a step with 1 and 16 splits", attention)
    assert attention[0] > 1.5 * attention[1]


def test_the_batch_up_to_which_kv_is_split(triton: Engine) -> None:
    first = triton.measure(WORK)
    narrow = changed_and_proved(triton, first, kv_split_min_grid=2)
    assert any("no effect at batch 4" in note for note in narrow.notes)
    changed_and_proved(triton, first, **default(triton, "kv_split_min_grid"))


@pytest.mark.parametrize(
    "knobs",
    [
        {"attn_decode_tile": 64},
        {"attn_decode_warps": 2, "attn_decode_stages": 2},
        {"attn_prefill_tile": 64, "attn_prefill_warps": 8},
        {"kv_splits": 32, "attn_decode_tile": 32, "attn_decode_warps": 8, "attn_decode_stages": 4},
    ],
)
def test_attention_tiles(triton: Engine, knobs: dict[str, int]) -> None:
    """Prompts are computed anew each time: KV that another tile left behind would round otherwise."""
    work = WORK.model_copy(update={"cold_prefill": True})
    first = triton.measure(work)
    triton.apply(**knobs)
    measured = triton.measure(work)
    used = triton.state().workers[0].used
    assert {name: used[name] for name in knobs} == knobs
    assert first.same_tokens(measured) > ALIKE
    triton.apply(**default(triton, *knobs))
    assert first.same_tokens(triton.measure(work)) == 1.0


def test_moe_tiles(triton: Engine) -> None:
    first = triton.measure(WORK)
    tile = "16x64x64 g1 w4 s3"
    measured = changed_and_proved(triton, first, moe_tiles=tile)
    moe = [m.point(512, 1).device_family_ms["moe"] for m in (first, measured)]  # type: ignore[index]
    print("moe ms a step", moe)
    triton.apply(moe_tiles="default")
    assert first.same_tokens(triton.measure(WORK)) == 1.0


@pytest.mark.parametrize(
    ("knobs", "kind", "words"),
    [
        ({"kv_splits": 48}, KnobError, "kv_splits = 48: this engine allows 1, 2, 4"),
        ({"kv_splits": 2**20}, KnobError, "kv_splits = 1048576"),
        ({"attn_decode_tile": 512}, KnobError, "attn_decode_tile = 512: this engine allows 16, 32"),
        ({"flash_attn_max_splits": 8}, KnobError, "not FLASH_ATTN"),
        ({"fp8_gemm_tiles": "64x64x64 g1 w4 s3"}, KnobError, "fp8_gemm_tiles"),
        ({"moe_tiles": "256x256x256 g1 w4 s8"}, ApplyError, "shared memory"),
        ({"block_size": 64}, KnobError, "needs a new engine"),
    ],
)
def test_refusals_leave_the_engine_as_it_was(
    triton: Engine, knobs: dict[str, Any], kind: type[EngineError], words: str
) -> None:
    before, first = triton.state().knobs, triton.measure(WORK)
    with pytest.raises(kind, match=words) as refusal:
        triton.apply(**knobs)
    print(refusal.value)
    assert "\n" not in str(refusal.value)
    assert triton.state().knobs == before
    assert first.same_tokens(triton.measure(WORK)) == 1.0


def test_nothing_changes_while_requests_run(triton: Engine) -> None:
    if not isinstance(triton, VllmEngine):
        pytest.skip("a child takes one call at a time, so no request is left running")
    first = triton.measure(WORK)
    triton.submit("running", WORK.prompt(0, 64, triton.vocab_size), 8)
    with pytest.raises(ApplyError, match="requests are running"):
        triton.apply(kv_splits=64)
    triton.abort(["running"])
    assert triton.state().knobs["kv_splits"] == 16
    assert first.same_tokens(triton.measure(WORK)) == 1.0


def test_two_changes_at_once_are_refused(triton: Engine) -> None:
    """Whichever comes second is told so; the first goes through."""
    refused: list[Exception] = []

    def change() -> None:
        try:
            triton.apply(kv_splits=32)
        except EngineError as error:
            refused.append(error)

    threads = [threading.Thread(target=change) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(refused)
    assert len(refused) == 2
    assert all("busy with another call" in str(error) for error in refused)
    assert triton.state().knobs["kv_splits"] == 32
    triton.apply(kv_splits=16)


def test_mla_splits_and_tiles(mla: Engine) -> None:
    first = mla.measure(WORK)
    assert mla.knobs()["kv_splits"].default == 0
    for splits in (8, 7, 64, 192):
        changed_and_proved(mla, first, kv_splits=splits)
    changed_and_proved(mla, first, attn_decode_tile=64, attn_decode_warps=8)
    mla.apply(kv_splits=0, attn_decode_tile=32, attn_decode_warps=4)
    assert first.same_tokens(mla.measure(WORK)) == 1.0
    with pytest.raises(KnobError, match="attn_decode_tile = 16: this engine allows 32, 64, 128"):
        mla.apply(attn_decode_tile=16)
    with pytest.raises(ApplyError, match="shared memory"):
        mla.apply(attn_decode_tile=128, attn_decode_stages=8)
    assert first.same_tokens(mla.measure(WORK)) == 1.0
    assert not mla.knobs()["attn_prefill_tile"].live


def test_piecewise_graphs_outlive_a_workspace_that_grew(mla: Engine) -> None:
    """Mixtures take their buffers from the workspace that more splits make larger."""
    short = Workload(contexts=(5,), batch_sizes=(1,), new_tokens=8, cold_prefill=True)
    first = mla.measure(short)
    report = mla.apply(kv_splits=512)
    print(f"512 splits: {report.seconds:.2f} s, {report.graphs_captured} graphs")
    assert mla.measure(short).same_tokens(first) > ALIKE
    mla.apply(kv_splits=0)
    assert mla.measure(short).same_tokens(first) == 1.0


def test_flash_attention_3_splits() -> None:
    if torch.cuda.get_device_capability() != (9, 0):
        pytest.skip("FlashAttention 3 is for Hopper")
    with start(recipe("FLASH_ATTN"), home="child") as engine:
        first = engine.measure(WORK)
        assert engine.knobs()["flash_attn_max_splits"].default == 32
        assert "not TRITON_ATTN" in engine.knobs()["kv_splits"].why
        for splits in (1, 64, 32):
            changed_and_proved(engine, first, flash_attn_max_splits=splits)


def test_piecewise_graphs_need_no_recapture() -> None:
    with start(recipe("TRITON_ATTN", cudagraph_mode="PIECEWISE"), home="child") as engine:
        first = engine.measure(WORK)
        report = engine.apply(kv_splits=64)
        print(f"piecewise: {report.seconds:.2f} s")
        assert report.graphs_captured == 0
        assert first.same_tokens(engine.measure(WORK)) > ALIKE
        assert engine.state().workers[0].used["kv_splits"] == 64


def test_tiles_of_block_fp8_weights() -> None:
    fp8 = recipe("TRITON_ATTN", quantization="fp8_per_block", linear_backend="triton")
    with start(fp8, home="child") as engine:
        first = engine.measure(WORK)
        assert engine.knobs()["fp8_gemm_tiles"].live
        changed_and_proved(engine, first, fp8_gemm_tiles="64x64x64 g1 w4 s3")
        changed_and_proved(engine, first, moe_tiles="16x64x128 g1 w4 s3")
        with pytest.raises(ApplyError, match="quantization blocks"):
            engine.apply(fp8_gemm_tiles="64x64x256 g1 w4 s3")
        engine.apply(fp8_gemm_tiles="default", moe_tiles="default")
        assert first.same_tokens(engine.measure(WORK)) == 1.0


def test_many_changes_leak_nothing(alone: Alone) -> None:
    changes = int(os.environ.get("GLMLAB_TEST_CHANGES", "200"))
    work = Workload(contexts=(2000,), batch_sizes=(1,), new_tokens=16)
    with start(recipe("TRITON_ATTN"), home="child") as engine:
        first = engine.measure(work)
        for splits in (64, 32, 16):
            engine.apply(kv_splits=splits)
        with alone():
            begin = engine.measure(work)
        for index in range(changes):
            engine.apply(kv_splits=(64, 16, 32)[index % 3])
        engine.apply(kv_splits=16)
        with alone():
            end = engine.measure(work)
        grown = (end.memory[0].device_bytes or 0) - (first.memory[0].device_bytes or 0)
        drift = steady_ms(end, 2000, 1) / steady_ms(begin, 2000, 1)
        print(f"{changes} changes: {grown / 1e6:+.1f} MB, device time x {drift:.4f}")
        assert first.same_tokens(end) == 1.0
        assert grown < 64e6
        assert abs(drift - 1) < 0.03
