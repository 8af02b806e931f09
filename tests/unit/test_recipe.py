from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmlab.errors import RecipeError
from glmlab.recipe import OWN_FIELD, Recipe

MINIMAL = {"name": "unit", "model": "tiny/glm4-moe"}
FILE = """\
# Of the working machine, May 2026.
model: tiny/glm4-moe
name: mine # as I call it

# 256 MiB are enough here
kv_cache_bytes: 268435456
block_size: 32 # the smallest
engine_args:
  # a comment inside
  max_logprobs: 5
"""


def recipe(**fields: Any) -> Recipe:
    return Recipe.parse({**MINIMAL, **fields})


def refusal(**fields: Any) -> str:
    with pytest.raises(RecipeError) as error:
        recipe(**fields)
    message = str(error.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------ YAML
@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(FILE, encoding="utf-8")
    return path


def test_a_file_that_was_only_read_is_written_back_to_the_letter(file, tmp_path):
    Recipe.load(file).save(tmp_path / "copy.yaml")
    assert (tmp_path / "copy.yaml").read_text(encoding="utf-8") == FILE


def test_a_change_keeps_all_comments_and_the_order(file):
    changed = Recipe.load(file).replace(block_size=64, seed=3)
    assert changed.to_yaml() == FILE.replace("block_size: 32", "block_size: 64") + "seed: 3\n"


def test_a_field_set_back_to_its_default_leaves_the_file(file):
    assert "block_size" not in Recipe.load(file).replace(block_size=None).to_yaml()


def test_writing_one_copy_leaves_the_others_as_they_were(file):
    original = Recipe.load(file)
    original.replace(block_size=64).to_yaml()
    assert original.to_yaml() == FILE


LABEL = st.text(string.ascii_letters + string.digits, min_size=1, max_size=8)
RECIPES = st.builds(
    recipe,
    notes=st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=30),
    block_size=st.none() | st.integers(1, 512),
    cpu_split_kv=st.none() | st.booleans(),
    gpu_memory_utilization=st.none() | st.floats(0.01, 1.0),
    cudagraph_capture_sizes=st.none() | st.lists(st.integers(1, 64), max_size=4).map(tuple),
    quantization=st.none()
    | LABEL
    | st.sampled_from(["yes", "null", "1e3", "0x10", "1_000", "~", "2026-05-01"]),
    engine_args=st.dictionaries(LABEL.map("x_{}".format), st.integers() | LABEL | st.booleans(), max_size=3),
    env=st.dictionaries(LABEL, LABEL | st.sampled_from(["1", "true", ""]), max_size=3),
)


@given(RECIPES)
def test_every_recipe_survives_yaml(tmp_path_factory, made):
    path = tmp_path_factory.getbasetemp() / "round-trip.yaml"
    made.save(path)
    assert Recipe.load(path).model_dump() == made.model_dump()


def test_recipes_are_equal_if_their_fields_are_wherever_they_were_read(file):
    loaded = Recipe.load(file)
    assert loaded == Recipe.parse(loaded.model_dump())
    assert recipe(seed=0) == recipe()


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("name: a\nmodel: [b\n", "line 3, column 1"),
        ("name: a\n  model: b\n", "line 2, column 8"),
        ("name: a\nmodel: b\nname: c\n", "line 3, column 1"),
        ("name: a\nmodel: b\n\tseed: 1\n", "line 3, column 1"),
    ],
    ids=["open list", "indent", "duplicate key", "tab"],
)
def test_broken_yaml_names_file_line_and_column_in_one_line(tmp_path, text, place):
    path = tmp_path / "broken.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        Recipe.load(path)
    assert str(error.value).startswith(f"{path}: {place}: not valid YAML, ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "- a\n", "just words\n"])
def test_yaml_that_is_no_mapping_is_no_recipe(tmp_path, text):
    path = tmp_path / "list.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"list\.yaml: expected keys and values, found"):
        Recipe.load(path)


# ------------------------------------------------------------------------------ refusals
def test_unknown_keys_are_refused_with_their_values_in_one_line():
    message = refusal(tensor_paralel=2, blok_size=64)
    assert message == "recipe: tensor_paralel = 2: unknown key; blok_size = 64: unknown key"


def test_missing_keys_are_named():
    with pytest.raises(RecipeError, match=r"^recipe: name: missing; model: missing$"):
        Recipe.parse({})


@pytest.mark.parametrize(
    ("field", "value", "shown"),
    [
        ("tensor_parallel", True, "tensor_parallel = True"),
        ("max_num_seqs", 2.0, "max_num_seqs = 2.0"),
        ("max_num_seqs", "many", "max_num_seqs = 'many'"),
        ("block_size", 0, "block_size = 0"),
        ("seed", -1, "seed = -1"),
        ("seed", False, "seed = False"),
        ("prefix_caching", "yes", "prefix_caching = 'yes'"),
        ("cpu_split_kv", 1, "cpu_split_kv = 1"),
        ("gpu_memory_utilization", 1.5, "gpu_memory_utilization = 1.5"),
        ("kv_cache_dtype", "fp7", "kv_cache_dtype = 'fp7'"),
        ("cudagraph_capture_sizes", [1, 0], "cudagraph_capture_sizes.1 = 0"),
        ("name", "a b", "name = 'a b'"),
        ("env", {"A": 1}, "env.A = 1"),
    ],
)
def test_a_wrong_value_is_refused_with_its_field_and_itself(field, value, shown):
    assert refusal(**{field: value}).startswith(f"recipe: {shown}: ")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"max_num_batched_tokens": 8, "max_num_seqs": 16},
            "max_num_batched_tokens = 8 is below max_num_seqs = 16",
        ),
        ({"kv_cache_bytes": 1, "gpu_memory_utilization": 0.5}, "both size the KV pool: keep one"),
        (
            {"enforce_eager": True, "cudagraph_mode": "FULL"},
            "enforce_eager = true contradicts cudagraph_mode = 'FULL'",
        ),
    ],
)
def test_fields_that_contradict_each_other_are_refused(fields, said):
    assert said in refusal(**fields)


@pytest.mark.parametrize("argument", sorted(OWN_FIELD))
def test_an_engine_argument_with_a_field_of_its_own_is_sent_there(argument):
    message = refusal(engine_args={argument: 1})
    field = OWN_FIELD[argument]
    assert message == f"recipe: engine_args.{argument}: has a recipe field of its own, set {field!r} instead"
    assert field in Recipe.model_fields


def test_replace_judges_anew_and_names_the_recipe():
    with pytest.raises(RecipeError, match=r"^recipe unit: max_num_batched_tokens = 8 is below"):
        recipe().replace(max_num_batched_tokens=8)


def test_a_recipe_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        setattr(recipe(), "seed", 1)  # noqa: B010


# ------------------------------------------------------------------------------ fingerprint and diff
def test_the_fingerprint_of_a_recipe_never_changes_between_versions():
    assert recipe(block_size=64, env={"B": "1", "A": "2"}).fingerprint == "3ba5ecd0fb7b"


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "other"},
        {"notes": "words"},
        {"seed": 0},
        {"max_num_seqs": 16, "prefix_caching": True},
        {"env": {}},
    ],
)
def test_labels_and_spelled_out_defaults_leave_the_fingerprint(changes):
    assert recipe(**changes).fingerprint == recipe().fingerprint


def test_the_order_of_keys_leaves_the_fingerprint():
    one, other = recipe(env={"A": "1", "B": "2"}, seed=1), recipe(seed=1, env={"B": "2", "A": "1"})
    assert one.fingerprint == other.fingerprint


OTHER = {
    "model": "tiny/glm4-moe-lite", "weights": "dummy", "dtype": "float16", "quantization": "fp8",
    "max_model_len": 64, "trust_remote_code": True, "kv_cache_dtype": "fp8", "kv_cache_bytes": 1,
    "gpu_memory_utilization": 0.5, "block_size": 64, "prefix_caching": False, "tensor_parallel": 2,
    "pipeline_parallel": 2, "expert_parallel": True, "attention_backend": "X", "moe_backend": "X",
    "linear_backend": "X", "enforce_eager": True, "cudagraph_mode": "FULL", "cudagraph_capture_sizes": (1,),
    "cpu_threads": 2, "cpu_split_kv": False, "cpu_attn_isa": "amx", "max_num_seqs": 8,
    "max_num_batched_tokens": 64, "long_prefill_token_threshold": 8, "seed": 1,
    "serving_engine": "sglang", "versions": {"vllm": "0.32.0"}, "data_parallel": 2,
    "decode_context_parallel": 2, "custom_all_reduce": False, "dense_mla": True, "mtp_tokens": 1,
    "kv_splits": 64, "kv_split_min_grid": 64, "flash_attn_max_splits": 8, "attn_decode_tile": 32,
    "attn_decode_warps": 8, "attn_decode_stages": 2, "attn_prefill_tile": 64, "attn_prefill_warps": 8,
    "attn_prefill_stages": 2, "moe_tiles": "16x64x64 g1 w4 s3", "fp8_gemm_tiles": "64x64x64 g8 w4 s3",
    "engine_args": {"max_logprobs": 1}, "env": {"A": "1"},
}  # fmt: skip


def test_the_fields_below_are_all_that_there_are():
    assert set(OTHER) == set(Recipe.model_fields) - {"name", "notes"}


@pytest.mark.parametrize("field", OTHER)
def test_every_field_changes_the_fingerprint_and_shows_in_the_diff(field):
    base, changed = recipe(), recipe().replace(**{field: OTHER[field]})
    assert changed.fingerprint != base.fingerprint
    assert base.diff(changed) == {field: (getattr(base, field), OTHER[field])}


def test_a_recipe_does_not_differ_from_itself():
    assert recipe(seed=1).diff(recipe(seed=1)) == {}


def test_a_notebook_shows_the_recipe_as_text_not_as_markup():
    assert "&lt;script&gt;" in recipe(notes="<script>")._repr_html_()
