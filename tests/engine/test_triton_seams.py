"""Live knobs of the GPU's attention, as far as a CPU carries them: vLLM's own builders, no kernels.

The kernels themselves run in tests/gpu; what is checked here is which numbers reach them.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")

from glmlab.live import forced, triton_attention  # noqa: E402
from glmlab.live.triton_attention import TritonAttention  # noqa: E402
from tests.attention_doubles import (  # noqa: E402
    FREE_BYTES,
    HEAD_SIZE,
    HEADS,
    KV_HEADS,
    Kernel,
    config,
    worker_of,
)

pytestmark = pytest.mark.engine


def test_install_twice_wraps_once() -> None:
    from vllm.v1.attention.ops import triton_unified_attention as ops

    assert triton_attention.install() == ""
    first = ops.kernel_unified_attention
    assert triton_attention.install() == ""
    assert ops.kernel_unified_attention is first


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Facts of a GPU, where there is none."""
    forced.reset({})
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (FREE_BYTES, 80 * 2**30))
    monkeypatch.setattr(triton_attention, "device_limits", lambda _: {"shared_memory_bytes": 101_376})
    yield
    forced.reset({})


def build(vllm_config: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """vLLM's own builder."""
    from vllm.v1.attention.backends import triton_attn

    monkeypatch.setattr(triton_attn, "get_num_attention_heads_from_layers", lambda *_: HEADS)
    monkeypatch.setattr(
        triton_attn.AttentionMetadataBuilder,
        "__init__",
        lambda self, spec, names, config, device: self.__dict__.update(
            vllm_config=config, layer_names=names, device=device, kv_cache_spec=spec
        ),
    )
    return triton_attn.TritonAttentionMetadataBuilder(
        SimpleNamespace(block_size=16), ["l"], vllm_config, torch.device("cpu")
    )


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    from vllm.v1.attention.ops import triton_unified_attention as ops

    assert triton_attention.install() == ""
    watched = Kernel()
    monkeypatch.setattr(ops.kernel_unified_attention, "glmlab_wraps", watched)
    monkeypatch.setattr(ops.kernel_unified_attention, "_seen", {})
    monkeypatch.setattr(ops.reduce_segments, "_seen", {})
    triton_attention.forget()
    return watched


@pytest.fixture
def seam(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> TritonAttention:
    vllm_config = config()
    return TritonAttention(worker_of(vllm_config, "TRITON_ATTN", build(vllm_config, monkeypatch)))


def launch(*, split: int = 0, sequences: int = 1, tokens: int | None = None, **more: Any) -> None:
    """One launch as ``unified_attention`` makes it; ``tokens`` above ``sequences`` is a prefill."""
    from vllm.v1.attention.ops import triton_unified_attention as ops

    tile = ops._get_tile_size(HEAD_SIZE, 0, 1, is_prefill=not split)
    ops.kernel_unified_attention[(1,)](
        query_ptr=torch.empty((tokens or sequences, HEADS, HEAD_SIZE)),
        num_seqs=sequences,
        IS_3D=bool(split),
        NUM_SEGMENTS_PER_SEQ=split or 1,
        TILE_SIZE=tile,
        **more,
    )


def test_the_builder_is_resized_and_goes_back(seam: TritonAttention) -> None:
    builder = seam._builders[0]
    assert seam.probe()["kv_splits"]["default"] == 16
    own = (builder.num_par_softmax_segments, builder.seq_threshold_3D, builder.softmax_segm_output.shape)
    assert own == (16, 64, (64, HEADS, 16, HEAD_SIZE))
    assert seam.set("kv_splits", 64)
    assert builder.softmax_segm_output.shape == (64, HEADS, 64, HEAD_SIZE)
    assert builder.softmax_segm_max.shape == builder.softmax_segm_expsum.shape == (64, HEADS, 64)
    assert seam.values()["kv_splits"] == 64
    seam.set("kv_splits", 16)
    assert (builder.num_par_softmax_segments, builder.seq_threshold_3D) == own[:2]
    assert builder.softmax_segm_output.shape == own[2]


def test_a_minimal_grid_becomes_a_captured_batch_size(seam: TritonAttention) -> None:
    builder = seam._builders[0]
    seam.set("kv_split_min_grid", 20)  # 20 // 2 KV heads = 10 -> captured for 8
    assert builder.seq_threshold_3D == 8
    assert builder.softmax_segm_output.shape[0] == 8
    assert seam.values()["kv_split_min_grid"] == 20
    seam.set("kv_split_min_grid", 128)
    assert builder.seq_threshold_3D == 64


def test_sm120_keeps_its_own_choice_until_asked(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.attention.backends import triton_attn

    if not hasattr(triton_attn.current_platform, "num_compute_units"):
        pytest.skip("this vLLM has no choice of its own on SM120")
    for name, value in (("is_cuda", True), ("is_device_capability", True), ("num_compute_units", 188)):
        monkeypatch.setattr(
            type(triton_attn.current_platform), name, lambda *_, value=value: value, raising=False
        )
    vllm_config = config()
    builder = build(vllm_config, monkeypatch)
    assert builder.max_seqs_64_segments == 187 // (16 * KV_HEADS) == 5
    own_rows = builder.softmax_segm_max.shape[0]
    assert own_rows < builder.seq_threshold_3D
    seam = TritonAttention(worker_of(vllm_config, "TRITON_ATTN", builder))
    assert seam.probe()["kv_splits"]["default"] == 0
    seam.set("kv_splits", 32)
    assert builder.max_seqs_64_segments == 0, "else it would go on to switch between 64 and 16"
    assert builder.softmax_segm_max.shape == (64, HEADS, 32)
    seam.set("kv_splits", 0)
    assert builder.max_seqs_64_segments == 5
    assert builder.softmax_segm_max.shape == (own_rows, HEADS, 64)


def test_a_builder_made_later_starts_with_what_was_asked_for(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    forced.reset({"kv_splits": 128})
    assert build(config(), monkeypatch).softmax_segm_output.shape[2] == 128


def test_launches_get_the_options_and_are_seen(seam: TritonAttention, kernel: Kernel) -> None:
    for name, value in {"attn_decode_tile": 64, "attn_decode_warps": 8, "attn_prefill_stages": 2}.items():
        seam.set(name, value)
    launch(split=16)
    launch(sequences=1, tokens=512)
    decode, prefill = kernel.launches
    assert (decode["TILE_SIZE"], decode["num_warps"]) == (64, 8)
    assert "num_stages" not in decode
    assert (prefill["TILE_SIZE"], prefill["num_stages"]) == (32, 2)
    assert seam.used() == {
        "kv_splits": 16,
        "kv_split_min_grid": 128,
        "attn_decode_tile": 64,
        "attn_decode_warps": 8,
        "attn_decode_stages": 3,
        "attn_prefill_tile": 32,
        "attn_prefill_warps": 4,
        "attn_prefill_stages": 2,
    }


def test_what_was_used_before_a_change_proves_nothing(seam: TritonAttention) -> None:
    launch(split=16)
    seam.set("kv_splits", 64)
    assert "kv_splits" not in seam.used()
    launch(split=16)  # a graph that was not captured again
    assert seam.used()["kv_splits"] == 16 != seam.values()["kv_splits"]


def test_a_batch_that_is_not_split_is_said(seam: TritonAttention) -> None:
    seam.set("kv_split_min_grid", 8)  # 4 sequences
    launch(split=16, sequences=4)
    assert seam.used()["kv_split_min_grid"] == 8
    assert seam.notes([1, 4]) == []
    assert "batch 16" in seam.notes([1, 16])[0]
    launch(sequences=2)  # should have been split
    assert seam.used()["kv_split_min_grid"] == "split or not: {2: False}"


def test_a_change_is_compiled_before_anything_is_touched(seam: TritonAttention, kernel: Kernel) -> None:
    launch(split=16)
    builder = seam._builders[0]
    before = builder.softmax_segm_output
    kernel.shared_bytes = 110_000
    with pytest.raises(ValueError, match=r"attn_decode_tile = 128: .*110,000 bytes.* has 101,376"):
        seam.check({"attn_decode_tile": 128})
    assert {done["TILE_SIZE"] for done in kernel.compiled} == {128}
    kernel.error = RuntimeError("PassManager::run failed")
    with pytest.raises(ValueError, match="does not compile: RuntimeError: PassManager::run failed"):
        seam.check({"attn_decode_stages": 7})
    assert builder.softmax_segm_output is before
    assert seam.values()["attn_decode_tile"] == 32
    assert isinstance(kernel.compiled[-1]["query_ptr"].dtype, torch.dtype)
    assert not isinstance(kernel.compiled[-1]["query_ptr"], torch.Tensor), "would keep its memory"


def test_scratch_beyond_the_free_memory_is_refused(seam: TritonAttention) -> None:
    offered = seam.probe()["kv_splits"]["values"]
    assert all(seam._scratch_bytes(splits=splits) <= FREE_BYTES for splits in offered)
    assert offered == tuple(2**power for power in range(len(offered)))
    with pytest.raises(ValueError, match=r"kv_splits = 8192: .* would take .* GB, this GPU has room for"):
        seam.check({"kv_splits": 8192})


def test_speculative_decoding_is_told_by_version(
    seam: TritonAttention, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.v1.attention.ops import triton_unified_attention as ops

    monkeypatch.setattr(seam._worker.vllm_config, "speculative_config", object())
    monkeypatch.delattr(ops, "MAX_3D_QUERY_LEN", raising=False)
    assert not seam.probe()["kv_splits"]["live"]
    assert "speculative" in seam.probe()["kv_splits"]["why"]
    assert seam.probe()["attn_prefill_tile"]["live"]
    monkeypatch.setattr(ops, "MAX_3D_QUERY_LEN", 8, raising=False)
    assert seam.probe()["kv_splits"]["live"]


def test_another_backend_says_so() -> None:
    seam = TritonAttention(worker_of(config(), "FLASHINFER", object()))
    status = seam.probe()["kv_splits"]
    assert status == {
        "live": False,
        "why": "the model's attention backend is FLASHINFER, not TRITON_ATTN",
    }
    assert seam.values() == seam.used() == {}


def test_a_value_is_compiled_for_every_batch_that_triton_tells_apart(
    seam: TritonAttention, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the captures compile what is left, one after another."""
    from vllm.v1.attention.ops import triton_unified_attention as ops

    merge = Kernel()
    monkeypatch.setattr(ops.reduce_segments, "glmlab_wraps", merge)
    for sequences in (1, 2, 4, 8, 16, 32):
        launch(split=16, sequences=sequences)
        ops.reduce_segments[(1,)](num_seqs=sequences, NUM_SEGMENTS_PER_SEQ=16, TILE_SIZE=32)
    seam.check({"kv_splits": 64, "attn_decode_warps": 8})
    for compiled in (kernel.compiled, merge.compiled):
        assert sorted(done["num_seqs"] for done in compiled) == [1, 2, 16]
        assert {done["NUM_SEGMENTS_PER_SEQ"] for done in compiled} == {64}
    assert {done["num_warps"] for done in kernel.compiled} == {8}
    assert all("num_warps" not in done for done in merge.compiled), "it keeps its own"


# ------------------------------------------------------------------------------- what went wrong once
def test_graphs_for_any_mix_of_requests_never_split(
    seam: TritonAttention, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With cudagraph_mode FULL decode is captured as if it were a prefill."""
    from vllm.config import CUDAGraphMode

    compilation = seam._worker.vllm_config.compilation_config
    monkeypatch.setattr(compilation, "cudagraph_mode", CUDAGraphMode.FULL)
    assert "mode FULL" in seam.probe()["kv_splits"]["why"]
    launch(sequences=2)  # as such a graph has it
    assert "kv_split_min_grid" not in seam.used(), "a knob that is not live proves and disproves nothing"


def test_scratch_that_the_gpu_has_no_room_for_leaves_a_builder_that_can_go_back(
    seam: TritonAttention, monkeypatch: pytest.MonkeyPatch
) -> None:
    builder, own = seam._builders[0], torch.empty

    def no_room(*_: Any, **__: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch, "empty", no_room)
    with pytest.raises(RuntimeError, match="out of memory"):
        seam.set("kv_splits", 512)
    assert seam.values()["kv_splits"] == 512, "it can still be asked"
    monkeypatch.setattr(torch, "empty", own)
    seam.set("kv_splits", 16)
    assert builder.softmax_segm_output.shape == (64, HEADS, 16, HEAD_SIZE)


def test_launches_of_two_values_prove_neither(seam: TritonAttention) -> None:
    launch(split=16)
    launch(split=64)
    assert seam.used()["kv_splits"] == "mixed: [16, 64]"


def test_another_engine_of_the_process_starts_with_nothing_seen(
    seam: TritonAttention, kernel: Kernel
) -> None:

    launch(split=16, HEAD_SIZE=64)
    triton_attention.forget()
    assert seam.used() == {}
    launch(split=16, HEAD_SIZE=128)
    kernel.compiled.clear()
    seam.check({"kv_splits": 64})
    assert [done["HEAD_SIZE"] for done in kernel.compiled] == [128]


def test_decode_that_is_not_split_is_tried_out_with_its_tile(seam: TritonAttention, kernel: Kernel) -> None:
    """It takes the tile of prefill, with the warps and stages of decode."""
    launch(sequences=100)
    kernel.shared_bytes = 200_000
    with pytest.raises(ValueError, match="attn_prefill_tile = 256"):
        seam.check({"attn_prefill_tile": 256})
    assert (kernel.compiled[-1]["TILE_SIZE"], kernel.compiled[-1]["num_stages"]) == (256, 3)


def test_an_engine_that_was_only_started_has_its_captures_as_proof(
    kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Graphs are captured before anyone asks a worker anything."""
    forced.reset({"kv_splits": 64})
    triton_attention.forget()
    vllm_config = config()
    builder = build(vllm_config, monkeypatch)
    launch(split=64)
    seam = TritonAttention(worker_of(vllm_config, "TRITON_ATTN", builder))
    assert seam.used()["kv_splits"] == 64
