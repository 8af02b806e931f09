"""KV tokens of a fixed pool: what fit computes is what a real engine reports."""

from __future__ import annotations

from glmlab import find_recipe, start
from glmlab.gpus import find_gpu
from glmlab.memory import fit


def test_kv_tokens_are_those_of_the_engine() -> None:
    recipe = find_recipe("tiny-glm4-moe-lite")
    with start(recipe, home="child") as engine:
        reported = engine.state().kv_tokens
    assert fit(recipe, find_gpu("h100"), 1).kv_tokens == reported
