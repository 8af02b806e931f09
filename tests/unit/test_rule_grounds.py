"""What rules stand on: version ranges, the attention backend that vLLM takes, the format of experts."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from typing import get_args

import pytest

from glmlab.catalog import find_model
from glmlab.errors import RuleError
from glmlab.footprint.attention import attention_backend
from glmlab.recipe import KvDtype, Recipe
from glmlab.rulebook.backends import known_backends
from glmlab.rulebook.expert_weights import expert_weights
from glmlab.rulebook.pins import pinned_by
from glmlab.version_range import in_range, installed_packages, is_version, range_fault, same_version, samples


@pytest.mark.parametrize(
    ("version", "wanted", "inside"),
    [
        ("0.32.0+cpu", ">=0.26,<0.33", True),
        ("0.5.10", "<0.5.10.post1", True),
        ("0.5.10.post1", "<0.5.10.post1", False),
        ("0.5.10.post1", ">=0.5.10,<0.5.12", True),
        ("0.24.0rc1", ">=0.24", False),
        ("0.24.0rc1", "<0.24", True),
        ("0.24.0.dev7+g12ab", "<0.24", True),
        ("0.6.12.post1", "<=0.6.12", False),
        ("0.6.12.post1", ">0.6.12", True),
        ("0.32.0+cpu", "<=0.32.0", True),
        ("0.32.0+cpu", ">0.32.0", False),
        ("0.32.0+cpu", "==0.32.0", True),
        ("0.32.1rc1", "==0.32.*", True),
        ("0.25.0rc1", ">=0.24", True),
        ("0.6.16.post3", ">=0.6.14", True),
        ("0.10.0", ">=0.9", True),
    ],
)
def test_versions_compare_as_packages_do(version, wanted, inside):
    assert in_range(version, wanted) is inside


@pytest.mark.parametrize(
    "version",
    ["0.24.0", "0.24.0rc1", "0.24.0.dev3", "0.24.0.post1", "0.24.0+cpu", "0.24.1", "0.23.9", "1!0.1"],
)
@pytest.mark.parametrize("bound", ["0.24", "0.24.0", "0.24.0rc1", "0.24.0.post1"])
def test_a_bound_divides_all_versions_in_two(version, bound):
    assert in_range(version, f"<{bound}") is not in_range(version, f">={bound}")
    assert in_range(version, f"<={bound}") is not in_range(version, f">{bound}")


def test_builds_are_the_same_version():
    assert same_version("0.32", "0.32.0+cpu")
    assert not same_version("0.32.0rc1", "0.32.0")


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


# ---------------------------------------------------------------------- tables of backends and pins
def test_every_backend_that_the_installed_vllm_knows_is_in_the_table():
    package = importlib.util.find_spec("vllm")
    if package is None or not package.submodule_search_locations:
        pytest.skip("vLLM is not installed")
    root = Path(package.submodule_search_locations[0])
    registry = (root / "v1/attention/backends/registry.py").read_text(encoding="utf-8")
    registry = registry[: registry.index("class MambaAttentionBackendEnum")]
    known = known_backends()
    assert set(re.findall(r"^    ([A-Z0-9_]+) = ", registry, re.MULTILINE)) == set(known.attention)
    kernel = (root / "config/kernel.py").read_text(encoding="utf-8")
    for name, mine in (("MoEBackend", known.moe), ("LinearBackend", known.linear)):
        body = kernel[kernel.index(f"{name} = Literal[") :].partition("]")[0]
        assert set(re.findall(r'"(\w+)"', body)) == mine


def test_the_formats_in_the_table_are_those_of_a_recipe():
    for backend in known_backends().attention.values():
        assert set(backend.kv or ()) <= set(get_args(KvDtype))


@pytest.mark.parametrize(
    ("folder", "text", "said"),
    [
        ("backends", "[]", "expected attention, moe and linear"),
        ("backends", "attention: [A]", "attention = ['A']: expected names and what each is for"),
        ("backends", "attention: {A: {kind: mha}}", "attention.A: expected a kind of gqa, mla"),
        ("backends", "attention: {A: {kind: gqa, capability: 9}}", "attention.A: capability = 9: expected"),
        ("backends", "attention: {A: {kind: gqa, kv: fp8}}", "attention.A: kv = 'fp8': expected a list"),
        ("backends", "moe: triton", "moe = 'triton': expected a list of names"),
        ("pins", "vllm: {'0.1': {flashinfr: 1}}", "vllm.0.1: expected a version and what it pins"),
        ("pins", "vllm: {newest: {flashinfer: 0.6.1}}", "vllm.newest: expected a version and what it pins"),
    ],
)
def test_a_table_of_ones_own_that_cannot_be_is_one_line(tmp_path, monkeypatch, folder, text, said):
    (tmp_path / folder).mkdir()
    path = tmp_path / folder / "own.yaml"
    path.write_text(text, encoding="utf-8")
    monkeypatch.setenv("GLMLAB_DATA", str(tmp_path))
    with pytest.raises(RuleError) as refused:
        known_backends() if folder == "backends" else pinned_by("vllm", "0.1")
    assert str(refused.value).startswith(f"{path}: ")
    assert said in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_table_of_ones_own_is_laid_over_the_packaged(tmp_path, monkeypatch):
    for folder, text in (
        ("backends", "attention: {MINE: {kind: gqa}}\nmoe: [mine]"),
        ("pins", "vllm: {'0.40.0': {flashinfer: 0.7.0}}"),
    ):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "own.yaml").write_text(text, encoding="utf-8")
    monkeypatch.setenv("GLMLAB_DATA", str(tmp_path))
    assert {"MINE", "TRITON_MLA"} <= set(known_backends().attention)
    assert {"mine", "marlin"} <= known_backends().moe
    assert pinned_by("vllm", "0.40.0") == {"flashinfer": "0.7.0"}
    assert pinned_by("vllm", "0.24.0") == {"flashinfer": "0.6.12"}
    assert pinned_by("sglang", "0.24.0") == {}
