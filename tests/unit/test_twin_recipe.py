"""The recipe of a rank twin: what it takes over, what it changes, and that it says so."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from glmlab import find_recipe
from glmlab.catalog import find_model
from glmlab.errors import RecipeError
from glmlab.models.rank_twin import CARRIES_OVER, DOES_NOT
from glmlab.ranks.twin import ONLINE_QUANTIZATION
from glmlab.recipe import Recipe
from glmlab.yaml_text import parse_yaml


@pytest.fixture(autouse=True)
def no_own_data(monkeypatch):
    monkeypatch.delenv("GLMLAB_DATA", raising=False)


def deployment(**fields: Any) -> Recipe:
    return Recipe.parse({"name": "big", "model": "glm-4.7", "tensor_parallel": 4} | fields)


def changes(twin: Recipe) -> list[str]:
    """Fields that the notes call changed, in their order."""
    return re.findall(r"^Changed: (\w+)", twin.notes, re.MULTILINE)


def test_a_twin_runs_on_one_gpu_with_random_weights():
    recipe = deployment(notes="mine", block_size=32, max_num_seqs=4, kv_splits=32, moe_backend="triton")
    twin = recipe.rank_twin(4, layers=4)
    assert (twin.name, twin.model, twin.weights) == ("big-tp4-l4", "glm-4.7@tp4-l4", "random")
    assert (twin.tensor_parallel, twin.pipeline_parallel, twin.expert_parallel) == (1, 1, False)
    assert set(recipe.diff(twin)) == {"name", "notes", "model", "weights", "tensor_parallel"}
    assert changes(twin) == []


def test_all_layers_unless_fewer_are_asked_for():
    assert deployment().rank_twin(4).model == "glm-4.7@tp4-l92"
    assert find_recipe("tiny-glm4-moe").rank_twin(tp=2, layers=3).model == "tiny/glm4-moe@tp2-l3"


def test_the_notes_say_what_a_result_is_worth():
    notes = deployment(notes="mine").rank_twin(4, 4).notes.splitlines()
    assert notes[0] == "mine"
    assert notes[1].startswith("Rank twin: what one of 4 tensor-parallel ranks of glm-4.7 computes, in 4 of")
    said = "\n".join(notes)
    assert all(f"Carries over: {item}." in said for item in CARRIES_OVER)
    assert all(f"Does not carry over: {item}." in said for item in DOES_NOT)
    assert "kv_splits" in "".join(CARRIES_OVER)
    for word in ("collectives", "memory pressure", "layer count", "MTP", "DSA indexer"):
        assert word in "".join(DOES_NOT)


def test_a_twin_survives_yaml_with_readable_notes():
    twin = find_recipe("tiny-glm4-moe").rank_twin(2)
    text = twin.to_yaml()
    assert Recipe.parse(parse_yaml(text, "x", RecipeError)) == twin
    assert "\n  Carries over: " in text
    assert "# 256 MiB." in text


@pytest.mark.parametrize("method", sorted(ONLINE_QUANTIZATION))
def test_what_vllm_quantizes_while_loading_stays(method):
    recipe = deployment(quantization=method, moe_backend="flashinfer_cutlass", fp8_gemm_tiles="default")
    twin = recipe.rank_twin(4, 4)
    assert (twin.quantization, twin.moe_backend) == (method, "flashinfer_cutlass")
    assert twin.fp8_gemm_tiles == "default"
    assert changes(twin) == []


@pytest.mark.parametrize("method", ["modelopt_fp4", "compressed-tensors", "auto_awq"])
def test_a_checkpoints_quantization_goes_and_takes_its_kernels_along(method):
    twin = deployment(
        quantization=method,
        moe_backend="flashinfer_b12x",
        linear_backend="marlin",
        fp8_gemm_tiles="default",
        engine_args={"quantization_config": {}, "max_logprobs": 3},
    ).rank_twin(4, 4)
    assert (twin.quantization, twin.moe_backend, twin.linear_backend, twin.fp8_gemm_tiles) == (None,) * 4
    assert twin.engine_args == {"max_logprobs": 3}
    assert f"{method} is read from a checkpoint" in twin.notes
    assert "do not carry over to it" in twin.notes
    assert changes(twin) == ["quantization", "moe_backend", "linear_backend", "fp8_gemm_tiles", "engine_args"]


def test_a_quantized_checkpoint_of_which_the_recipe_says_nothing(tmp_path):
    config = find_model("glm-4.7").config
    assert config is not None
    own = config | {"quantization_config": {"quant_method": "fp8"}}
    (tmp_path / "config.json").write_text(json.dumps(own), encoding="utf-8")
    plain = deployment(model=str(tmp_path), moe_backend="triton").rank_twin(4, 4)
    assert "fp8 is read from a checkpoint" in plain.notes
    assert (plain.quantization, plain.moe_backend) == (None, "triton")
    online = deployment(model=str(tmp_path), quantization="fp8").rank_twin(4, 4)
    assert online.quantization == "fp8"
    assert "while loading, where the checkpoint brings its own (fp8)" in online.notes


def test_sparse_attention_becomes_dense():
    fields = {"attention_backend": "FLASHINFER_MLA_SPARSE_SM120", "kv_cache_dtype": "fp8_ds_mla"}
    twin = deployment(model="glm-5.1", **fields).rank_twin(4, 4)
    assert (twin.attention_backend, twin.kv_cache_dtype) == (None, "fp8")
    assert "FLASHINFER_MLA_SPARSE_SM120 is sparse" in twin.notes
    kept = deployment(model="glm-5.1", attention_backend="TRITON_MLA").rank_twin(4, 4)
    assert kept.attention_backend == "TRITON_MLA"


def test_fewer_layers_hold_as_many_tokens():
    twin = deployment(kv_cache_bytes=92_000_001).rank_twin(4, 4)
    assert twin.kv_cache_bytes == 4_000_001
    assert "as many tokens in 4 of 92 layers" in twin.notes
    assert deployment(kv_cache_bytes=92_000_001).rank_twin(4).kv_cache_bytes == 92_000_001


def test_parallelism_of_other_kinds_is_said():
    twin = deployment(expert_parallel=True, pipeline_parallel=2).rank_twin(4, 4)
    assert "every expert, narrower, where a rank has some of them whole" in twin.notes
    assert "a rank of the pipeline has some of the layers only" in twin.notes


@pytest.mark.parametrize(
    ("field", "value", "left", "why"),
    [
        ("data_parallel", 2, 1, "one rank of one replica"),
        ("decode_context_parallel", 4, 1, "the twin keeps a sequence's whole KV"),
        ("custom_all_reduce", False, None, "nobody to reduce with"),
        ("mtp_tokens", 3, 0, "no MTP layer"),
        ("dense_mla", True, False, "dense MLA already"),
    ],
)
def test_what_one_rank_alone_cannot_have_is_reset_and_said(field, value, left, why):
    model = "glm-5.1" if field == "dense_mla" else "glm-4.7"
    twin = deployment(model=model, **{field: value}).rank_twin(4, 4)
    assert getattr(twin, field) == left
    assert field in changes(twin)
    assert why in twin.notes


def test_what_another_engine_serves_gets_a_twin_that_glmlab_can_start():
    recipe = deployment(serving_engine="sglang", attention_backend="triton", kv_splits=64)
    twin = recipe.rank_twin(4, 4)
    assert (twin.serving_engine, twin.attention_backend, twin.kv_splits) == ("vllm", None, 64)
    assert "triton is sglang's name" in twin.notes


def test_arguments_of_several_ranks_of_the_checkpoint_and_of_speculation_go():
    gone = {
        "disable_nccl_for_dp_synchronization": True,
        "distributed_executor_backend": "ray",
        "prefill_context_parallel_size": 4,
        "data_parallel_backend": "ray",
        "hf_overrides": {"num_hidden_layers": 2},
        "speculative_config": {"method": "mtp"},
    }
    recipe = deployment(engine_args=gone | {"compilation_config": {"mode": 3}, "max_logprobs": 3})
    twin = recipe.rank_twin(4, 4)
    assert twin.engine_args == {"compilation_config": {"mode": 3}, "max_logprobs": 3}
    assert all(name in twin.notes for name in gone)
    assert set(recipe.engine_args) > set(twin.engine_args)


def test_a_quantization_config_stays_with_what_it_configures():
    own = {"quantization_config": {"linear": "fp8_per_block"}}
    assert deployment(engine_args=own).rank_twin(4, 4).engine_args == own
    assert deployment(engine_args=own, quantization="online").rank_twin(4, 4).engine_args == own
    assert deployment(engine_args=own, quantization="modelopt").rank_twin(4, 4).engine_args == {}


def test_threads_bound_for_several_ranks_are_freed():
    twin = deployment(env={"VLLM_CPU_OMP_THREADS_BIND": "0|1", "A": "b"}).rank_twin(4, 4)
    assert twin.env == {"A": "b"}
    one = deployment(env={"VLLM_CPU_OMP_THREADS_BIND": "0-3"}).rank_twin(4, 4)
    assert one.env == {"VLLM_CPU_OMP_THREADS_BIND": "0-3"}


@pytest.mark.parametrize(
    ("model", "asked", "said"),
    [
        ("glm-4.7", {"tp": 3}, "tp = 3: glm-4.7 spreads over 1, 2, 4, 8, 16, 32 ranks"),
        ("glm-4.7", {"tp": 0}, "tp = 0: expected a whole number, 1 or more"),
        ("glm-4.7", {"tp": True}, "tp = True: expected a whole number"),
        ("glm-4.7", {"tp": 4, "layers": 93}, "layers = 93: a rank twin of glm-4.7 has 1 to 92 layers"),
        ("glm-4.7", {"tp": 4, "layers": 0}, "layers = 0: expected a whole number, 1 or more"),
        ("glm-4.7", {"tp": 4, "layers": 2.0}, "layers = 2.0: expected a whole number"),
        ("someone/GLM-4.7", {"tp": 4}, "model = 'someone/GLM-4.7': a rank twin is computed from config.json"),
        ("glm-4.7@tp4-l4", {"tp": 2}, "a twin of a twin"),
        ("no-such", {"tp": 2}, "model = 'no-such': no such model or folder"),
    ],
)
def test_what_cannot_be_is_one_line(model, asked, said):
    with pytest.raises(RecipeError) as error:
        deployment(model=model).rank_twin(**asked)
    assert said in str(error.value)
    assert "\n" not in str(error.value)
