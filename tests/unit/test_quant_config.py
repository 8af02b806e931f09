"""A checkpoint's own quantization_config, read into a layout."""

from __future__ import annotations

import json

import pytest

from glmlab.catalog import Model, find_model
from glmlab.errors import RecipeError
from glmlab.ranks.weights import rank_weights
from glmlab.recipe import Recipe


def quantized(base: str, **given: object) -> Model:
    return Model(name="folder", config=(find_model(base).config or {}) | {"quantization_config": given})


def parts(model: Model) -> dict[str, str]:
    return {part: mix.label for part, mix in model.layout.parts.items()}


def grouped(weights: object, targets: object = ("Linear",)) -> dict[str, object]:
    return {"g": {"targets": list(targets) if isinstance(targets, tuple) else targets, "weights": weights}}


LINEAR = {"attention", "dense_ffn", "routed_experts", "shared_experts"}


def test_modelopt_with_wildcards_and_expressions():
    model = quantized(
        "glm-5.1",
        quant_method="modelopt",
        quant_algo="NVFP4",
        kv_cache_quant_algo="FP8",
        ignore=[
            "lm_head",
            "model.layers.*.self_attn*",
            "model.layers.*.mlp.shared_experts*",
            "re:model.layers.[0-2].mlp.*",
            "model.layers.78*",
        ],
    )
    assert parts(model) == {"routed_experts": "nvfp4"}
    assert (model.layout.kv_cache, model.layout.mtp.label if model.layout.mtp else None) == ("fp8", "bf16")
    assert model.disk_bytes == find_model("glm-5.1-nvfp4").disk_bytes


def test_fp8_blocks_with_module_names():
    gates = [f"model.layers.{layer}.mlp.gate" for layer in range(3, 79)]
    model = quantized(
        "glm-5.1",
        quant_method="fp8",
        weight_block_size=[128, 128],
        modules_to_not_convert=["lm_head", "model.embed_tokens", *gates],
    )
    assert set(parts(model)) == LINEAR | {"indexer"}
    assert set(parts(model).values()) == {"fp8-block"}
    assert model.disk_bytes == pytest.approx(find_model("glm-5.1-fp8").disk_bytes, rel=1e-3)


def test_compressed_tensors_by_channel():
    weights = {"num_bits": 8, "type": "float", "strategy": "channel"}
    groups = {"group_0": {"targets": ["Linear"], "weights": weights}}
    model = quantized("glm-4.7", quant_method="compressed-tensors", config_groups=groups, ignore=["lm_head"])
    assert parts(model) == dict.fromkeys(LINEAR, "fp8-channel")


NVFP4 = {"num_bits": 4, "type": "float", "group_size": 16, "strategy": "tensor_group"}
FP8 = {"num_bits": 8, "type": "float", "strategy": "channel"}


def compressed(groups: dict[str, object], **given: object) -> Model:
    return quantized("glm-4.7", quant_method="compressed-tensors", config_groups=groups, **given)


def test_targets_say_which_modules_a_group_is_for():
    """Attention stays in BF16 though nothing ignores it."""
    model = compressed(grouped(NVFP4, ("re:.*mlp.experts.*",)), ignore=["lm_head"])
    assert parts(model) == {"routed_experts": "nvfp4"}
    experts = 3 * 5120 * 1536 * 160 * (89 + 1)  # the MTP layer's, too
    plain = Model(name="folder", config=find_model("glm-4.7").config).disk_bytes
    assert model.disk_bytes == pytest.approx(plain - experts * (2 - 0.5625), rel=1e-5)


def test_a_class_of_modules_is_for_the_experts_alone():
    assert parts(compressed(grouped(NVFP4, ("RoutedExperts",)))) == {"routed_experts": "nvfp4"}


def test_groups_of_several_formats_and_names_before_classes():
    groups = {
        "all": {"targets": ["Linear"], "weights": FP8},
        "experts": {"targets": ["re:.*mlp.experts.*"], "weights": NVFP4},
        "left": {"targets": ["re:.*self_attn.*"], "weights": None},
        "kv": {"targets": ["Glm4MoeAttention"], "weights": FP8},
    }
    found = parts(compressed(groups))
    assert found == {"routed_experts": "nvfp4", "shared_experts": "fp8-channel", "dense_ffn": "fp8-channel"}


def test_targets_that_name_some_matrices_or_layers():
    found = parts(
        compressed(grouped(FP8, (r"re:.*experts\..*down_proj$", "model.layers.0.self_attn.q_proj")))
    )
    assert found["routed_experts"] == found["shared_experts"] == "fp8-channel 33%, bf16 67%"
    assert found["attention"].startswith("fp8-channel 0%") or found["attention"].startswith("fp8-channel 1%")
    assert "dense_ffn" not in found


def test_the_head_is_quantized_where_a_target_names_it():
    assert "lm_head" not in parts(compressed(grouped(FP8)))
    assert parts(compressed(grouped(FP8, ("lm_head",)))) == {"lm_head": "fp8-channel"}
    assert parts(compressed(grouped(FP8, ("lm_head", "Linear")), ignore=["lm_head"])).keys() == LINEAR


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ignored_layers": 5}, "quantization_config.ignored_layers = 5: expected a list"),
        ({"ignore": "lm_head"}, "quantization_config.ignore = 'lm_head': expected a list"),
        ({"exclude_modules": [["lm_head"]]}, "exclude_modules = [['lm_head']]"),
        ({"kv_cache_scheme": {"num_bits": [8], "type": "float"}}, "kv_cache_scheme.num_bits = [8]"),
    ],
)
def test_a_broken_list_or_scheme_is_one_line(given, said):
    model = quantized("glm-4.7", quant_method="fp8", **given)
    with pytest.raises(RecipeError) as error:
        _ = model.layout
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("weights", "name"),
    [
        ({"num_bits": 4, "type": "float", "group_size": 16, "strategy": "tensor_group"}, "nvfp4"),
        ({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]}, "fp8-block"),
        ({"num_bits": 8, "type": "float", "strategy": "tensor"}, "fp8-tensor"),
        (
            {"num_bits": 4, "type": "int", "group_size": 32, "strategy": "group", "symmetric": True},
            "int4-g32",
        ),
        (
            {"num_bits": 4, "type": "int", "group_size": 128, "strategy": "group", "symmetric": False},
            "int4-g128-zero",
        ),
        ({"num_bits": 8, "type": "int", "strategy": "channel"}, "int8-channel"),
    ],
)
def test_other_compressed_tensors(weights, name):
    model = quantized("glm-4.7", quant_method="compressed-tensors", config_groups=grouped(weights))
    assert parts(model)["routed_experts"] == name


def test_awq_that_leaves_out_a_layer_and_attention():
    model = quantized(
        "glm-4.7",
        quant_method="awq",
        bits=4,
        group_size=128,
        zero_point=True,
        modules_to_not_convert=["model.layers.0.", "self_attn"],
    )
    assert parts(model) == {
        "dense_ffn": "int4-g128-zero 67%, bf16 33%",
        "routed_experts": "int4-g128-zero",
        "shared_experts": "int4-g128-zero",
    }


def test_group_and_zero_point_set_the_cost():
    def routed(**given: object) -> float:
        model = quantized("glm-4.7", quant_method="gptq", bits=4, **given)
        return model.layout.mix("routed_experts").bytes_per_param(5120, 2)

    assert routed(group_size=128) == 0.5 + 2 / 128
    assert routed(group_size=32, zero_point=True) == 0.5 + 2.5 / 32
    assert routed(group_size=-1) == 0.5 + 2 / 5120


def test_a_folder_is_read_with_what_lies_beside_its_config(tmp_path):
    """Older ModelOpt exports keep it in hf_quant_config.json, which vLLM reads next."""
    (tmp_path / "config.json").write_text(json.dumps(find_model("glm-4.7").config), encoding="utf-8")
    assert find_model(tmp_path).layout.name == "bf16"
    beside = {"producer": {"name": "modelopt"}, "quantization": {"quant_algo": "FP8", "exclude_modules": []}}
    (tmp_path / "hf_quant_config.json").write_text(json.dumps(beside), encoding="utf-8")
    found = find_model(tmp_path)
    assert parts(found) == dict.fromkeys(LINEAR, "fp8-tensor")
    plan = Recipe(name="plan", model=str(tmp_path), tensor_parallel=4)
    assert rank_weights(plan).parts["routed_experts"] == found.shape.expert_params * 89 * 160 // 4


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"quant_method": "mxfp8"}, "quant_method = 'mxfp8'"),
        ({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION"}, "quant_algo = 'MIXED_PRECISION'"),
        ({"quant_method": "awq", "bits": 3}, "bits = 3"),
        ({"quant_method": "compressed-tensors"}, "config_groups"),
        ({"quant_method": "compressed-tensors", "config_groups": grouped(NVFP4, None)}, "g.targets = None"),
        (
            {"quant_method": "compressed-tensors", "config_groups": grouped(NVFP4, "Linear")},
            "g.targets = 'Linear'",
        ),
        (
            {"quant_method": "compressed-tensors", "config_groups": grouped(NVFP4, ("Glm4MoeMLP",))},
            "'Glm4MoeMLP'",
        ),
        ({"quant_method": "compressed-tensors", "config_groups": grouped(NVFP4, ("re:(",))}, "'re:('"),
        ({"quant_method": "compressed-tensors", "config_groups": grouped(NVFP4, ("*.mlp.*",))}, "'*.mlp.*'"),
        (
            {"quant_method": "compressed-tensors", "config_groups": grouped(NVFP4, ("re:.*blocks.*",))},
            "re:.*blocks.*",
        ),
        ({"quant_method": "compressed-tensors", "config_groups": grouped(5)}, "weights = 5"),
        ({}, "quant_method = ''"),
    ],
)
def test_an_unknown_layout_is_said_and_sizes_remain(given, said):
    model = quantized("glm-4.7", **given) if given else quantized("glm-4.7", bits=4)
    with pytest.raises(RecipeError) as error:
        _ = model.layout
    assert said in str(error.value)
    assert "that glmlab does not know" in str(error.value)
    assert "\n" not in str(error.value)
    body = model.to_json()
    assert (body["layout"], body["disk_bytes"], body["note"]) == (None, None, str(error.value))
    assert body["total_params"] == find_model("glm-4.7").total_params
    plan = Recipe(name="plan", model="x/y", quantization="fp8-channel")
    assert rank_weights(plan, model).bytes == rank_weights(plan, find_model("glm-4.7")).bytes


def test_a_quantization_config_that_is_no_mapping_is_said():
    model = Model(name="m", config=(find_model("glm-4.7").config or {}) | {"quantization_config": "fp8"})
    with pytest.raises(RecipeError, match="quantization_config = 'fp8': expected keys and values"):
        _ = model.layout
