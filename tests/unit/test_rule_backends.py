"""What rules make of names: backends as vLLM reads them, KV formats, the generation of a model."""

from __future__ import annotations

import pytest

from glmlab.gpus import find_gpu
from glmlab.recipe import Recipe
from glmlab.rulebook.facts import _generation
from glmlab.rules import check

PRO = find_gpu("rtx-pro-6000")


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    monkeypatch.delenv("GLMLAB_DATA", raising=False)
    monkeypatch.setattr("glmlab.rules.installed_packages", dict)


def ids(*args) -> set[str]:
    return {each.id for each in check(*args)}


def test_backends_are_read_as_vllm_reads_them():
    recipe = Recipe.parse({"name": "r", "model": "glm-4.7", "kv_splits": 48})
    assert "kv-splits-power-of-two" in ids(recipe.replace(attention_backend="triton_attn"), PRO)
    open_ = ids(recipe.replace(attention_backend="auto", moe_backend="auto"), PRO)
    assert open_ == ids(recipe, PRO)
    assert "moe-backend-needs-tcgen05" in ids(recipe.replace(moe_backend="FlashInfer-TRTLLM"), PRO)
    assert "attention-backend-unknown" not in ids(recipe.replace(attention_backend="CUSTOM"), PRO)
    mla = recipe.replace(model="glm-4.7-flash", attention_backend="FLASH_ATTN_MLA")
    assert "attention-backend-not-for-this-gpu" in ids(mla, PRO)
    assert "attention-backend-not-for-this-gpu" not in ids(mla, find_gpu("h100"))
    b12x = recipe.replace(attention_backend="b12x", versions={"vllm": "0.32.0"})
    assert "attention-backend-not-for-this-gpu" in ids(b12x, find_gpu("h100"))
    assert not check(b12x, PRO).blocked


@pytest.mark.parametrize(
    ("model", "dense", "backend", "rule"),
    [
        ("glm-5.1", False, "TRITON_MLA", "dense-backend-for-sparse-attention"),
        ("glm-5.1", False, "FLASHINFER", "attention-backend-of-another-kind"),
        ("glm-5.1", True, "FLASHINFER_MLA_SPARSE_SM120", "attention-backend-of-another-kind"),
        ("glm-4.7-flash", False, "TRITON_ATTN", "attention-backend-of-another-kind"),
        ("glm-4.7", False, "ROCM_ATTN", "attention-backend-of-another-kind"),
        ("glm-5.1", True, "TRITON_MLA", None),
        ("glm-4.7", False, "TRITON_ATTN", None),
    ],
)
def test_one_rule_speaks_of_a_backend_for_other_attention(model, dense, backend, rule):
    recipe = Recipe.parse({"name": "r", "model": model, "dense_mla": dense, "attention_backend": backend})
    found = ids(recipe, PRO) & {"dense-backend-for-sparse-attention", "attention-backend-of-another-kind"}
    assert found == ({rule} if rule else set())


@pytest.mark.parametrize(
    ("fields", "gpu", "instead"),
    [
        ({"model": "glm-4.7-flash", "kv_cache_dtype": "fp8_e5m2"}, "rtx-pro-6000", "fp8"),
        ({"model": "glm-4.7-flash", "kv_cache_dtype": "nvfp4"}, "rtx-pro-6000", "fp8"),
        ({"model": "glm-4.7-flash", "kv_cache_dtype": "fp8_ds_mla"}, "h100", "fp8"),
        (
            {"model": "glm-4.7-flash", "attention_backend": "FLASH_ATTN_MLA", "kv_cache_dtype": "fp8"},
            "h100",
            "auto",
        ),
        ({"model": "glm-4.7", "kv_cache_dtype": "fp8_ds_mla"}, "rtx-pro-6000", "fp8"),
        ({"model": "glm-4.7", "attention_backend": "triton_attn", "kv_cache_dtype": "nvfp4"}, "h100", "fp8"),
        (
            {"model": "glm-4.7", "attention_backend": "FLASH_ATTN", "kv_cache_dtype": "fp8_e5m2"},
            "h100",
            "fp8",
        ),
        ({"model": "glm-4.7", "kv_cache_dtype": "fp8_e5m2"}, "h100", None),  # FLASHINFER and TRITON_ATTN do
        (
            {"model": "glm-4.7", "attention_backend": "TRITON_ATTN", "kv_cache_dtype": "fp8_e5m2"},
            "h100",
            None,
        ),
        ({"model": "glm-4.7-flash", "kv_cache_dtype": "bfloat16"}, "rtx-pro-6000", None),
    ],
)
def test_a_kv_format_that_no_backend_takes_is_told(fields, gpu, instead):
    found = check(Recipe.parse({"name": "r", **fields}), find_gpu(gpu))
    changes = [each.change for each in found if each.id == "kv-format-not-of-backend"]
    assert changes == ([] if instead is None else [{"kv_cache_dtype": instead}])


@pytest.mark.parametrize(
    "path",
    [
        "zai-org/GLM-4.7",
        "/hub/models--zai-org--GLM-4.7/snapshots/0123abcd",
        "/glm-5/models/GLM-4.7/checkpoint/",
    ],
)
def test_the_generation_is_read_from_the_right(path):
    found = _generation(path)
    assert found is not None
    assert found[1] == "4.7"
    assert _generation("/glmlab/models/mine") is None
