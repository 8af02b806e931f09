"""What rules stand on: version ranges, the attention backend that vLLM takes, the format of experts."""

from __future__ import annotations

import json

import pytest

from glmlab.catalog import find_model
from glmlab.footprint.attention import attention_backend
from glmlab.recipe import Recipe
from glmlab.rulebook.expert_weights import expert_weights
from glmlab.version_range import in_range, installed_packages, is_version, range_fault, samples


@pytest.mark.parametrize(
    ("version", "wanted", "inside"),
    [
        ("0.32.0+cpu", ">=0.26,<0.33", True),
        ("0.5.10", "<0.5.10.post1", True),
        ("0.5.10.post1", "<0.5.10.post1", False),
        ("0.5.10.post1", ">=0.5.10,<0.5.12", True),
        ("0.24.0rc1", ">=0.24", False),
        ("0.25.0rc1", ">=0.24", True),
        ("0.6.16.post3", ">=0.6.14", True),
        ("0.10.0", ">=0.9", True),
    ],
)
def test_versions_compare_as_packages_do(version, wanted, inside):
    assert in_range(version, wanted) is inside


def test_what_is_no_version_and_what_is_no_range():
    assert not is_version("latest")
    assert not is_version(32)
    assert is_version("0.5.10.post1")
    assert range_fault(">=0.24,<0.26") is None
    assert "expected a range" in str(range_fault("0.24"))
    assert "found none" in str(range_fault(""))


def test_samples_lie_on_both_sides_of_every_bound():
    found = samples([">=0.24,<0.26", "<0.5.10.post1"])
    for wanted in (">=0.24,<0.26", "<0.24", ">=0.26", "<0.5.10.post1", ">=0.5.10.post1", ">0.24,<0.26"):
        assert any(in_range(version, wanted) for version in found), wanted


def test_installed_packages_are_looked_up_by_distribution():
    assert all(is_version(version) for version in installed_packages().values())
    assert "packaging" not in installed_packages()


@pytest.mark.parametrize(
    ("attention", "major", "fields", "backend"),
    [
        ("gqa", 12, {}, "FLASH_ATTN"),
        ("gqa", 12, {"kv_cache_dtype": "fp8"}, "FLASHINFER"),
        ("gqa", 9, {"kv_cache_dtype": "fp8"}, "FLASH_ATTN"),
        ("gqa", 10, {}, "FLASHINFER"),
        ("mla", 12, {"kv_cache_dtype": "fp8"}, "TRITON_MLA"),
        ("mla", 9, {}, "FLASH_ATTN_MLA"),
        ("mla", 9, {"kv_cache_dtype": "fp8"}, "FLASHMLA"),
        ("mla+dsa", 12, {}, "FLASHINFER_MLA_SPARSE_SM120"),
        ("mla+dsa", 12, {"dense_mla": True}, "TRITON_MLA"),
        ("mla+dsa", 9, {}, None),
        ("gqa", 12, {"attention_backend": "triton_attn"}, "TRITON_ATTN"),
        ("gqa", 12, {"attention_backend": "auto"}, "FLASH_ATTN"),
        ("gqa", 12, {"kv_cache_dtype": "int8_per_token_head"}, None),
        (None, 12, {}, None),
        ("gqa", 12, {"serving_engine": "sglang", "attention_backend": "triton"}, None),
    ],
)
def test_the_backend_is_told_only_where_it_is_known(attention, major, fields, backend):
    recipe = Recipe.parse({"name": "r", "model": "glm-4.7", **fields})
    assert attention_backend(recipe, attention, major) == backend


@pytest.mark.parametrize(
    ("model", "quantization", "kind", "block"),
    [
        ("glm-4.7", None, "bf16", None),
        ("glm-4.7-fp8", None, "fp8", None),
        ("glm-5.1-fp8", None, "fp8", (128, 128)),
        ("glm-5.1-reap-160", None, "nvfp4", None),
        ("glm-4.6-awq", None, "int4", None),
        ("glm-4.7", "fp8_per_block", "fp8", (128, 128)),
        ("glm-4.7", "nvfp4_per_token", "nvfp4", None),
        ("glm-4.7", "something_new", "other", None),
        ("some/GLM-4.7-AWQ", None, "int4", None),
        ("some/GLM-4.7", None, None, None),
    ],
)
def test_the_format_of_the_experts(model, quantization, kind, block):
    recipe = Recipe.parse({"name": "r", "model": model, "quantization": quantization})
    assert expert_weights(recipe, find_model(model)) == (kind, block)


def test_the_blocks_of_a_checkpoint_are_its_own(tmp_path):
    config = {**(find_model("glm-4.7").config or {})}
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [64, 128]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    recipe = Recipe.parse({"name": "r", "model": str(tmp_path)})
    assert expert_weights(recipe, find_model(str(tmp_path))) == ("fp8", (64, 128))
