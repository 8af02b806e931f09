"""KV bytes of a token on one rank: reference 1.1 in every dtype and plan."""

from __future__ import annotations

import pytest

from glmlab.catalog import Model, find_model
from glmlab.ranks.weights import rank_kv_bytes_per_token
from glmlab.recipe import Recipe


def kv(model: str, tp: int = 4, kv_dtype: str = "fp8", **fields: object) -> int:
    given = {"name": "plan", "model": model, "tensor_parallel": tp, "kv_cache_dtype": kv_dtype, **fields}
    return rank_kv_bytes_per_token(Recipe.parse(given))


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("glm-4.7", 47_104),
        ("glm-4.5-air", 23_552),
        ("glm-4.7-flash", 27_072),
        ("glm-5.1", 51_168 + 10_296),
        ("glm-5.2", 51_168 + 2_772),
        ("glm-5.1-reap-160", 51_168 + 10_296),
    ],
)
def test_fp8_over_four_ranks_equals_the_published_table(model, expected):
    assert kv(model) == expected


def test_dense_mla_has_neither_packing_nor_indexer():
    assert kv("glm-5.1", dense_mla=True) == 44_928
    assert kv("glm-5.1", kv_dtype="bfloat16", dense_mla=True) == 2 * 44_928


def test_a_measured_pool():
    """vLLM 0.25.1, GLM-5.2-REAP-504B: 8.25 GiB for 164,160 tokens; source in the model's facts."""
    assert 8.25 * 2**30 / kv("glm-5.2-reap-504b") == pytest.approx(164_160, rel=1e-3)


def test_a_measured_pool_of_gqa():
    """vLLM 0.15.1, GLM-4.7-NVFP4: 31.99 GiB for 729,248 tokens; source in the model's facts."""
    assert 31.99 * 2**30 / kv("glm-4.7-nvfp4") == pytest.approx(729_248, rel=1e-3)


def test_mla_is_whole_on_every_rank_and_gqa_is_divided():
    assert kv("glm-5.1", tp=1) == kv("glm-5.1", tp=8)
    assert kv("glm-4.7", tp=1) == 8 * kv("glm-4.7", tp=8) == 8 * kv("glm-4.7", tp=16)


def test_dtypes():
    assert kv("glm-4.7", kv_dtype="bfloat16") == kv("glm-4.7", kv_dtype="auto") == 2 * 47_104
    assert kv("glm-4.7", kv_dtype="nvfp4") == 47_104 * 9 // 16
    assert kv("glm-4.7", kv_dtype="int8_per_token_head") == 47_104 + 92 * 2 * 2 * 4
    assert kv("glm-4.7", kv_dtype="auto", dtype="float32") == 4 * 47_104
    assert kv("glm-5.1", kv_dtype="nvfp4") == 78 * (352 + 132)
    assert kv("glm-5.1", kv_dtype="auto") == 78 * (1152 + 132)


def test_a_backend_that_packs_by_itself():
    assert kv("glm-5.1", kv_dtype="auto", attention_backend="FLASHINFER_MLA_SPARSE_SM120") == 61_464


def test_a_chosen_backend_that_packs_by_itself_however_it_is_spelled():
    plan = Recipe(name="plan", model="glm-5.1", tensor_parallel=4)
    assert rank_kv_bytes_per_token(plan) == 78 * (1152 + 132)
    for backend in ("FLASHINFER_MLA_SPARSE_SM120", "flashinfer_mla_sparse_sm120"):
        assert rank_kv_bytes_per_token(plan, attention_backend=backend) == 61_464
        assert rank_kv_bytes_per_token(plan.replace(attention_backend=backend)) == 61_464


def test_auto_is_what_the_checkpoint_asks_for():
    quantized = {
        "quant_method": "modelopt",
        "quant_algo": "NVFP4",
        "kv_cache_quant_algo": "FP8",
        "ignore": [],
    }
    model = Model(name="m", config=(find_model("glm-4.7").config or {}) | {"quantization_config": quantized})
    plan = Recipe(name="plan", model="x/m", tensor_parallel=4)
    assert rank_kv_bytes_per_token(plan, model) == 47_104
    assert rank_kv_bytes_per_token(plan.replace(kv_cache_dtype="bfloat16"), model) == 2 * 47_104


def test_decode_context_parallel_divides():
    assert kv("glm-5.2", decode_context_parallel=4) == (51_168 + 2_772) // 4


def test_stages_divide_and_drafting_adds_a_layer():
    assert kv("glm-4.7", pipeline_parallel=2) == 47_104 // 2
    assert kv("glm-4.7", mtp_tokens=1) == 47_104 * 93 // 92
    assert kv("glm-5.2", mtp_tokens=1) == 79 * 656 + 22 * 132
    assert kv("glm-5.2", pipeline_parallel=2) == 39 * 656 + 12 * 132  # the first stage has more indexers
