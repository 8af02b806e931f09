"""The order in which a study tries its plans: as predicted, where its GPU is known."""

from __future__ import annotations

import io
import itertools
from typing import Any

import pytest

from glmlab.plans.try_order import predicted_order
from glmlab.progress import Lines
from glmlab.study import Study
from glmlab.study_spec import Budget
from tests.plan_studies import PLANS, RECIPE, SPACE, all_reduces, machine, plan_study


def plans_of(study: Study) -> list[tuple[Any, Any]]:
    tried = [(r.params["tensor_parallel"], r.params["expert_parallel"]) for r in study.records()]
    return [plan for plan, _ in itertools.groupby(tried)]


@pytest.mark.parametrize("seed", range(4))
def test_the_baselines_plan_is_first_and_the_others_follow_as_predicted(url, monkeypatch, seed):
    study = plan_study(url, monkeypatch, seed=seed)
    assert plans_of(study) == [(1, False), (2, False), (2, True)]


def test_without_a_gpu_that_is_known_the_seed_decides_as_ever(tmp_path, monkeypatch):
    orders = {
        tuple(plans_of(plan_study(f"journal://{tmp_path}/{seed}.log", monkeypatch, on=machine(), seed=seed)))
        for seed in range(6)
    }
    assert len(orders) == 2


def test_a_line_says_so_and_what_is_measured_meanwhile_changes_nothing(url, monkeypatch):
    study = plan_study(url, monkeypatch, budget={"trials": 6}, confirm={"rounds": 3})
    asked = (study.store, study.spec, study.spec.knob_space, study.store.baseline or {})
    order = predicted_order(*asked)
    assert order is not None
    assert order.sentence == (
        "after the baseline's, plans are tried as predicted for h100: TP2, TP2 + EP, TP1"
    )
    study.store.add_all_reduce_times("tensor_parallel=2", all_reduces(900.0))
    assert predicted_order(*asked) == order
    told = io.StringIO()
    study.run(budget=Budget(trials=7), progress=Lines(told))
    assert order.sentence in told.getvalue()


@pytest.mark.parametrize("space", [{"kv_splits": [16, 64]}, {"block_size": [32, 64], "kv_splits": [16, 64]}])
def test_there_is_no_order_where_all_plans_are_predicted_alike(url, monkeypatch, space):
    study = plan_study(url, monkeypatch, space=space, recipe={**RECIPE, "block_size": 64})
    assert predicted_order(study.store, study.spec, study.spec.knob_space, study.store.baseline or {}) is None


def test_a_plan_that_cannot_be_predicted_comes_last(url, monkeypatch):
    space = {**SPACE, "plans": [{"tensor_parallel": 3}, *PLANS[:2]]}  # 20 heads are no multiple of 3
    study = plan_study(url, monkeypatch, space=space)
    assert [r.params["tensor_parallel"] for r in study.records()][::2] == [1, 2, 3]


def test_a_predictor_that_breaks_costs_no_study(url, monkeypatch):
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("glmlab.plans.try_order.predict", broken)
    assert len(plans_of(plan_study(url, monkeypatch))) == 3
