"""Which plans there are, and that a plan is possible where everything that may refuse it does not."""

from __future__ import annotations

import pytest

from glmlab.catalog import find_model, list_models
from glmlab.errors import RecipeError
from glmlab.feasibility import blocked
from glmlab.gpus import find_gpu
from glmlab.memory import fit
from glmlab.plans import Plan, every_plan, plan
from glmlab.plans.judged import judge
from glmlab.ranks.weights import rank_kv_bytes_per_token, rank_weights
from glmlab.recipe import Recipe
from glmlab.rules import check
from glmlab.workload import Workload

VLLM = {"vllm": "0.32.0"}
WORK = Workload(contexts=(256, 4096), batch_sizes=(1,), new_tokens=2, warmup_tokens=1)
MODELS = [name for name in list_models() if not name.startswith("tiny/")]
COUNTS = (1, 2, 3, 4, 8)


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    monkeypatch.delenv("GLMLAB_DATA", raising=False)
    monkeypatch.setattr("glmlab.rules.installed_packages", dict)


def why_not(recipe: Recipe, gpu: str, count: int) -> bool:
    """Whether anything refuses it, each asked on its own."""
    model = find_model(recipe.model)
    try:
        rank_weights(recipe, model)
        rank_kv_bytes_per_token(recipe, model)
    except RecipeError:
        return True
    if blocked(recipe, WORK) is not None or check(recipe, gpu, count, VLLM).blocked:
        return True
    return not fit(recipe, gpu, count).fits


# ---------------------------------------------------------------------- which there are
def test_all_plans_of_one_gpu():
    assert list(every_plan(1)) == [Plan()]


def test_all_plans_of_two_gpus():
    labels = [each.label for each in every_plan(2)]
    assert sorted(labels) == sorted(
        ["TP1", "TP2", "TP2 + DCP2", "TP2 + EP", "TP2 + EP + DCP2", "PP2", "DP2", "DP2 + EP"]
    )


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_each_plan_once_and_none_larger_than_the_machine(count):
    plans = list(every_plan(count))
    assert len(set(plans)) == len(plans)
    assert len({each.label for each in plans}) == len(plans)
    assert all(1 <= each.ranks <= count for each in plans)
    assert {each.ranks for each in plans} == set(range(1, count + 1))


def test_expert_parallelism_needs_two_ranks_of_a_layer():
    assert all(
        each.tensor_parallel * each.data_parallel > 1 for each in every_plan(4) if each.expert_parallel
    )


def test_an_engine_without_context_parallelism_has_no_such_plans():
    assert all(each.decode_context_parallel == 1 for each in every_plan(8, shares_context=False))


def test_a_recipe_for_sglang_is_planned_without_context_parallelism():
    found = plan("glm-5.1-reap-160-sglang", "rtx-pro-6000", 4)
    assert all(each.plan.decode_context_parallel == 1 for each in found.plans)
    assert found.best is not None
    assert found.best.plan.label == "TP4"


# ---------------------------------------------------------------------- which are possible
@pytest.mark.parametrize("name", MODELS)
def test_a_plan_is_possible_if_and_only_if_nothing_refuses_it(name):
    base = Recipe(name="base", model=name, max_model_len=8192)
    gpu = find_gpu("rtx-pro-6000")
    for count in COUNTS:
        for each in every_plan(count):
            if each.ranks < count and each.ranks in COUNTS:
                continue  # as on fewer GPUs, but for what idles
            found = judge(each, base, gpu, count, workload=WORK, versions=VLLM)
            refused = why_not(base.replace(**each.fields), "rtx-pro-6000", count)
            assert (found.blocked is not None) == refused, each.label
            assert (found.blocked is None) == (found.prediction is not None) == (found.blocked_by is None)
            if found.blocked is not None:
                assert "\n" not in found.blocked


@pytest.mark.parametrize(
    ("each", "said"),
    [
        (Plan(tensor_parallel=3), "64 query heads"),
        (Plan(pipeline_parallel=4, tensor_parallel=2), "for 4 GPUs (rule more-ranks-than-gpus)"),
        (Plan(data_parallel=3), "moe_intermediate_size 2048 does not divide by 3"),
        (Plan(tensor_parallel=4, decode_context_parallel=3), "does not divide"),
        (Plan(tensor_parallel=4, decode_context_parallel=2), "rule dcp-refused-by-sparse-mla"),
    ],
)
def test_why_a_plan_is_not_possible(each, said):
    base = Recipe(name="base", model="glm-5.1-reap-160", max_model_len=8192)
    found = judge(each, base, find_gpu("rtx-pro-6000"), 4, workload=WORK, versions=VLLM)
    assert found.blocked is not None
    assert said in found.blocked


def test_more_stages_than_layers():
    base = Recipe(name="base", model="tiny/glm4-moe", weights="random", max_model_len=8192)
    found = judge(Plan(pipeline_parallel=5), base, find_gpu("h100"), 8, workload=WORK, versions=VLLM)
    assert found.blocked == "pipeline_parallel = 5: the model has 4 layers"
    assert found.blocked_by == "plan"


def test_too_little_memory_says_by_how_much():
    found = plan("glm-5.1-reap-160", "rtx-pro-6000", 2)
    assert not found.possible
    lacking = next(each for each in found.plans if each.plan.label == "TP2")
    assert lacking.blocked_by == "memory"
    assert lacking.to_json()["short_gb"] > 50


def test_context_parallelism_that_the_attention_backend_cannot_do():
    base = Recipe(name="base", model="glm-4.7-nvfp4", max_model_len=8192, attention_backend="TRITON_ATTN")
    each = Plan(tensor_parallel=16, decode_context_parallel=2)
    found = judge(each, base, find_gpu("rtx-pro-6000"), 16, workload=WORK, versions=VLLM)
    assert found.blocked is not None
    assert "rule dcp-without-softmax-sums" in found.blocked


def test_rules_go_by_the_version_that_is_asked_for():
    old = plan("glm-5.1-reap-160", "rtx-pro-6000", 4, versions={"vllm": "0.23.0"})
    new = plan("glm-5.1-reap-160", "rtx-pro-6000", 4, versions={"vllm": "0.32.0", "flashinfer": "0.6.18"})
    assert not old.possible
    assert any("sparse-mla-backend-missing" in str(each.blocked) for each in old.plans)
    assert new.possible


# ---------------------------------------------------------------------- what a plan costs
def test_kv_heads_that_are_repeated_are_legal_and_their_cost_is_said():
    base = Recipe(name="base", model="glm-4.7-nvfp4", max_model_len=8192)
    found = judge(Plan(tensor_parallel=16), base, find_gpu("rtx-pro-6000"), 16, workload=WORK, versions=VLLM)
    assert found.blocked is None
    assert found.fit is not None
    each = found.fit.pool.bytes_per_token
    assert any(f"{16 * each:,} B" in line and f"{8 * each:,} would do" in line for line in found.remarks)


def test_kv_heads_that_divide_cost_nothing():
    base = Recipe(name="base", model="glm-4.7-nvfp4", max_model_len=8192)
    found = judge(Plan(tensor_parallel=8), base, find_gpu("rtx-pro-6000"), 8, workload=WORK, versions=VLLM)
    assert not any("lies on" in line for line in found.remarks)


def test_the_latent_of_mla_lies_on_every_rank():
    found = plan("glm-5.1-reap-160", "rtx-pro-6000", 4)
    assert found.best is not None
    assert any(line.startswith("the MLA latent lies on 4 ranks") for line in found.best.remarks)


def test_gpus_that_stay_unused_are_said():
    found = plan("glm-4.5-air-fp8", "rtx-pro-6000", 3, contexts=(256,))
    two = next(each for each in found.possible if each.plan.label == "TP2")
    assert two.unused_gpus == 1
    assert "1 GPU of 3 unused" in two.remarks


def test_stages_of_unequal_length_are_said():
    found = plan("glm-5.1-reap-160", "rtx-pro-6000", 4, contexts=(256,))
    stages = next(each for each in found.possible if each.plan.label == "PP4")
    assert any("19 to 20 layers" in line for line in stages.remarks)
