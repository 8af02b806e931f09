"""What is tried next. Everything here is real; "measuring" is a formula."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import pytest

from glmlab.knobs import KnobSpace, params_key
from glmlab.recipe import Recipe
from glmlab.search import Past, Search

Params = dict[str, Any]
Value = Callable[[Params], Any]
Violations = Callable[[Params], dict[str, float]]

RECIPE = Recipe.parse({"name": "unit", "model": "tiny/glm4-moe"})
LISTED = KnobSpace.parse(
    {"cpu_split_kv": [True, False], "max_num_seqs": [4, 8], "block_size": [32, 64], "cpu_threads": [1, 2]},
    RECIPE,
)
LISTED_BASE = {"cpu_split_kv": True, "max_num_seqs": 8, "block_size": 64, "cpu_threads": 1}
# 2 x 32 x 128 points: more than are ever listed.
LARGE = KnobSpace.parse(
    {
        "block_size": [32, 64],
        "max_num_seqs": {"low": 1, "high": 32},
        "max_num_batched_tokens": {"low": 32, "high": 4096, "step": 32},
    },
    RECIPE,
)
LARGE_BASE = {"block_size": 32, "max_num_seqs": 32, "max_num_batched_tokens": 4096}
CONDITIONAL = KnobSpace.parse(
    {
        "cpu_split_kv": [True, False],
        "max_num_seqs": {"values": [2, 4, 8, 16], "when": {"cpu_split_kv": True}},
        "cpu_threads": {"values": [1, 2, 4], "when": {"max_num_seqs": [8, 16]}},
        "block_size": [32, 64, 128],
    },
    RECIPE,
)
CONDITIONAL_BASE = {"cpu_split_kv": True, "max_num_seqs": 4, "cpu_threads": 1, "block_size": 32}


def bowl(params: Params) -> Any:
    """Best at 16 sequences and 2048 tokens."""
    return (
        1.0
        + abs(params["max_num_seqs"] - 16) / 16
        + abs(params["max_num_batched_tokens"] - 2048) / 2048
        + (params["block_size"] == 64)
    )


def result(params: Params, value: Value = bowl, violations: dict[str, float] | None = None) -> Past:
    values = value(params)
    return Past(
        params, values if values is None or isinstance(values, tuple) else (values,), violations or {}
    )


def search(
    space: KnobSpace,
    baseline: Params,
    *,
    seed: int = 0,
    budget: int | None = None,
    maximize: tuple[bool, ...] = (False,),
    past: Iterable[Past] = (),
    predicted_ms: Mapping[str, float] | None = None,
) -> Search:
    made = Search(space, baseline, maximize=maximize, seed=seed, budget=budget, predicted_ms=predicted_ms)
    for item in past:
        made.tell(item)
    return made


def go_on(
    engine: Search, count: int, value: Value = bowl, violations: Violations = lambda params: {}
) -> list[Past]:
    """Propose and tell, up to so many times."""
    pasts = []
    for _ in range(count):
        params = engine.next()
        if params is None:
            break
        pasts.append(result(params, value, violations(params)))
        engine.tell(pasts[-1])
    return pasts


def points(pasts: Iterable[Past]) -> list[Params]:
    return [p.params for p in pasts]


# ------------------------------------------------------------------------------ listed spaces
@pytest.mark.parametrize(
    ("space", "baseline"), [(LISTED, LISTED_BASE), (LARGE, LARGE_BASE), (CONDITIONAL, CONDITIONAL_BASE)]
)
@pytest.mark.parametrize("budget", [None, 3])
def test_the_baseline_comes_first_without_its_inactive_knobs(space, baseline, budget):
    assert search(space, baseline, budget=budget).next() == space.active(baseline)


def test_asking_twice_without_an_answer_gives_the_same_point():
    engine = search(LARGE, LARGE_BASE)
    go_on(engine, 6)
    assert engine.next() == engine.next()


def test_a_space_that_fits_the_budget_is_visited_once_each_and_then_over():
    engine = search(LISTED, LISTED_BASE, budget=16)
    visited = points(go_on(engine, 100, value=lambda p: 1.0))
    assert sorted(map(params_key, visited)) == sorted(map(params_key, LISTED.grid()))
    assert engine.next() is None


@pytest.mark.parametrize("seed", range(3))
def test_a_listed_space_goes_plan_by_plan_the_baselines_first(seed):
    visited = points(go_on(search(LISTED, LISTED_BASE, seed=seed), 100, value=lambda p: 1.0))
    plans = [params_key(plan) for plan, _ in itertools.groupby(visited, key=LISTED.plan)]
    assert len(plans) == len(set(plans)) == 4
    assert plans[0] == params_key(LISTED.plan(LISTED_BASE))


def test_plans_that_something_is_predicted_of_come_after_the_baselines_the_fastest_first():
    plans = list({params_key(plan): None for plan in map(LISTED.plan, LISTED.grid())})
    first = params_key(LISTED.plan(LISTED_BASE))
    slow, fast, unknown = [plan for plan in plans if plan != first]
    made = search(LISTED, LISTED_BASE, predicted_ms={slow: 9.0, fast: 3.0})
    visited = points(go_on(made, 100, value=lambda p: 1.0))
    order = [params_key(plan) for plan, _ in itertools.groupby(visited, key=LISTED.plan)]
    assert order == [first, fast, slow, unknown]


# ------------------------------------------------------------------------------ seeds and resume
@pytest.mark.parametrize(("space", "baseline"), [(LISTED, LISTED_BASE), (LARGE, LARGE_BASE)])
def test_the_seed_alone_decides(space, baseline):
    value = bowl if space is LARGE else lambda p: 1.0
    one, same, other = (points(go_on(search(space, baseline, seed=seed), 14, value)) for seed in (1, 1, 2))
    assert one == same
    assert one != other


@pytest.mark.parametrize(
    ("space", "baseline", "value", "maximize"),
    [
        (LISTED, LISTED_BASE, lambda p: 1.0, (False,)),
        (LARGE, LARGE_BASE, bowl, (False,)),
        (LARGE, LARGE_BASE, lambda p: None if p["block_size"] == 64 else bowl(p), (False,)),
        (LARGE, LARGE_BASE, lambda p: (bowl(p), float(p["max_num_seqs"])), (False, True)),
        (CONDITIONAL, CONDITIONAL_BASE, lambda p: float(p["block_size"]), (False,)),
    ],
    ids=["listed", "sampled", "with failures", "two objectives", "conditional"],
)
def test_a_search_rebuilt_from_its_past_goes_on_as_if_never_interrupted(space, baseline, value, maximize):
    budget = None if space is LISTED else 15
    whole = go_on(search(space, baseline, budget=budget, maximize=maximize), 15, value)
    assert len(whole) == 15
    for cut in range(1, 15):
        rebuilt = search(space, baseline, budget=budget, maximize=maximize, past=whole[:cut])
        assert rebuilt.next() == whole[cut].params


# ------------------------------------------------------------------------------ sampled spaces
@pytest.mark.parametrize("seed", range(3))
def test_a_small_space_beyond_its_budget_is_sampled_without_duplicates_until_all_are_seen(seed):
    engine = search(LISTED, LISTED_BASE, seed=seed, budget=5)
    visited = [params_key(p) for p in points(go_on(engine, 100, value=lambda p: float(p["max_num_seqs"])))]
    assert len(visited) == len(set(visited)) == LISTED.upper_count
    assert engine.next() is None


def test_a_large_space_gives_no_duplicates_over_a_long_run():
    visited = [params_key(p) for p in points(go_on(search(LARGE, LARGE_BASE), 80))]
    assert len(set(visited)) == 80


def test_every_proposal_is_a_point_of_the_space():
    for params in points(go_on(search(LARGE, LARGE_BASE), 30)):
        assert all(params[d.name] in d for d in LARGE)


@pytest.mark.parametrize("budget", [None, 10], ids=["listed", "sampled"])
def test_conditions_are_respected(budget):
    visited = points(go_on(search(CONDITIONAL, CONDITIONAL_BASE, budget=budget), 100, lambda p: 1.0))
    assert all(params == CONDITIONAL.active(params) for params in visited)
    assert all(tuple(params) == CONDITIONAL.active_names(params) for params in visited)
    assert len(visited) == len(list(CONDITIONAL.grid())) == 3 * (1 + 2 + 2 * 3)


def late(
    value: Value, violations: Violations = lambda params: {}, maximize: tuple[bool, ...] = (False,)
) -> Iterator[Any]:
    """The last third of 60 proposals, for each of five seeds."""
    for seed in range(5):
        engine = search(LARGE, LARGE_BASE, seed=seed, budget=60, maximize=maximize)
        yield from go_on(engine, 60, value, violations)[40:]


def test_the_sampler_learns_where_it_is_fast():
    found = [p.values[0] for p in late(bowl)]
    assert sum(found) / len(found) < 2.0  # by chance: 2.5, give or take 0.06


def test_a_sampled_search_stays_in_a_plan_for_some_live_trials():
    visited = points(go_on(search(LARGE, LARGE_BASE, budget=40), 40))
    changes = sum(a["block_size"] != b["block_size"] for a, b in itertools.pairwise(visited))
    assert changes <= 40 / 4


def test_a_plan_that_has_nothing_left_is_not_stayed_in():
    engine = search(LISTED, LISTED_BASE, budget=5)
    plan = LISTED.plan(LISTED_BASE)
    for point in [p for p in LISTED.grid() if LISTED.plan(p) == plan]:
        engine.tell(result(point, lambda p: 1.0))
    following = engine.next(live_per_plan=100)
    assert following is not None
    assert LISTED.plan(following) != plan


# ---------------------------------------------------------------------------- failures and objectives
def test_failures_steer_the_sampler_away_although_it_is_fast_beside_them():
    failed = [p.values is None for p in late(lambda p: None if p["max_num_seqs"] > 8 else bowl(p))]
    assert sum(failed) / len(failed) < 0.6  # by chance: 0.75, give or take 0.04


def test_a_failure_is_not_proposed_again():
    pasts = go_on(search(LARGE, LARGE_BASE, budget=60), 60, lambda p: None if p != LARGE_BASE else 1.0)
    assert len({params_key(p.params) for p in pasts}) == 60


def test_a_broken_constraint_steers_the_sampler_away_although_it_is_faster_there():
    kept = [
        p.violations["kv_tokens"] <= 0
        for p in late(lambda p: 33.0 - p["max_num_seqs"], lambda p: {"kv_tokens": p["max_num_seqs"] - 8.0})
    ]
    assert sum(kept) / len(kept) > 0.4  # by chance: 0.25, give or take 0.04


def test_a_maximized_objective_is_sought_at_its_top():
    found = [p.values[0] for p in late(lambda p: -bowl(p), maximize=(True,))]
    assert sum(found) / len(found) > -2.0  # by chance: -2.5, give or take 0.06


def two_objectives(params: Params) -> tuple[float, float]:
    """Both are best at few sequences; they disagree about the tokens."""
    tokens = params["max_num_batched_tokens"]
    return params["max_num_seqs"] + tokens / 4096, params["max_num_seqs"] + 1 - tokens / 4096


def test_several_objectives_are_proposed_without_duplicates_and_past_failures():
    def sometimes(params: Params) -> tuple[float, float] | None:
        return None if params["block_size"] == 64 else two_objectives(params)

    pasts = go_on(search(LARGE, LARGE_BASE, budget=30, maximize=(False, False)), 30, sometimes)
    assert len({params_key(p.params) for p in pasts}) == 30


def test_several_objectives_are_searched_better_than_by_chance():
    drawn = [p.params["max_num_seqs"] for p in late(two_objectives, maximize=(False, False))]
    assert sum(drawn) / len(drawn) < 12  # by chance: 16.5, give or take 0.9
