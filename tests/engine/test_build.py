"""What a recipe becomes for vLLM beyond its arguments."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("vllm")

from glmlab.engines import vllm_build
from glmlab.recipe import Recipe


def test_an_engine_with_a_named_pool_can_stand_beside_another(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else vLLM wants 92 % of the GPU to be free, whatever the pool's size."""
    from vllm.v1.engine.llm_engine import LLMEngine

    asked: list[Any] = []
    monkeypatch.setattr(LLMEngine, "from_engine_args", asked.append)
    vllm_build.build(recipe, {})
    vllm_build.build(recipe.replace(kv_cache_bytes=None, gpu_memory_utilization=0.5), {})
    named, shared = asked
    assert named.kv_cache_memory_bytes == recipe.kv_cache_bytes
    assert named.gpu_memory_utilization == 0.01
    assert shared.gpu_memory_utilization == 0.5
