from __future__ import annotations

from types import MappingProxyType

import pytest

from glmlab.catalog import find_model
from glmlab.errors import RecipeError
from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe, list_recipes


@pytest.fixture(autouse=True)
def no_own_data(monkeypatch):
    monkeypatch.delenv("GLMLAB_DATA", raising=False)


def test_the_tiny_recipes_are_there():
    assert {"tiny-glm4-moe", "tiny-glm4-moe-lite"} <= set(list_recipes())
    assert list(list_recipes()) == sorted(list_recipes())


@pytest.mark.parametrize("name", list_recipes())
def test_a_packaged_recipe_bears_its_files_name_and_a_known_model(name):
    recipe = find_recipe(name)
    assert recipe.name == name
    assert find_model(recipe.model).name == recipe.model


@pytest.mark.parametrize("name", list_recipes())
def test_a_packaged_recipe_round_trips_with_its_comments(name, tmp_path):
    recipe = find_recipe(name)
    recipe.save(tmp_path / "copy.yaml")
    again = Recipe.load(tmp_path / "copy.yaml")
    assert again == recipe
    assert again.fingerprint == recipe.fingerprint
    assert "\n# " in recipe.to_yaml()


@pytest.mark.parametrize("name", ["tiny-glm4-moe", "tiny-glm4-moe-lite"])
def test_the_tiny_recipes_fit_their_models(name):
    recipe = find_recipe(name)
    model = find_model(recipe.model)
    assert recipe.weights == "random"
    assert recipe.enforce_eager
    assert (recipe.max_model_len, recipe.kv_cache_bytes, recipe.max_num_seqs) == (4096, 256 * 2**20, 8)
    assert recipe.max_model_len is not None
    assert recipe.max_model_len <= model.max_model_len
    assert recipe.kv_cache_bytes is not None
    full_load = recipe.max_num_seqs * recipe.max_model_len * model.kv_bytes_per_token(2)
    assert full_load <= recipe.kv_cache_bytes


def test_the_mla_recipe_asks_for_what_vllm_does_with_mla_on_a_cpu():
    recipe = find_recipe("tiny-glm4-moe-lite")
    assert recipe.block_size == 16
    assert not recipe.prefix_caching
    assert recipe.max_num_batched_tokens == recipe.max_model_len


def test_every_form_gives_the_same_recipe(tmp_path):
    recipe = find_recipe("tiny-glm4-moe")
    fields = recipe.model_dump(exclude_defaults=True)
    file = tmp_path / "mine.yaml"
    recipe.save(file)
    assert find_recipe(recipe) is recipe
    for form in (fields, MappingProxyType(fields), file, str(file)):
        assert find_recipe(form) == recipe


def test_a_name_wins_over_a_file_and_a_path_reaches_the_file(tmp_path, monkeypatch):
    changed = find_recipe("tiny-glm4-moe").replace(seed=7)
    changed.save(tmp_path / "tiny-glm4-moe")
    monkeypatch.chdir(tmp_path)
    assert find_recipe("tiny-glm4-moe").seed == 0
    assert find_recipe("./tiny-glm4-moe").seed == 7


def test_own_recipes_are_laid_over_the_packaged(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    recipe = find_recipe("tiny-glm4-moe")
    recipe.replace(seed=3).save(tmp_path / "recipes" / "tiny-glm4-moe.yaml")
    recipe.replace(name="mine").save(tmp_path / "recipes" / "mine.yml")
    (tmp_path / "recipes" / "notes.txt").write_text("no recipe", encoding="utf-8")
    monkeypatch.setenv("GLMLAB_DATA", str(tmp_path))
    assert find_recipe("tiny-glm4-moe").seed == 3
    assert find_recipe("mine").name == "mine"
    assert find_recipe("tiny-glm4-moe-lite").seed == 0
    assert "notes" not in list_recipes()


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("tiny-glm4", "did you mean tiny-glm4-moe"),
        ("tiny-glm4-moe.yaml", "did you mean tiny-glm4-moe"),
        ("/no/such.yaml", "known: "),
    ],
)
def test_an_unknown_recipe_is_one_line_with_the_nearest_names(name, hint):
    with pytest.raises(RecipeError) as error:
        find_recipe(name)
    message = str(error.value)
    assert message.startswith(f"recipe = {name!r}: no such recipe or file; ")
    assert hint in message
    assert "\n" not in message


def test_unknown_keys_are_refused():
    with pytest.raises(RecipeError, match="tensor_paralel = 2: unknown key"):
        find_recipe({"name": "x", "model": "tiny/glm4-moe", "tensor_paralel": 2})


@pytest.mark.parametrize("thing", [3, None, ["tiny-glm4-moe"]])
def test_other_things_are_no_recipes(thing):
    with pytest.raises(RecipeError, match="expected a name, a file or the fields of a recipe"):
        find_recipe(thing)
