"""space.plans: combinations of rebuild knobs, and that a search visits no others."""

from __future__ import annotations

from typing import Any

import pytest

from glmlab.errors import KnobError
from glmlab.knobs import KnobSpace, Params, params_key
from glmlab.recipe import Recipe
from glmlab.search import Past, Search
from glmlab.session.wishes import checked_wish
from glmlab.study_spec import StudySpec

RECIPE = Recipe(name="r", model="tiny/glm4-moe", weights="random")
PLANS = [{"tensor_parallel": 4}, {"tensor_parallel": 2, "pipeline_parallel": 2}, {"pipeline_parallel": 4}]


def space(**others: Any) -> KnobSpace:
    return KnobSpace.parse({"plans": PLANS, **others}, RECIPE)


def pairs(found: Any) -> list[tuple[Any, Any]]:
    return [(point["tensor_parallel"], point["pipeline_parallel"]) for point in found]


def test_a_knob_that_a_plan_leaves_out_has_the_recipes_value():
    assert pairs(space().plans) == [(4, 1), (2, 2), (1, 4)]


def test_the_grid_holds_the_plans_and_no_other_combination():
    assert sorted(pairs(space().grid())) == [(1, 4), (2, 2), (4, 1)]
    with_live = space(max_num_seqs=[2, 4])
    assert len(list(with_live.grid())) == with_live.upper_count == 6
    assert with_live.plan_count == 3
    assert with_live.live == ("max_num_seqs",)
    assert set(with_live.rebuild) == {"tensor_parallel", "pipeline_parallel"}


def test_other_rebuild_knobs_are_crossed_with_the_plans():
    found = space(block_size=[16, 32])
    assert found.plan_count == found.upper_count == 6
    assert len(list(found.grid())) == 6


def test_it_is_written_as_it_was_read():
    spec = space(max_num_seqs=[2, 4]).as_spec()
    assert list(spec) == ["plans", "max_num_seqs"]
    again = KnobSpace.parse(spec, RECIPE)
    assert again.fingerprint == space(max_num_seqs=[2, 4]).fingerprint
    assert again.fingerprint != KnobSpace.parse({"max_num_seqs": [2, 4]}, RECIPE).fingerprint


def test_a_space_without_plans_is_what_it_was():
    found = KnobSpace.parse({"tensor_parallel": [1, 2], "pipeline_parallel": [1, 2]}, RECIPE)
    assert found.plans == ()
    assert found.plan_count == found.upper_count == 4
    assert found.allows({"tensor_parallel": 2, "pipeline_parallel": 2})


def test_the_baseline_becomes_a_plan_of_its_own():
    baseline = {"tensor_parallel": 1, "pipeline_parallel": 1, "max_num_seqs": 16}
    grown = space(max_num_seqs=[2, 4]).with_point(baseline)
    assert grown.allows(baseline)
    assert (1, 1) in pairs(grown.grid())
    assert len(list(grown.grid())) == 4 * 3
    assert space().with_point({"tensor_parallel": 2, "pipeline_parallel": 2}).plans == space().plans


def test_a_condition_on_a_knob_of_the_plans():
    found = space(block_size={"values": [16, 32], "when": {"tensor_parallel": [4]}})
    points = list(found.grid())
    assert len(points) == 2 + 1 + 1
    assert all(("block_size" in point) == (point["tensor_parallel"] == 4) for point in points)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ([], "space.plans: is empty"),
        ({"tensor_parallel": 4}, "expected a list of plans"),
        ("tp4", "expected a list of plans"),
        ([4], "space.plans, number 1: expected knobs and their values"),
        ([{}], "space.plans, number 1: is empty"),
        ([{"tensor_paralel": 4}], "number 1: tensor_paralel: no such knob; did you mean tensor_parallel"),
        ([{"kv_splits": 4}], "number 1: kv_splits is changed in the running engine"),
        ([{"tensor_parallel": 4}, {"tensor_parallel": 4}], "number 2 is the same plan as number 1"),
        ([{"tensor_parallel": 1}, {"pipeline_parallel": 1}], "number 2 is the same plan as number 1"),
        ([{"tensor_parallel": 0}], "space.tensor_parallel"),
        ([{"tensor_parallel": "four"}], "space.tensor_parallel"),
        ([{"tensor_parallel": [1, 2]}], "space.tensor_parallel"),
        ([{"tensor_parallel": 2}, {"block_size": 32}], "block_size is in some plans only"),
    ],
)
def test_what_is_no_list_of_plans(body, said):
    with pytest.raises(KnobError) as error:
        KnobSpace.parse({"plans": body}, RECIPE)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_knob_is_listed_in_one_place():
    with pytest.raises(KnobError, match=r"tensor_parallel: is in space\.plans, too"):
        space(tensor_parallel=[1, 2])


def test_true_is_not_one():
    plans = [
        {"expert_parallel": True, "tensor_parallel": 1},
        {"expert_parallel": False, "tensor_parallel": 1},
    ]
    found = KnobSpace.parse({"plans": plans}, RECIPE)
    assert len(list(found.grid())) == 2
    with pytest.raises(KnobError):
        KnobSpace.parse({"plans": [{"expert_parallel": 1}]}, RECIPE)


# ---------------------------------------------------------------------- searching
def visited(found: KnobSpace, *, trials: int, budget: int | None) -> list[dict[str, Any]]:
    baseline: Params = {"tensor_parallel": 4, "pipeline_parallel": 1, "max_num_seqs": 2}
    search = Search(found, baseline, maximize=[False], seed=3, budget=budget)
    points: list[dict[str, Any]] = []
    for number in range(trials):
        point = search.next(live_per_plan=2)
        if point is None:
            break
        points.append(point)
        search.tell(Past(point, (float(number % 5),), {}))
    return points


@pytest.mark.parametrize("budget", [None, 4])
def test_a_search_visits_plans_only_and_each_point_once(budget):
    found = space(max_num_seqs=[2, 4, 8])
    points = visited(found, trials=20, budget=budget)
    assert len(points) == 9
    assert len({params_key(point) for point in points}) == 9
    assert all(found.allows(point) for point in points)


def test_a_space_too_large_to_list_is_sampled_among_the_plans():
    found = space(max_num_seqs={"low": 2, "high": 60_000})
    points = visited(found, trials=16, budget=16)
    assert len(points) == 16
    assert all(found.allows(point) for point in points)
    assert len({point["tensor_parallel"] for point in points}) > 1


def test_a_wish_must_be_one_of_the_plans():
    baseline: Params = {"tensor_parallel": 4, "pipeline_parallel": 1}
    wish = checked_wish(space(), baseline, [], {"tensor_parallel": 2, "pipeline_parallel": 2})
    assert (wish["tensor_parallel"], wish["pipeline_parallel"]) == (2, 2)
    with pytest.raises(KnobError, match=r"is none of the plans of this study; name each of tensor_parallel"):
        checked_wish(space(), baseline, [], {"tensor_parallel": 2})


def test_a_study_file_with_plans():
    text = """
    study: plans
    recipe: {name: r, model: tiny/glm4-moe, weights: random, tensor_parallel: 2}
    space:
      plans:
        - {tensor_parallel: 2}
        - {tensor_parallel: 1, pipeline_parallel: 2}
      max_num_seqs: [2, 4]
    """
    spec = StudySpec.parse_text(text)
    assert pairs(spec.knob_space.plans) == [(2, 1), (1, 2)]
    assert spec.identity()["space"]["plans"][1] == {"tensor_parallel": 1, "pipeline_parallel": 2}


def test_the_study_editor_carries_listed_plans_along():
    pytest.importorskip("ipywidgets")
    from glmlab.widgets.study_draft import StudyDraft

    space_of = {"plans": PLANS, "max_num_seqs": [2, 4]}
    spec = StudySpec.parse({"study": "s", "recipe": RECIPE, "space": space_of})
    judged = StudyDraft.of(spec).judge()
    assert judged.refusals == {}
    assert StudySpec.parse_text(judged.text).knob_space.fingerprint == spec.knob_space.fingerprint
    assert "in 4 plans" in judged.grid  # with the recipe's own
