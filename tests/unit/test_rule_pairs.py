"""Each rule on both sides: a recipe that it speaks of, and the nearest one of which it is silent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from glmlab.catalog import find_model
from glmlab.gpus import find_gpu
from glmlab.recipe import Recipe
from glmlab.rulebook.predicates import PREDICATES
from glmlab.rules import Findings, apply_fix, check, load_rules
from tests.rule_cases import CASES


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    monkeypatch.delenv("GLMLAB_DATA", raising=False)
    monkeypatch.setattr("glmlab.rules.installed_packages", dict)


def judged(case: dict[str, Any], folder: Path) -> tuple[Recipe, Any]:
    """The recipe of a case, and how to check it again."""
    fields = {key: value for key, value in case.items() if not key.startswith("@")}
    if "@config" in case:
        base, changes = case["@config"]
        folder.mkdir(exist_ok=True)
        (folder / "config.json").write_text(json.dumps({**(find_model(base).config or {}), **changes}))
        fields["model"] = str(folder)
    gpu, count = find_gpu(case.get("@gpu", "rtx-pro-6000")), case.get("@count", 4)
    packages = ("vllm", "sglang", "flashinfer", "transformers", "cutlass-dsl")
    versions = {name: case[f"@{name}"] for name in packages if f"@{name}" in case}
    recipe = Recipe.parse({"name": "r", **fields})
    return recipe, lambda other: check(other, gpu, count, versions)


def ids(found: Findings) -> set[str]:
    return {finding.id for finding in found}


def test_every_rule_has_a_pair_and_every_pair_a_rule():
    assert set(CASES) == {rule.id for rule in load_rules()}


@pytest.mark.parametrize("rule", CASES)
def test_the_pair_differs_in_one_thing(rule):
    trigger, near = CASES[rule]
    assert len(near) == 1
    assert all(trigger.get(key) != value for key, value in near.items())


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_speaks_of_one_and_not_of_the_other(rule, tmp_path):
    trigger, near = CASES[rule]
    recipe, again = judged(trigger, tmp_path / "one")
    assert rule in ids(again(recipe))
    other, other_again = judged({**trigger, **near}, tmp_path / "other")
    assert rule not in ids(other_again(other))


@pytest.mark.parametrize("rule", [rule.id for rule in load_rules() if rule.change])
def test_its_change_silences_it(rule, tmp_path):
    recipe, again = judged(CASES[rule][0], tmp_path / "one")
    (finding,) = [each for each in again(recipe) if each.id == rule]
    mended = apply_fix(recipe, finding)
    assert mended != recipe
    assert rule not in ids(again(mended))


@pytest.mark.parametrize("rule", CASES)
def test_its_texts_are_whole(rule, tmp_path):
    recipe, again = judged(CASES[rule][0], tmp_path / "one")
    (finding,) = [each for each in again(recipe) if each.id == rule]
    for text in (finding.why, finding.fix):
        assert "\n" not in text
        assert "{" not in text
        assert "unknown" not in text
    assert finding.source


def test_every_predicate_is_used_by_some_rule():
    used = {name for rule in load_rules() for name in rule.condition.predicates}
    assert used == set(PREDICATES)
