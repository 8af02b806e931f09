"""Scratch of split-KV decode, against hand-made sums."""

from __future__ import annotations

from typing import Any

import pytest

from glmlab.catalog import find_model
from glmlab.footprint.engine_choices import engine_choices
from glmlab.footprint.split_kv import mla_splits, split_kv_scratch
from glmlab.gpus import find_gpu
from glmlab.recipe import Recipe


def scratch(gpu: str, **fields: Any) -> tuple[float, bool, str]:
    recipe = Recipe(name="test", **fields)
    model, kind = find_model(recipe.model), find_gpu(gpu)
    return split_kv_scratch(recipe, model.shape, kind, engine_choices(recipe, model, kind, "bf16"))


def test_triton_attn_of_glm_4_7_at_tp4() -> None:
    """64 rows, 24 heads, 64 segments of 128 floats: the 50 MB of the reference, and two floats more each."""
    size, shared, _ = scratch(
        "rtx-pro-6000",
        model="glm-4.7",
        tensor_parallel=4,
        attention_backend="TRITON_ATTN",
        cudagraph_capture_sizes=(1, 64),
        max_num_seqs=64,
    )
    assert size == 64 * 24 * 64 * 130 * 4
    assert not shared


def test_triton_attn_takes_the_captured_size_next_to_its_threshold() -> None:
    fields: dict[str, Any] = {
        "model": "glm-4.7",
        "tensor_parallel": 4,
        "attention_backend": "TRITON_ATTN",
        "kv_splits": 16,
    }
    few, _, _ = scratch("h100", cudagraph_capture_sizes=(1, 4, 16), **fields)
    assert few == 16 * 24 * 16 * 130 * 4
    eager, _, _ = scratch("h100", enforce_eager=True, **fields)
    assert eager == 64 * 24 * 16 * 130 * 4  # 128 // 2 KV heads


def test_triton_mla_reserves_for_the_longest_sequence() -> None:
    fields: dict[str, Any] = {"model": "glm-4.7-flash", "attention_backend": "TRITON_MLA", "max_num_seqs": 8}
    size, shared, _ = scratch("rtx-pro-6000", max_model_len=131072, **fields)
    assert size == 8 * 20 * 256 * 513 * 4
    assert shared
    wanted, _, _ = scratch("rtx-pro-6000", kv_splits=64, **fields)
    assert wanted == 8 * 20 * 64 * 513 * 4


@pytest.mark.parametrize(
    ("longest", "sms", "splits"),
    [
        (150_064, 132, 264),
        (131_072, 188, 256),
        (200_000, 188, 376),
        (512, 188, 1),
        (100, 188, 1),
        (1025, 188, 2),
    ],
)
def test_splits_follow_vllms_rule(longest: int, sms: int, splits: int) -> None:
    """The recorded engine said 264 of itself."""
    assert mla_splits(longest, sms) == splits


def test_sglang_keeps_what_kv_splits_says() -> None:
    fields: dict[str, Any] = {
        "model": "glm-5.1",
        "serving_engine": "sglang",
        "attention_backend": "triton",
        "dense_mla": True,
        "tensor_parallel": 4,
        "max_num_seqs": 1,
    }
    assert scratch("rtx-pro-6000", kv_splits=64, **fields)[0] == 16 * 64 * 513 * 4
    assert scratch("rtx-pro-6000", **fields)[0] == 16 * 8 * 513 * 4


def test_other_backends_have_none() -> None:
    size, _, how = scratch("rtx-pro-6000", model="glm-5.1", tensor_parallel=4, kv_cache_dtype="fp8")
    assert size == 0
    assert "FLASHINFER_MLA_SPARSE_SM120" in how
