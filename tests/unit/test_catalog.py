from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from glmlab.catalog import Model, find_model, list_models
from glmlab.errors import RecipeError
from glmlab.models.shape import ModelShape

# Values of the real config.json files, as far as sizes go (reference: glm-on-blackwell.md 1.1).
GLM_4_7 = {
    "model_type": "glm4_moe",
    "vocab_size": 151552,
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "num_hidden_layers": 92,
    "first_k_dense_replace": 3,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "use_qk_norm": True,
    "attention_bias": True,
    "n_routed_experts": 160,
    "num_experts_per_tok": 8,
    "n_shared_experts": 1,
    "max_position_embeddings": 202752,
    "num_nextn_predict_layers": 1,
}
GLM_4_5_AIR = GLM_4_7 | {
    "hidden_size": 4096,
    "intermediate_size": 10944,
    "moe_intermediate_size": 1408,
    "num_hidden_layers": 46,
    "first_k_dense_replace": 1,
    "n_routed_experts": 128,
    "use_qk_norm": False,
    "max_position_embeddings": 131072,
}
GLM_4_7_FLASH = {
    "model_type": "glm4_moe_lite",
    "vocab_size": 154880,
    "hidden_size": 2048,
    "intermediate_size": 10240,
    "moe_intermediate_size": 1536,
    "num_hidden_layers": 47,
    "first_k_dense_replace": 1,
    "num_attention_heads": 20,
    "num_key_value_heads": 20,
    "q_lora_rank": 768,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 192,
    "qk_rope_head_dim": 64,
    "v_head_dim": 256,
    "n_routed_experts": 64,
    "num_experts_per_tok": 4,
    "n_shared_experts": 1,
    "max_position_embeddings": 202752,
    "num_nextn_predict_layers": 1,
}
GLM_5_1 = {
    "model_type": "glm_moe_dsa",
    "vocab_size": 154880,
    "hidden_size": 6144,
    "intermediate_size": 12288,
    "moe_intermediate_size": 2048,
    "num_hidden_layers": 78,
    "first_k_dense_replace": 3,
    "num_attention_heads": 64,
    "num_key_value_heads": 64,
    "q_lora_rank": 2048,
    "kv_lora_rank": 512,
    "qk_nope_head_dim": 192,
    "qk_rope_head_dim": 64,
    "v_head_dim": 256,
    "index_n_heads": 32,
    "index_head_dim": 128,
    "index_topk": 2048,
    "n_routed_experts": 256,
    "num_experts_per_tok": 8,
    "n_shared_experts": 1,
    "max_position_embeddings": 202752,
    "num_nextn_predict_layers": 1,
}
PACKAGED = {
    "glm-4.5-air": GLM_4_5_AIR,
    "glm-4.7": GLM_4_7,
    "glm-4.7-flash": GLM_4_7_FLASH,
    "glm-5.1": GLM_5_1,
    "glm-5.1-reap-160": GLM_5_1 | {"n_routed_experts": 160},
}
TINY = ("tiny/glm4-moe", "tiny/glm4-moe-lite")
GLM_5_2 = GLM_5_1 | {"index_topk_freq": 4, "index_skip_topk_offset": 3, "max_position_embeddings": 1048576}


def full_size(config: dict[str, object]) -> Model:
    return Model(name="full-size", config=config)


def write_model(folder: Path, config: object) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    folder.joinpath("config.json").write_text(json.dumps(config), encoding="utf-8")
    return folder


@pytest.fixture(autouse=True)
def no_own_data(monkeypatch):
    monkeypatch.delenv("GLMLAB_DATA", raising=False)


# ---------------------------------------------------------------------------------- parameters
@pytest.mark.parametrize(
    ("config", "total_b", "with_mtp_b", "active_b"),
    [
        (GLM_4_7, 352.8, 356.8, 32.9),
        (GLM_4_5_AIR, 106.9, 109.2, 12.8),
        (GLM_4_7_FLASH, 29.9, 30.6, 3.6),
        (GLM_5_1, 743.9, 753.9, 40.8),
    ],
    ids=["4.7", "4.5-air", "4.7-flash", "5.1"],
)
def test_parameters_equal_the_published_table(config, total_b, with_mtp_b, active_b):
    model = full_size(config)
    assert model.total_params / 1e9 == pytest.approx(total_b, rel=2e-3)
    assert (model.total_params + model.mtp_params) / 1e9 == pytest.approx(with_mtp_b, rel=2e-3)
    assert model.active_params / 1e9 == pytest.approx(active_b, rel=1e-2)


@pytest.mark.parametrize(
    ("config", "params"),
    [
        (GLM_4_7, 352_797_829_024),
        (GLM_4_5_AIR, 106_852_251_264),
        (GLM_4_7_FLASH, 29_943_393_920),
        (GLM_5_1, 743_911_218_432),
        (GLM_5_2, 743_377_019_904),
    ],
    ids=["4.7", "4.5-air", "4.7-flash", "5.1", "5.2"],
)
def test_total_equals_a_count_of_transformers_own_model(config, params):
    # Counted once on the meta device with transformers 5.19.0: parameters and router biases.
    assert full_size(config).total_params == params


@pytest.mark.parametrize(
    ("name", "changes", "params"),
    [
        ("tiny/glm4-moe", {}, 7_256_368),
        ("tiny/glm4-moe", {"tie_word_embeddings": True}, 6_994_224),
        ("tiny/glm4-moe", {"use_qk_norm": True, "attention_bias": True}, 7_259_952),
        ("tiny/glm4-moe-lite", {}, 12_698_416),
        ("tiny/glm4-moe-lite", {"tie_word_embeddings": True}, 12_436_272),
        ("tiny/glm4-moe-lite", {"q_lora_rank": None}, 13_353_264),
    ],
)
def test_variants_equal_a_count_of_transformers_own_model(name, changes, params):
    config = find_model(name).config
    assert config is not None
    assert full_size(config | changes).total_params == params


def test_pruned_experts_leave_the_active_parameters_nearly_alone():
    whole, pruned = full_size(GLM_5_1), full_size(GLM_5_1 | {"n_routed_experts": 160})
    assert (pruned.total_params + pruned.mtp_params) / 1e9 == pytest.approx(478.4, rel=2e-3)
    assert pruned.active_params == pytest.approx(whole.active_params, rel=2e-3)


def test_a_tied_head_is_stored_once_and_still_multiplied_with():
    free, tied = full_size(GLM_4_7), full_size(GLM_4_7 | {"tie_word_embeddings": True})
    assert free.total_params - tied.total_params == 151552 * 5120
    assert tied.active_params == free.active_params


@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({}, 78),
        ({"index_topk_freq": 4, "index_skip_topk_offset": 3}, 21),
        ({"index_topk_pattern": "FS" * 39}, 39),
        ({"indexer_types": ["full"] * 20 + ["shared"] * 58}, 20),
    ],
)
def test_layers_with_an_indexer_of_their_own(changes, layers):
    assert full_size(GLM_5_1 | changes).indexer_bytes_per_token() == 132 * layers


# ---------------------------------------------------------------------------------- KV cache
@pytest.mark.parametrize(
    ("config", "values", "fp8_at_tp4"),
    [
        (GLM_4_7, 188_416, 47_104),
        (GLM_4_5_AIR, 94_208, 23_552),
        (GLM_4_7_FLASH, 27_072, 27_072),
        (GLM_5_1, 44_928, 44_928),
    ],
    ids=["4.7", "4.5-air", "4.7-flash", "5.1"],
)
def test_kv_bytes_per_token_equal_the_published_table(config, values, fp8_at_tp4):
    model = full_size(config)
    assert model.kv_bytes_per_token(1) == values
    assert model.kv_bytes_per_token(2) == 2 * values
    assert model.kv_bytes_per_token(0.5) == values // 2
    assert model.kv_bytes_per_token(1, tensor_parallel=4) == fp8_at_tp4


def test_kv_heads_are_copied_where_there_are_more_ranks_than_heads():
    model = full_size(GLM_4_7)
    assert model.kv_bytes_per_token(1, tensor_parallel=8) == 188_416 // 8
    assert model.kv_bytes_per_token(1, tensor_parallel=16) == 188_416 // 8


def test_ranks_that_the_heads_cannot_be_spread_over_are_refused():
    with pytest.raises(RecipeError) as error:
        full_size(GLM_4_7).kv_bytes_per_token(1, tensor_parallel=3)
    assert str(error.value) == (
        "tensor_parallel = 3: full-size has 96 query heads and 8 KV heads,"
        " which spread over 1, 2, 4, 8, 16, 24, 32, 48, 96 ranks"
    )
    assert full_size(GLM_4_7_FLASH).tensor_parallel_choices == (1, 2, 4, 5, 10, 20)


@pytest.mark.parametrize("width", [0, -1, float("nan")])
def test_a_kv_number_has_a_size(width):
    with pytest.raises(RecipeError, match="kv_dtype_bytes"):
        full_size(GLM_4_7).kv_bytes_per_token(width)


# ---------------------------------------------------------------------------------- finding
def test_packaged_models():
    assert {*PACKAGED, *TINY} <= set(list_models())
    assert list(list_models()) == sorted(list_models())
    gqa, mla = (find_model(name) for name in TINY)
    assert (gqa.attention, gqa.layers, gqa.heads, gqa.kv_heads) == ("gqa", 4, 8, 2)
    assert (mla.attention, mla.layers, mla.heads, mla.kv_heads) == ("mla", 4, 8, 1)
    for model in (gqa, mla):
        assert model.config is not None
        assert (model.vocab_size, model.max_model_len, model.shape.n_routed_experts) == (1024, 8192, 16)
        assert model.path is not None
        assert model.path.is_absolute()


@pytest.mark.parametrize("name", PACKAGED)
def test_a_packaged_full_size_model_has_the_published_sizes(name):
    assert PACKAGED[name].items() <= (find_model(name).config or {}).items()


def test_the_readme_of_the_data_says_what_the_formulas_say():
    readme = Path(__file__).parents[2].joinpath("glmlab", "data", "README.md").read_text(encoding="utf-8")
    for model in map(find_model, TINY):
        sizes = f"{model.total_params / 1e6:.2f} M / {model.active_params / 1e6:.2f} M"
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{model.name}` |"))
        assert f"| {sizes} | {model.kv_bytes_per_token(1):,} |" in row


def test_a_folder_is_found_by_str_and_by_path(tmp_path, monkeypatch):
    folder = write_model(tmp_path / "GLM-4.7", GLM_4_7 | {"architectures": ["Glm4MoeForCausalLM"]})
    for given in (str(folder), folder):
        model = find_model(given)
        assert (model.name, model.path, model.layers) == (str(folder), folder, 92)
    monkeypatch.chdir(tmp_path)
    assert find_model("GLM-4.7").path == folder


def test_an_existing_folder_wins_over_a_hub_name(tmp_path, monkeypatch):
    write_model(tmp_path / "zai-org" / "GLM-4.7", GLM_4_5_AIR)
    monkeypatch.chdir(tmp_path)
    assert find_model("zai-org/GLM-4.7").layers == 46


def test_a_hub_name_that_the_data_lacks_is_known_by_name_only():
    model = find_model("someone/GLM-4.7-FP8")
    assert (model.name, model.path, model.config) == ("someone/GLM-4.7-FP8", None, None)
    with pytest.raises(RecipeError, match=r"model someone/GLM-4\.7-FP8: its config\.json is not on this"):
        _ = model.total_params
    with pytest.raises(RecipeError):
        model.kv_bytes_per_token(2)
    printed = model.to_json()
    assert printed["total_params"] is None
    assert "not known" in printed["note"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tiny/glm4-mo", "did you mean tiny/glm4-moe"),
        ("glm4-moe", "did you mean tiny/glm4-moe"),
        ("/no/such/folder", "`glmlab models` lists"),
        ("./org/name", "`glmlab models` lists"),
        ("a/b/c", "`glmlab models` lists"),
        ("", "no such model or folder"),
    ],
)
def test_an_unknown_model_is_one_line_with_the_nearest_names(name, hint):
    with pytest.raises(RecipeError) as error:
        find_model(name)
    message = str(error.value)
    assert message.startswith(f"model = {name!r}: no such model or folder")
    assert hint in message
    assert "\n" not in message


def test_own_data_is_laid_over_the_packaged(tmp_path, monkeypatch):
    write_model(tmp_path / "tiny" / "glm4-moe", GLM_4_5_AIR)
    write_model(tmp_path / "tiny" / "mine", GLM_5_1)
    write_model(tmp_path / "models" / "glm-6", GLM_5_2)
    monkeypatch.setenv("GLMLAB_DATA", str(tmp_path))
    assert {*PACKAGED, "glm-6", *TINY, "tiny/mine"} <= set(list_models())
    assert find_model("tiny/glm4-moe").layers == 46
    assert find_model("tiny/glm4-moe-lite").layers == 4
    assert find_model("tiny/mine").attention == "mla+dsa"


def test_a_missing_own_data_folder_is_said(monkeypatch):
    monkeypatch.setenv("GLMLAB_DATA", "/no/such/data")
    with pytest.raises(RecipeError, match="GLMLAB_DATA = '/no/such/data': no such folder"):
        list_models()


# ---------------------------------------------------------------------------------- bad configs
@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "model_type = None: not a GLM that glmlab can compute"),
        ({"model_type": "llama"}, "model_type = 'llama': not a GLM that glmlab can compute"),
        ({"model_type": "glm4_mo"}, "did you mean glm4_moe"),
        ({k: v for k, v in GLM_4_7.items() if k != "hidden_size"}, "hidden_size: missing"),
        ({k: v for k, v in GLM_4_7_FLASH.items() if k != "q_lora_rank"}, "q_lora_rank: missing"),
        ({k: v for k, v in GLM_5_1.items() if k != "index_n_heads"}, "index_n_heads: missing"),
        (GLM_4_7 | {"hidden_size": "5120"}, "hidden_size = '5120'"),
        (GLM_4_7 | {"hidden_size": True}, "hidden_size = True"),
        (GLM_4_7 | {"num_hidden_layers": 0}, "num_hidden_layers = 0"),
        (GLM_4_7 | {"moe_layer_freq": 2}, "moe_layer_freq = 2"),
        (GLM_4_7 | {"num_experts_per_tok": 161}, "num_experts_per_tok = 161 exceeds n_routed_experts = 160"),
        (GLM_4_7 | {"first_k_dense_replace": 93}, "first_k_dense_replace = 93 exceeds num_hidden_layers"),
        (GLM_4_7 | {"num_key_value_heads": 7}, "num_key_value_heads = 7 does not divide"),
        (GLM_4_7 | {"head_dim": None}, "head_dim: missing"),
        ([1], "expected a JSON object, found list"),
    ],
)
def test_a_bad_config_is_one_line_that_names_the_file(tmp_path, config, said):
    folder = write_model(tmp_path, config)
    with pytest.raises(RecipeError) as error:
        find_model(folder)
    message = str(error.value)
    assert message.startswith(f"{folder / 'config.json'}: ")
    assert said in message
    assert "\n" not in message


def test_head_dim_follows_from_the_hidden_size_where_that_is_whole():
    config = {key: value for key, value in GLM_4_7.items() if key != "head_dim"} | {"hidden_size": 12288}
    assert full_size(config).kv_bytes_per_token(1) == full_size(
        config | {"head_dim": 128}
    ).kv_bytes_per_token(1)


def test_a_folder_without_a_readable_config(tmp_path):
    with pytest.raises(RecipeError, match=r"holds no config\.json"):
        find_model(tmp_path)
    tmp_path.joinpath("config.json").write_text("{", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"config\.json: not valid JSON"):
        find_model(tmp_path)
    with pytest.raises(RecipeError, match="is a file; give the folder"):
        find_model(tmp_path / "config.json")


def test_to_json_keeps_the_contract():
    printed = json.loads(json.dumps(find_model("tiny/glm4-moe").to_json()))
    assert {
        "name": "tiny/glm4-moe",
        "total_params": 7_256_368,
        "active_params": 2_865_456,
        "layers": 4,
        "attention": "gqa",
        "disagreements": [],
    }.items() <= printed.items()


def test_a_model_is_frozen_and_takes_no_unknown_field():
    with pytest.raises(ValueError, match="frozen"):
        setattr(find_model("tiny/glm4-moe"), "name", "other")  # noqa: B010 (mypy knows better, too)
    with pytest.raises(ValueError, match="Extra inputs"):
        Model.model_validate({"name": "x", "size": 3})


def test_shapes_read_a_config_without_a_file():
    assert ModelShape.parse(GLM_5_1, "GLM-5.1").attention == "mla+dsa"


def test_the_catalog_imports_nothing_heavy():
    code = (
        "import sys, glmlab.catalog, glmlab.recipe_book, glmlab.hardware, glmlab.diagnosis;"
        "print([name for name in ('vllm', 'torch', 'optuna', 'pynvml') if name in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == "[]"
