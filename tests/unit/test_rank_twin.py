"""The model that one tensor-parallel rank computes: its sizes, its name, its folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from glmlab.catalog import Model, find_model, list_models
from glmlab.engines.twin_folder import twin_folder
from glmlab.engines.vllm_args import engine_arguments, model_location
from glmlab.errors import RecipeError
from glmlab.models.rank_twin import TwinName, dense_layers, twin_config
from glmlab.models.shape import GqaShape, MlaShape, ModelShape
from glmlab.recipe import Recipe

FULL_SIZE = ("glm-4.5-air", "glm-4.7", "glm-4.7-flash", "glm-5.1", "glm-5.1-reap-160")


@pytest.fixture(autouse=True)
def no_own_data(monkeypatch, tmp_path):
    monkeypatch.delenv("GLMLAB_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def config_of(name: str) -> dict[str, object]:
    config = find_model(name).config
    assert config is not None
    return config


def replicated(shape: ModelShape) -> int:
    """Parameters that every rank holds whole, written out from vLLM's modules, not from ours.

    RMSNorm and ReplicatedLinear (q_a, kv_a, the gate) are not sharded, nor is the gate's bias.
    """
    h, layers = shape.hidden_size, shape.num_hidden_layers
    norms = 2 * h * layers + h
    router = (h + 1) * shape.n_routed_experts * (layers - shape.first_k_dense_replace)
    if isinstance(shape, GqaShape):
        return norms + router + (2 * shape.head_size * layers if shape.use_qk_norm else 0)
    assert isinstance(shape, MlaShape)
    assert shape.q_lora_rank is not None
    latent = shape.kv_lora_rank + shape.qk_rope_head_dim
    down = h * (shape.q_lora_rank + latent) + shape.q_lora_rank + shape.kv_lora_rank
    return norms + router + down * layers


# ---------------------------------------------------------------------------------- sizes
WITHOUT_COPIES = [
    *((name, tp) for name in list_models() for tp in (1, 2)),
    *((name, 4) for name in list_models() if name != "tiny/glm4-moe"),  # it has two KV heads
    *((name, 8) for name in list_models() if name != "tiny/glm4-moe" and "flash" not in name),  # 20 heads
]


@pytest.mark.parametrize(("name", "tp"), WITHOUT_COPIES)
def test_the_ranks_together_are_the_model(name, tp):
    base = find_model(name)
    twin = find_model(f"{name}@tp{tp}-l{base.layers}")
    shape = base.shape
    indexers = shape.indexer_layers * shape.indexer_params
    whole = replicated(twin.shape)
    assert whole == replicated(shape)
    assert tp * (twin.total_params - whole) + whole == base.total_params - indexers
    assert twin.mtp_params == 0


@pytest.mark.parametrize("tp", [1, 2, 4])
@pytest.mark.parametrize("name", list_models())
def test_a_token_takes_as_much_kv_as_on_a_rank(name, tp):
    base = find_model(name)
    twin = find_model(f"{name}@tp{tp}-l{base.layers}")
    assert twin.kv_bytes_per_token(2) == base.kv_bytes_per_token(2, tensor_parallel=tp)


def test_a_gqa_rank_by_hand():
    twin = config_of("glm-4.7@tp4-l4")
    assert {
        "model_type": "glm4_moe",
        "hidden_size": 5120,
        "num_hidden_layers": 4,
        "first_k_dense_replace": 1,
        "num_attention_heads": 24,
        "num_key_value_heads": 2,
        "head_dim": 128,
        "intermediate_size": 3072,
        "moe_intermediate_size": 384,
        "n_routed_experts": 160,
        "num_experts_per_tok": 8,
        "n_shared_experts": 1,
        "vocab_size": 37888,
        "use_qk_norm": True,
        "attention_bias": True,
        "num_nextn_predict_layers": 0,
    }.items() <= twin.items()


@pytest.mark.parametrize(("name", "experts"), [("glm-5.1", 256), ("glm-5.1-reap-160", 160)])
def test_a_dsa_rank_by_hand_is_dense_mla(name, experts):
    twin = config_of(f"{name}@tp4-l4")
    assert {
        "architectures": ["Glm4MoeLiteForCausalLM"],
        "model_type": "glm4_moe_lite",
        "hidden_size": 6144,
        "num_hidden_layers": 4,
        "first_k_dense_replace": 1,
        "mlp_layer_types": ["dense", "sparse", "sparse", "sparse"],
        "num_attention_heads": 16,
        "q_lora_rank": 2048,
        "kv_lora_rank": 512,
        "qk_nope_head_dim": 192,
        "qk_rope_head_dim": 64,
        "v_head_dim": 256,
        "intermediate_size": 3072,
        "moe_intermediate_size": 512,
        "n_routed_experts": experts,
        "vocab_size": 38720,
        "topk_method": "noaux_tc",
        "scoring_func": "sigmoid",
        "routed_scaling_factor": 2.5,
    }.items() <= twin.items()
    # index_topk alone makes vLLM build the sparse model; head_dim is the rope's in glm4_moe_lite
    assert not [key for key in twin if key.startswith("index") or key == "head_dim"]


def test_more_ranks_than_kv_heads_have_one_each():
    twin = find_model("glm-4.7@tp16-l92")
    assert (twin.heads, twin.kv_heads) == (6, 1)
    assert twin.kv_bytes_per_token(1) == find_model("glm-4.7").kv_bytes_per_token(1, tensor_parallel=16)


def test_the_vocabulary_is_padded_before_it_is_divided():
    base = config_of("tiny/glm4-moe") | {"vocab_size": 1000}
    assert [twin_config(base, tp, 4, "x")["vocab_size"] for tp in (1, 2, 4)] == [1024, 512, 256]


def test_a_head_size_that_followed_from_the_hidden_size_is_kept():
    base = {key: value for key, value in config_of("tiny/glm4-moe").items() if key != "head_dim"}
    assert twin_config(base, 2, 4, "x")["head_dim"] == 256 // 8


@pytest.mark.parametrize(
    ("name", "layers", "dense"),
    [
        ("glm-4.7", 92, 3),
        ("glm-4.7", 46, 2),
        ("glm-4.7", 45, 1),
        ("glm-4.7", 4, 1),
        ("glm-4.7", 2, 1),
        ("glm-4.7", 1, 0),
        ("glm-5.1", 78, 3),
        ("glm-5.1", 26, 1),
        ("tiny/glm4-moe", 3, 1),
    ],
)
def test_dense_and_moe_layers_keep_their_share_and_one_of_each(name, layers, dense):
    assert dense_layers(find_model(name).shape, layers) == dense


def test_a_mostly_dense_model_keeps_a_layer_with_experts():
    mostly = ModelShape.parse(config_of("tiny/glm4-moe") | {"first_k_dense_replace": 3}, "x")
    assert [dense_layers(mostly, n) for n in (1, 2, 3, 4)] == [0, 1, 2, 3]


def test_a_model_of_one_kind_of_layer_keeps_it():
    base = config_of("tiny/glm4-moe")
    only_moe = ModelShape.parse(base | {"first_k_dense_replace": 0}, "x")
    only_dense = ModelShape.parse(base | {"first_k_dense_replace": 4}, "x")
    assert [dense_layers(only_moe, n) for n in (1, 2, 4)] == [0, 0, 0]
    assert [dense_layers(only_dense, n) for n in (1, 2, 4)] == [1, 2, 4]


def test_what_belongs_to_the_checkpoint_is_left_out():
    base = config_of("glm-5.1") | {
        "quantization_config": {"quant_method": "modelopt"},
        "num_experts": 256,  # some checkpoints carry it beside n_routed_experts
        "index_topk_pattern": "F" * 78,
        "layer_types": ["indexed_attention"] * 78,
        "mlp_layer_types": ["dense"] * 3 + ["sparse"] * 75,
        "rope_interleave": True,
    }
    twin = twin_config(base, 4, 2, "x")
    assert not {"quantization_config", "num_experts", "layer_types", "eos_token_id", "pad_token_id"} & set(
        twin
    )
    assert twin["mlp_layer_types"] == ["dense", "sparse"]
    assert twin["rope_parameters"] == {"rope_theta": 1000000, "rope_type": "default"}
    assert twin["rope_interleave"] is True


def test_the_base_stays_as_it_is():
    base = config_of("glm-5.1")
    before = json.dumps(base)
    twin_config(base, 4, 4, "x")
    assert json.dumps(base) == before


# ---------------------------------------------------------------------------------- names
def test_a_twin_is_found_by_its_name_and_says_what_it_is():
    twin = find_model("glm-4.7@tp4-l4")
    assert (twin.name, twin.path, twin.layers, twin.attention) == ("glm-4.7@tp4-l4", None, 4, "gqa")
    assert twin.note == (
        "rank twin: what one of 4 tensor-parallel ranks of glm-4.7 computes, in 4 of its 92 layers"
        " (1 dense, where it has 3)"
    )
    assert twin.to_json()["note"] == twin.note
    assert not set(list_models()) & {twin.name}


def test_a_twin_of_a_folder(tmp_path):
    folder = tmp_path / "org" / "GLM@home"  # an @ of its own
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config_of("glm-4.7")), encoding="utf-8")
    assert find_model(f"{folder}@tp4-l4").config == find_model("glm-4.7@tp4-l4").config


@pytest.mark.parametrize("name", ["glm-4.7", "zai-org/GLM-4.7", "some@where/glm-4.7", ""])
def test_other_names_are_not_meant_as_twins(name):
    assert TwinName.parse(name) is None


def test_a_name_round_trips():
    assert str(TwinName.parse("tiny/glm4-moe@tp2-l3")) == "tiny/glm4-moe@tp2-l3"
    assert TwinName.parse("a@b@tp2-l3") == ("a@b", 2, 3)


REFUSED = {
    "glm-4.7@tp3-l4": (
        "tp = 3: glm-4.7 spreads over 1, 2, 4, 8, 16, 32 ranks"
        " (num_key_value_heads = 8, vocab_size = 151552 cannot be spread so)"
    ),
    "glm-4.7@tp5-l4": "num_attention_heads = 96",
    "glm-4.7-flash@tp8-l4": "num_attention_heads = 20",
    "glm-4.7-flash@tp5-l4": "(moe_intermediate_size = 1536 cannot be spread so)",
    "glm-4.5-air@tp48-l4": "(moe_intermediate_size = 1408, vocab_size = 151552 cannot be spread so)",
    "glm-5.1@tp128-l4": "num_attention_heads = 64",
    "glm-4.7@tp4-l93": "layers = 93: a rank twin of glm-4.7 has 1 to 92 layers",
    "someone/GLM-4.7@tp4-l4": "give the folder of a downloaded checkpoint, or a packaged model; did you mean",
    "glm-4.7@tp4-l4@tp2-l2": "a twin of a twin; name the model itself, such as glm-4.7@tp2-l2",
    "glm-4.8@tp4-l4": "model = 'glm-4.8': no such model or folder; did you mean glm-4.7",
    "glm-4.7@tp4": "a rank twin is written NAME@tpT-lL, T ranks and L layers, such as glm-4.7@tp4-l4",
    "glm-4.7@tp0-l4": "a rank twin is written NAME@tpT-lL",
    "glm-4.7@tp4-l04": "a rank twin is written NAME@tpT-lL",
    "glm-4.7@tp4-l4x": "a rank twin is written NAME@tpT-lL",
    "glm-4.7@": "a rank twin is written NAME@tpT-lL",
    "@tp4-l4": "such as glm-4.7@tp4-l4",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_one_line_that_says_what_can(name):
    with pytest.raises(RecipeError) as error:
        find_model(name)
    assert REFUSED[name] in str(error.value)
    assert "\n" not in str(error.value)


def test_the_folder_of_a_twin_has_no_twin():
    folder = twin_folder(find_model("glm-4.7@tp4-l4"))
    with pytest.raises(RecipeError, match="is a rank twin already, which has no twin of its own"):
        find_model(f"{folder}@tp2-l2")


# ---------------------------------------------------------------------------------- folder
def recipe_of(model: str) -> Recipe:
    return Recipe(name="r", model=model, weights="random")


def files(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


def test_vllm_is_given_a_folder_with_the_computed_config(tmp_path):
    folder = Path(model_location(recipe_of("glm-5.1@tp4-l4")))
    assert folder.is_relative_to(tmp_path / "cache")
    assert files(folder) == ["config.json"]
    assert json.loads((folder / "config.json").read_text(encoding="utf-8")) == config_of("glm-5.1@tp4-l4")
    assert engine_arguments(recipe_of("glm-5.1@tp4-l4"))["model"] == str(folder)
    assert find_model(folder).total_params == find_model("glm-5.1@tp4-l4").total_params


def test_a_folder_is_written_once_and_mended_where_it_is_broken():
    twin = find_model("glm-4.7@tp4-l4")
    file = twin_folder(twin) / "config.json"
    os.utime(file, (1, 1))
    assert twin_folder(twin) == file.parent
    assert file.stat().st_mtime == 1
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    assert twin_folder(twin) == file.parent
    assert file.read_bytes() == whole
    assert files(file.parent) == ["config.json"]


def test_another_content_is_another_folder():
    twin = find_model("glm-4.7@tp4-l4")
    changed = Model(name=twin.name, config=(twin.config or {}) | {"n_routed_experts": 80})
    folders = {twin_folder(twin), twin_folder(changed), twin_folder(find_model("glm-4.7@tp4-l5"))}
    assert len(folders) == 3


def test_a_cache_that_cannot_be_written_is_said(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(RecipeError, match=r"cannot be written to .* set XDG_CACHE_HOME") as error:
        model_location(recipe_of("glm-4.7@tp4-l4"))
    assert "\n" not in str(error.value)


def test_models_with_a_folder_of_their_own_keep_it():
    for name in ("glm-4.7", "glm-5.1", "tiny/glm4-moe"):
        assert model_location(recipe_of(name)) == str(find_model(name).path)
    assert model_location(recipe_of("someone/GLM-4.7")) == "someone/GLM-4.7"


def test_a_model_that_is_data_over_its_base_gets_a_folder_and_one_on_the_hub_does_not():
    folder = model_location(recipe_of("glm-5.1-reap-160"))
    assert find_model(folder).config == find_model("glm-5.1-reap-160").config
    assert find_model("zai-org/GLM-4.7").layers == 92
    assert model_location(recipe_of("zai-org/GLM-4.7")) == "zai-org/GLM-4.7"
