from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmlab.dimension import Dimension, same_value
from glmlab.errors import KnobError
from glmlab.knob_table import KNOBS, knob
from glmlab.knobs import KnobSpace, params_key
from glmlab.recipe import Recipe

RECIPE = Recipe.parse({"name": "unit", "model": "tiny/glm4-moe"})


def space(**spec: Any) -> KnobSpace:
    return KnobSpace.parse(spec, RECIPE)


# ------------------------------------------------------------------------------ the table
@pytest.mark.parametrize("name", KNOBS)
def test_every_knob_is_a_field_of_the_recipe_and_explains_itself(name):
    assert name in Recipe.model_fields
    assert KNOBS[name].help


def test_an_unknown_knob_is_answered_with_the_nearest():
    with pytest.raises(KnobError, match=r"^blok_size: no such knob; did you mean block_size"):
        knob("blok_size")


# ------------------------------------------------------------------------------ values and ranges
def test_listed_values_stay_in_their_order_and_keep_their_types():
    dimension = space(kv_cache_dtype=["fp8", "auto"])["kv_cache_dtype"]
    assert dimension.points() == ("fp8", "auto")
    assert (dimension.count, dimension.is_range) == (2, False)


@pytest.mark.parametrize(
    ("body", "points"),
    [
        ({"low": 2, "high": 5}, (2, 3, 4, 5)),
        ({"low": 16, "high": 64, "step": 16}, (16, 32, 48, 64)),
        ({"low": 1, "high": 4, "log": True}, (1, 2, 3, 4)),
    ],
)
def test_a_range_includes_both_ends(body, points):
    dimension = space(max_num_seqs=body)["max_num_seqs"]
    assert dimension.points() == points
    assert dimension.count == len(points)
    assert all(value in dimension for value in points)
    assert dimension.highest == points[-1]


@pytest.mark.parametrize("value", [15, 17, 65, True, "32", 32.0, None])
def test_what_is_not_on_a_range_is_not_in_it(value):
    assert value not in space(max_num_seqs={"low": 16, "high": 64, "step": 16})["max_num_seqs"]


def test_true_and_one_are_two_values():
    assert not same_value(True, 1)
    assert not same_value(0, False)
    assert same_value(1, 1)
    assert 1 not in space(cpu_split_kv=[True, False])["cpu_split_kv"]
    assert True not in space(block_size=[1, 2])["block_size"]
    assert params_key({"a": True}) != params_key({"a": 1})


def test_live_and_rebuild_knobs_are_told_apart():
    made = space(block_size=[32, 64], cpu_split_kv=[True, False], cpu_threads=[1, 2])
    assert made.live == ("cpu_split_kv",)
    assert made.rebuild == ("block_size", "cpu_threads")
    assert made.plan({"cpu_split_kv": True, "block_size": 32}) == {"block_size": 32}


def test_only_limits_that_can_just_be_lowered_have_a_ceiling():
    made = space(
        max_num_seqs=[4, 16, 8], block_size=[32, 64], long_prefill_token_threshold={"low": 0, "high": 9}
    )
    assert made.highest() == {"max_num_seqs": 16}


# ------------------------------------------------------------------------------ conditions
CONDITIONAL = {
    # Given before what it depends on, twice over.
    "cpu_threads": {"values": [1, 2], "when": {"block_size": 64}},
    "block_size": {"low": 32, "high": 64, "step": 32, "when": {"cpu_split_kv": [True]}},
    "cpu_split_kv": [True, False],
}


@pytest.mark.parametrize(
    ("params", "active"),
    [
        (
            {"cpu_threads": 2, "block_size": 64, "cpu_split_kv": True},
            ["cpu_threads", "block_size", "cpu_split_kv"],
        ),
        ({"cpu_threads": 2, "block_size": 32, "cpu_split_kv": True}, ["block_size", "cpu_split_kv"]),
        ({"cpu_threads": 2, "block_size": 64, "cpu_split_kv": False}, ["cpu_split_kv"]),
    ],
)
def test_a_knob_is_active_only_where_its_condition_and_that_ones_hold(params, active):
    made = space(**CONDITIONAL)
    assert list(made.active(params)) == active
    assert list(made.active_names(params)) == active


def test_the_grid_of_a_conditional_space_has_every_point_once():
    points = list(space(**CONDITIONAL).grid())
    assert len(points) == len({params_key(p) for p in points}) == 1 + 1 + 2


def test_a_condition_on_true_is_not_met_by_one():
    dimension = space(**CONDITIONAL)["block_size"]
    assert not dimension.is_active({"cpu_split_kv": 1})


SPECS = st.fixed_dictionaries(
    {"cpu_split_kv": st.just([True, False])},
    optional={
        "block_size": st.lists(st.sampled_from([16, 32, 64]), min_size=1, unique=True),
        "max_num_seqs": st.tuples(st.integers(1, 5), st.integers(1, 5)).map(
            lambda pair: {"low": pair[0], "high": sum(pair)}
        ),
        "cpu_threads": st.lists(st.integers(1, 4), min_size=1, unique=True).map(
            lambda values: {"values": values, "when": {"cpu_split_kv": [True]}}
        ),
    },
)


@given(SPECS)
def test_the_grid_is_the_product_with_conditions_applied(spec):
    made = KnobSpace.parse(spec, RECIPE)
    points = [params_key(p) for p in made.grid()]
    product = itertools.product(*(d.points() for d in made))
    expected = {params_key(made.active(dict(zip(spec, row, strict=True)))) for row in product}
    assert len(points) == len(set(points)) <= made.upper_count
    assert set(points) == expected


@given(SPECS)
def test_a_space_written_as_a_study_file_reads_back_as_itself(spec):
    made = KnobSpace.parse(spec, RECIPE)
    again = KnobSpace.parse(made.as_spec(), RECIPE)
    assert again.as_spec() == made.as_spec()
    assert again.fingerprint == made.fingerprint


# ------------------------------------------------------------------------------ bad spaces
@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({}, "space: is empty"),
        (["block_size"], "space: expected knobs and their values, found a list"),
        ({"blok_size": [32]}, "blok_size: no such knob; did you mean block_size"),
        ({7: [32]}, "7: no such knob"),
        ({"block_size": 32}, "space.block_size = 32: expected a list of values"),
        ({"block_size": "32"}, "space.block_size = '32': expected a list of values"),
        ({"block_size": None}, "space.block_size = None: expected a list of values"),
        ({"block_size": []}, "space.block_size: the list of values is empty"),
        ({"block_size": [32, 64, 32]}, "space.block_size: 32 is listed twice"),
        ({"block_size": [32, None]}, "space.block_size: null is no value"),
        ({"block_size": [0]}, "block_size = 0: "),
        ({"block_size": [True]}, "block_size = True: "),
        ({"block_size": [32.0]}, "block_size = 32.0: "),
        ({"block_size": [[32]]}, "block_size = [32]: "),
        ({"cpu_split_kv": [True, 1]}, "cpu_split_kv = 1: "),
        ({"cpu_split_kv": ["yes"]}, "cpu_split_kv = 'yes': "),
        ({"kv_cache_dtype": ["fp7"]}, "kv_cache_dtype = 'fp7': "),
        ({"block_size": {"values": {32: "a", 64: "b"}}}, "space.block_size = {"),
        ({"block_size": {"low": 32, "hihg": 64}}, "space.block_size.hihg: unknown key; did you mean high"),
        ({"block_size": {"low": 32}}, "space.block_size.high: missing"),
        ({"block_size": {"values": [1], "low": 1}}, "space.block_size: give either values or low and high"),
        ({"block_size": {"low": 1.0, "high": 2}}, "space.block_size.low = 1.0: expected a whole number"),
        ({"block_size": {"low": False, "high": 2}}, "space.block_size.low = False: expected a whole number"),
        ({"block_size": {"low": 64, "high": 64}}, "space.block_size: low = 64 must be below high = 64"),
        ({"block_size": {"low": 0, "high": 64}}, "block_size = 0: "),
        ({"block_size": {"low": 1, "high": 8, "step": 3}}, "space.block_size.step = 3: must"),
        ({"block_size": {"low": 1, "high": 8, "step": 0}}, "space.block_size.step = 0: must"),
        ({"block_size": {"low": 1, "high": 8, "log": 1}}, "space.block_size.log = 1: expected true or false"),
        ({"block_size": {"low": 2, "high": 8, "step": 2, "log": True}}, "space.block_size.log: needs"),
        ({"cpu_split_kv": {"low": 0, "high": 1}}, "space.cpu_split_kv: has no range"),
        ({"block_size": {"values": [1], "when": 3}}, "space.block_size.when = 3: expected knob: values"),
        ({"block_size": {"values": [1], "when": {"x": 3}}}, "x: no such knob"),
        (
            {"block_size": {"values": [1], "when": {"cpu_threads": 3}}},
            "space.block_size.when: depends on cpu_threads, which is not in the space",
        ),
        (
            {
                "block_size": {"values": [1], "when": {"cpu_threads": 3}},
                "cpu_threads": {"values": [3], "when": {"block_size": 1}},
            },
            "space.block_size.when: depends on itself",
        ),
        (
            {"cpu_split_kv": [True, False], "block_size": {"values": [1], "when": {"cpu_split_kv": "on"}}},
            "space.block_size.when.cpu_split_kv = 'on'",
        ),
    ],
)
def test_a_bad_space_is_refused_in_one_line_that_names_knob_and_value(spec, said):
    with pytest.raises(KnobError) as error:
        KnobSpace.parse(spec, RECIPE)
    message = str(error.value)
    assert said in message
    assert "\n" not in message


# ------------------------------------------------------------------------------ growing, fingerprint
def test_a_listed_knob_takes_one_more_value_at_its_end():
    grown = space(block_size=[32, 64], cpu_split_kv=[True]).with_value("block_size", 16)
    assert grown.as_spec() == {"block_size": [32, 64, 16], "cpu_split_kv": [True]}


def test_growing_keeps_the_condition():
    grown = space(**CONDITIONAL).with_value("cpu_threads", 4)
    assert grown.as_spec()["cpu_threads"] == {"values": [1, 2, 4], "when": {"block_size": [64]}}


@pytest.mark.parametrize("body", [[32, 64], {"low": 32, "high": 64, "step": 32}])
def test_a_value_that_is_there_already_changes_nothing(body):
    made = space(block_size=body)
    assert made.with_value("block_size", 64) is made


def test_a_range_does_not_grow():
    with pytest.raises(
        KnobError, match=r"space\.block_size: the recipe's own value 16 lies outside 32\.\.64"
    ):
        space(block_size={"low": 32, "high": 64}).with_value("block_size", 16)


@pytest.mark.parametrize(
    "other",
    [
        {"block_size": [32, 64, 128]},
        {"block_size": [64, 32]},
        {"block_size": {"low": 32, "high": 64, "step": 32}},
        {"cpu_threads": [32, 64]},
        {"block_size": [32, 64], "cpu_split_kv": [True]},
    ],
)
def test_the_fingerprint_changes_with_the_space(other):
    assert space(block_size=[32, 64]).fingerprint == space(block_size=[32, 64]).fingerprint
    assert space(**other).fingerprint != space(block_size=[32, 64]).fingerprint


def test_a_space_without_dimensions_cannot_be_built_in_python_either():
    with pytest.raises(KnobError, match="space: is empty"):
        KnobSpace()


def test_a_space_can_be_built_without_a_study_file():
    made = KnobSpace(Dimension(knob=knob("block_size"), low=1, high=3))
    assert [p["block_size"] for p in made.grid()] == [1, 2, 3]
