"""Live knobs of TRITON_MLA, as far as a CPU carries them: vLLM's own functions, no kernels."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")

from glmlab.live import forced, triton_mla  # noqa: E402
from glmlab.live.triton_mla import TritonMla  # noqa: E402
from tests.attention_doubles import FREE_BYTES, Kernel, config, worker_of  # noqa: E402

pytestmark = pytest.mark.engine


@pytest.fixture(autouse=True)
def gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Facts of a GPU, where there is none."""
    forced.reset({})
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (FREE_BYTES, 80 * 2**30))
    monkeypatch.setattr(triton_mla, "device_limits", lambda _: {"shared_memory_bytes": 101_376})
    yield
    forced.reset({})


@pytest.fixture
def mla(monkeypatch: pytest.MonkeyPatch) -> TritonMla:
    from vllm.platforms import current_platform
    from vllm.v1.attention.backends.mla import triton_mla as vllms
    from vllm.v1.attention.ops import triton_decode_attention as ops

    assert triton_mla.install() == ""
    monkeypatch.setattr(ops._fwd_grouped_kernel_stage1, "glmlab_wraps", Kernel())
    monkeypatch.setattr(ops._fwd_grouped_kernel_stage1, "_seen", {})
    monkeypatch.setattr(type(current_platform), "num_compute_units", lambda *_: 132, raising=False)
    # vLLM's stand-in for a Triton without a GPU lacks it.
    powers = SimpleNamespace(next_power_of_2=lambda n: 1 << (n - 1).bit_length())
    monkeypatch.setattr(vllms, "triton", powers)
    reserved: list[int] = []
    builder = SimpleNamespace(
        num_heads=16,
        reorder_batch_threshold=1,
        mla_dims=SimpleNamespace(kv_lora_rank=512),
        reserved=reserved,
        _reserve_attn_logits_workspace=lambda: reserved.append(splits_of(150_016)),
    )
    return TritonMla(worker_of(config(), "TRITON_MLA", builder))


def splits_of(length: int) -> int:
    from vllm.v1.attention.backends.mla import triton_mla as vllms

    return int(vllms._compute_num_kv_splits(length, 132))


def test_mla_splits_are_any_count_and_reserve_their_scratch(mla: TritonMla) -> None:
    own = splits_of(150_016)
    assert own == 264, "2 x 132 SMs, the bound of long sequences"
    for splits in (7, 64, 192):
        assert mla.set("kv_splits", splits)
        assert splits_of(150_016) == splits_of(100) == splits
        assert mla._builders[0].reserved[-1] == splits
        assert mla.values()["kv_splits"] == splits
    mla.set("kv_splits", 0)
    assert splits_of(150_016) == own
    assert splits_of(600) == 1


def test_mla_launches_are_altered_and_seen(mla: TritonMla) -> None:
    from vllm.v1.attention.ops import triton_decode_attention as ops

    mla.set("kv_splits", 64)
    mla.set("attn_decode_tile", 64)
    ops._fwd_grouped_kernel_stage1[(1,)](BLOCK_N=32, NUM_KV_SPLITS=64, num_warps=4, num_stages=2)
    had = ops._fwd_grouped_kernel_stage1.glmlab_wraps.launches[-1]
    assert (had["BLOCK_N"], had["num_warps"], had["num_stages"]) == (64, 4, 2)
    assert mla.used() == {
        "kv_splits": 64,
        "attn_decode_tile": 64,
        "attn_decode_warps": 4,
        "attn_decode_stages": 2,
    }


def test_mla_leaves_room_on_the_gpu(mla: TritonMla) -> None:
    per_split = 16 * 16 * 513 * 4  # rows x heads x (latent + 1) x float32
    assert mla._bytes_per_split() == per_split
    high = mla.probe()["kv_splits"]["high"]
    assert high * per_split <= FREE_BYTES + 264 * per_split
    assert "264" in mla.probe()["kv_splits"]["why"]


def test_both_kernels_are_compiled_with_the_strides_of_the_new_count(
    mla: TritonMla, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton compiles for strides that are multiples of 16 apart: 264 x 513 is none, 64 x 513 is."""
    from vllm.v1.attention.ops import triton_decode_attention as ops

    first, second = ops._fwd_grouped_kernel_stage1, ops._fwd_kernel_stage2
    monkeypatch.setattr(second, "glmlab_wraps", Kernel())
    monkeypatch.setattr(second, "_seen", {})
    strides = {"stride_mid_ob": 16 * 264 * 513, "stride_mid_oh": 264 * 513, "stride_mid_os": 513}
    first[(1,)](BLOCK_N=32, NUM_KV_SPLITS=264, num_warps=4, num_stages=2, **strides)
    second[(1,)](NUM_KV_SPLITS=264, num_warps=4, num_stages=2, **strides)
    mla.check({"kv_splits": 64, "attn_decode_warps": 8})
    wanted = {
        "NUM_KV_SPLITS": 64,
        "stride_mid_ob": 16 * 64 * 513,
        "stride_mid_oh": 64 * 513,
        "stride_mid_os": 513,
    }
    for kernel, warps in ((first, 8), (second, 4)):
        (done,) = kernel.glmlab_wraps.compiled
        assert {name: done[name] for name in wanted} == wanted
        assert done["num_warps"] == warps


@pytest.mark.parametrize(("kv", "tiles"), [("fp8", (32, 64, 128)), ("auto", (16, 32, 64, 128))])
def test_tiles_that_no_kernel_compiles_for_are_not_offered(
    mla: TritonMla, kv: str, tiles: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Triton 3.6 refuses a product over fewer than 32 FP8 numbers."""
    monkeypatch.setattr(mla._worker.cache_config, "cache_dtype", kv)
    assert mla.probe()["attn_decode_tile"]["values"] == tiles
