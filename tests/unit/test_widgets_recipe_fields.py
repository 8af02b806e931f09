"""The form knows every field of the recipe, from its schema."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmlab.errors import RecipeError
from glmlab.knob_table import KNOBS
from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe, list_recipes
from glmlab.widgets.recipe_fields import GROUPS, recipe_fields

FIELDS = recipe_fields()


def test_every_field_is_in_exactly_one_group():
    placed = Counter(name for names in GROUPS.values() for name in names)
    assert set(placed) == set(Recipe.model_fields)
    assert set(placed.values()) == {1}


def test_every_field_says_what_it_is():
    assert [field.name for field in FIELDS.values() if not field.help] == []


def test_reach_is_the_knob_tables():
    for name, knob in KNOBS.items():
        assert FIELDS[name].reach == knob.reach
        assert FIELDS[name].help == knob.help
    others = {name: field.reach for name, field in FIELDS.items() if name not in KNOBS}
    assert {name for name, reach in others.items() if reach == "label"} == {"name", "notes", "versions"}
    assert "live" not in others.values()


def test_defaults_are_the_recipes():
    plain = Recipe(name="unit", model="tiny/glm4-moe")
    for name, field in FIELDS.items():
        if not field.needed:
            assert field.read("") == getattr(plain, name)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("max_num_seqs", "1 or more"),
        ("kv_splits", "0 or more"),
        ("gpu_memory_utilization", "above 0 to 1"),
        ("kv_cache_dtype", ""),
        ("moe_tiles", "tiles, such as 16x64x128 g1 w4 s3"),
        ("env", "lines of key: value"),
    ],
)
def test_the_range_is_told_in_words(name, words):
    assert FIELDS[name].range == words


@pytest.mark.parametrize("name", list_recipes())
def test_what_is_shown_of_a_recipe_reads_back_as_the_same_recipe(name):
    recipe = find_recipe(name)
    texts = {field: FIELDS[field].written(getattr(recipe, field)) for field in FIELDS}
    read = {
        field: {"true": True, "false": False}.get(text, FIELDS[field].read(text))
        if FIELDS[field].kind == "flag"
        else FIELDS[field].read(text)
        for field, text in texts.items()
    }
    assert Recipe.parse(read) == recipe


@given(st.integers(min_value=1, max_value=10**12))
def test_whole_numbers_read_back_with_and_without_commas(number):
    field = FIELDS["kv_cache_bytes"]
    assert field.read(field.written(number)) == number
    assert field.read(f"{number:,}") == number


@pytest.mark.parametrize(
    ("name", "typed", "message"),
    [
        ("max_num_seqs", "four", "max_num_seqs = 'four': expected a whole number"),
        ("max_num_seqs", "2.5", "expected a whole number"),
        ("gpu_memory_utilization", "most", "expected a number"),
        ("cudagraph_capture_sizes", "1, two", "cudagraph_capture_sizes = 'two': expected a whole number"),
        ("env", "A", "expected lines of key: value"),
        ("env", "A: [1", "not valid YAML"),
        ("name", "  ", "name: must not be empty"),
    ],
)
def test_what_is_of_another_kind_is_refused_in_one_line(name, typed, message):
    with pytest.raises(RecipeError) as refused:
        FIELDS[name].read(typed)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_versions_and_variables_stay_text_letter_by_letter():
    assert FIELDS["versions"].read("vllm: 0.30\nflashinfer: '0.6.10'") == {
        "vllm": "0.30",
        "flashinfer": "0.6.10",
    }
    assert FIELDS["env"].read("A: 1\nB: true  # on\nC: 0x10") == {"A": "1", "B": "true", "C": "0x10"}
    assert FIELDS["engine_args"].read("enable_x: true\nn: 3") == {"enable_x": True, "n": 3}


def test_a_list_is_read_with_commas():
    assert FIELDS["cudagraph_capture_sizes"].read("1, 2,4") == [1, 2, 4]
