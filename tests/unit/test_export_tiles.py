"""Tuned tiles in a bundle: files that vLLM finds by their name, or an error that names what is missing."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from glmlab.engines.base import KnobStatus
from glmlab.errors import ExportError
from glmlab.export import export_bundle, tuned_tiles
from glmlab.export.serve import plugin_knobs, serve_arguments, serve_environment
from glmlab.export.tuned_tiles import file_names, tuned_files
from glmlab.provenance import of_run
from glmlab.recipe import Recipe
from glmlab.storage import StudyStore
from glmlab.tiles import TileTable
from tests.doubles import scripted_start
from tests.studies import RECIPE, run

TABLE = "1: 16x32x64 g1 w4 s3; 64: 64x64x128 g8 w8 s4"
GPU = {"name": "NVIDIA H100 80GB HBM3"}
H100: dict[str, Any] = {"runs": [{"gpus": []}, {"gpus": [GPU, GPU]}]}


def recipe(tmp_path: Path, config: dict[str, Any] | None = None, **changes: Any) -> Recipe:
    """A model of GLM-4.7's experts, in a folder of its own."""
    shape = {
        "model_type": "glm4_moe",
        "vocab_size": 1024,
        "hidden_size": 5120,
        "intermediate_size": 12288,
        "moe_intermediate_size": 1536,
        "num_hidden_layers": 2,
        "first_k_dense_replace": 1,
        "num_attention_heads": 96,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "n_routed_experts": 160,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
        "max_position_embeddings": 4096,
    }
    (tmp_path / "config.json").write_text(json.dumps({**shape, **(config or {})}))
    fields = {"name": "r", "model": str(tmp_path), "moe_tiles": TABLE, **changes}
    return Recipe.parse(fields)


FP8 = {"quant_method": "fp8", "activation_scheme": "dynamic", "weight_block_size": [128, 128]}


def compressed(**weights: Any) -> dict[str, Any]:
    kind = {"type": "float", "num_bits": 8, "strategy": "channel", **weights}
    return {"quant_method": "compressed-tensors", "config_groups": {"group_0": {"weights": kind}}}


@pytest.mark.parametrize(
    ("config", "changes", "names"),
    [
        # As in vLLM's own folder of files: E=160,N=..., E=20,N=1536 and the like.
        ({}, {}, ["E=160,N=1536,device_name=NVIDIA_H100_80GB_HBM3.json"]),
        ({}, {"tensor_parallel": 4}, ["E=160,N=384,device_name=NVIDIA_H100_80GB_HBM3.json"]),
        (
            {},
            {"tensor_parallel": 8, "expert_parallel": True},
            ["E=20,N=1536,device_name=NVIDIA_H100_80GB_HBM3.json"],
        ),
        (
            {"n_routed_experts": 161},
            {"tensor_parallel": 8, "expert_parallel": True},
            [f"E={experts},N=1536,device_name=NVIDIA_H100_80GB_HBM3.json" for experts in (20, 21)],
        ),
        (
            {"quantization_config": FP8},
            {"tensor_parallel": 4},
            ["E=160,N=384,device_name=NVIDIA_H100_80GB_HBM3,dtype=fp8_w8a8,block_shape=[128,128].json"],
        ),
        (
            {"quantization_config": compressed()},
            {},
            ["E=160,N=1536,device_name=NVIDIA_H100_80GB_HBM3,dtype=fp8_w8a8.json"],
        ),
        (
            {},
            {"quantization": "fp8"},
            ["E=160,N=1536,device_name=NVIDIA_H100_80GB_HBM3,dtype=fp8_w8a8.json"],
        ),
        ({}, {"dtype": "float32"}, ["E=160,N=1536,device_name=NVIDIA_H100_80GB_HBM3,dtype=float32.json"]),
    ],
)
def test_names_follow_from_recipe_model_and_gpu(tmp_path, config, changes, names):
    assert file_names(recipe(tmp_path, config, **changes), H100) == names


@pytest.mark.parametrize(
    ("model", "tp", "kind"),
    [
        ("glm-4.5-air", 2, "E=128,N=704,device_name=NVIDIA_H100_80GB_HBM3.json"),
        ("glm-4.5-air-fp8", 2, "E=128,N=704,device_name=NVIDIA_H100_80GB_HBM3,dtype=fp8_w8a8.json"),
        (
            "glm-5.0-fp8",
            8,
            "E=256,N=256,device_name=NVIDIA_H100_80GB_HBM3,dtype=fp8_w8a8,block_shape=[128,128].json",
        ),
    ],
)
def test_a_model_of_the_catalog_is_quantized_as_the_catalog_says(model, tp, kind):
    asked = Recipe.parse({"name": "r", "model": model, "moe_tiles": TABLE, "tensor_parallel": tp})
    assert file_names(asked, H100) == [kind]


def test_experts_of_the_catalog_whose_files_vllm_names_otherwise_are_not_exported():
    asked = Recipe.parse({"name": "r", "model": "glm-4.7-nvfp4", "moe_tiles": TABLE})
    with pytest.raises(ExportError, match="'nvfp4' experts is not known"):
        file_names(asked, H100)


def test_vllm_knows_one_h200(tmp_path):
    gpus = {"runs": [{"gpus": [{"name": "NVIDIA H200 NVL"}]}]}
    assert file_names(recipe(tmp_path), gpus) == ["E=160,N=1536,device_name=NVIDIA_H200.json"]


def test_what_the_engine_reported_goes_before_what_can_be_told(tmp_path):
    names = ["E=20,N=1536,device_name=X.json"]
    runs: dict[str, Any] = {"runs": [{"gpus": [], tuned_tiles.REPORTED: names}]}
    assert file_names(recipe(tmp_path), runs) == names
    runs["runs"][0][tuned_tiles.REPORTED] = ["../E=1,N=2,device_name=X.json"]
    with pytest.raises(ExportError, match="is no name of a tile file"):
        file_names(recipe(tmp_path), runs)


@pytest.mark.parametrize(
    ("config", "changes", "provenance", "says"),
    [
        ({}, {}, {"runs": []}, "the study's newest run names no GPU"),
        ({}, {}, {"runs": [{"gpus": [{"name": "A"}, {"name": "B"}]}]}, r"has GPUs of several kinds \(A, B\)"),
        ({}, {"model": "zai-org/GLM-9"}, H100, "the config.json of zai-org/GLM-9 is not on this machine"),
        ({}, {"data_parallel": 2}, H100, "data_parallel = 2: changes how experts are spread"),
        ({}, {"engine_args": {"enable_eplb": True}}, H100, "engine_args.enable_eplb: changes how"),
        ({}, {"tensor_parallel": 5}, H100, "1536 columns of an expert do not divide over 5 ranks"),
        (
            {"quantization_config": FP8, "moe_intermediate_size": 1408},
            {"tensor_parallel": 4},
            H100,
            r"352 columns of an expert on each rank are no multiple of the quantization blocks \(128, 128\)",
        ),
        ({"quantization_config": {"quant_method": "modelopt"}}, {}, H100, "'modelopt' experts is not known"),
        ({"quantization_config": compressed(num_bits=4)}, {}, H100, "'compressed-tensors' experts is not"),
        (
            {},
            {"env": {"VLLM_TUNED_CONFIG_FOLDER": "x"}},
            H100,
            "env.VLLM_TUNED_CONFIG_FOLDER: the bundle sets",
        ),
    ],
)
def test_a_missing_fact_stops_the_export_in_one_line(tmp_path, config, changes, provenance, says):
    with pytest.raises(ExportError, match=says) as stopped:
        tuned_files(recipe(tmp_path, config, **changes), provenance)
    assert "\n" not in str(stopped.value)


def test_vllms_own_tiles_need_no_file(tmp_path):
    for value in (None, "default"):
        assert tuned_files(recipe(tmp_path, moe_tiles=value), {}) == {}


# ---------------------------------------------------------------------- the whole bundle
@pytest.fixture
def store(url, monkeypatch):
    """A study whose winner has other tiles than vLLM's own."""
    monkeypatch.setattr("glmlab.provenance.of_run", lambda: {**of_run(), "gpus": [GPU]})
    form = KnobStatus(live=True, form="tiles", value="default", default="default")
    start = scripted_start(
        lambda knobs: 10.0 if knobs["moe_tiles"] == "default" else 8.0,
        live={"moe_tiles": form},
        chosen={"moe_tiles": "default"},
    )
    base = {**RECIPE, "moe_tiles": "default"}
    return run(url, start, space={"moe_tiles": ["default", TABLE]}, recipe=base).store


def test_the_winning_table_is_a_file_and_env_sh_points_at_it(store, tmp_path):
    bundle = export_bundle(store, tmp_path / "bundle")
    assert bundle.tuned
    (name,) = [name for name in bundle.files if name.startswith("tuned/")]
    assert name == "tuned/E=16,N=128,device_name=NVIDIA_H100_80GB_HBM3.json"
    text = (bundle.directory / name).read_text()
    assert str(TileTable.from_json(text)) == TABLE
    assert {entry["SPLIT_K"] for entry in json.loads(text).values()} == {1}
    shown = subprocess.run(
        ["bash", "-c", f"cd / && source '{bundle.directory}/env.sh' && echo $VLLM_TUNED_CONFIG_FOLDER"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
    assert shown == str(bundle.directory / "tuned")
    assert "GLMLAB_KNOBS" not in (bundle.directory / "env.sh").read_text()
    assert "With another GPU or other parallelism" in (bundle.directory / "README.md").read_text()


def test_a_bundle_without_a_name_for_its_tiles_is_not_written_at_all(store, tmp_path, monkeypatch):
    monkeypatch.setattr(StudyStore, "provenance", property(lambda _self: {"runs": []}))
    with pytest.raises(ExportError, match="names no GPU"):
        export_bundle(store, tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


# ---------------------------------------------------------------------- the other live knobs
def test_knobs_that_only_the_plugin_can_set_go_to_it_unless_they_leave_the_choice_to_vllm():
    wanted = {
        "cpu_attn_isa": "vec",
        "kv_splits": 64,
        "kv_split_min_grid": 256,
        "attn_decode_tile": 32,
        "attn_decode_warps": 4,
        "attn_decode_stages": 2,
        "attn_prefill_tile": 64,
        "attn_prefill_warps": 8,
        "attn_prefill_stages": 3,
        "fp8_gemm_tiles": "16x32x64 g1 w4 s3",
    }
    asked = Recipe.parse({"name": "r", "model": "tiny/glm4-moe", **wanted, "moe_tiles": TABLE})
    assert plugin_knobs(asked) == wanted
    assert json.loads(serve_environment(asked, for_cpu=False)["GLMLAB_KNOBS"]) == wanted
    left = Recipe.parse({"name": "r", "model": "tiny/glm4-moe", "kv_splits": 0, "fp8_gemm_tiles": "default"})
    assert plugin_knobs(left) == {}
    assert "GLMLAB_KNOBS" not in serve_environment(left, for_cpu=False)


def test_what_vllm_has_an_option_for_goes_there():
    asked = Recipe.parse(
        {
            "name": "r",
            "model": "tiny/glm4-moe",
            "flash_attn_max_splits": 16,
            "engine_args": {"attention_config": {"flash_attn_version": 3}},
        }
    )
    assert plugin_knobs(asked) == {}
    assert serve_arguments(asked)["attention-config"] == {
        "flash_attn_version": 3,
        "flash_attn_max_num_splits_for_cuda_graph": 16,
    }


def test_dense_mla_cannot_go_to_a_server_and_says_so():
    asked = Recipe.parse({"name": "r", "model": "glm-5.1", "dense_mla": True})
    with pytest.raises(ExportError, match="dense_mla = true: vLLM has no option for it") as stopped:
        serve_arguments(asked)
    assert "\n" not in str(stopped.value)
    assert "dense-mla" not in serve_arguments(asked.replace(dense_mla=False))
