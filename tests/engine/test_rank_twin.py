"""A rank twin holds, weight by weight, what rank 0 of the tensor-parallel model holds."""

from __future__ import annotations

from typing import Any

import pytest

from glmlab import Workload, find_recipe
from glmlab.catalog import find_model
from glmlab.engines.vllm_engine import VllmEngine
from glmlab.models.rank_twin import twin_config
from glmlab.recipe import Recipe

Shapes = dict[str, tuple[int, ...]]


def shapes(worker: Any) -> Shapes:
    """Shape of every parameter, and of every layer's KV cache; runs in the worker."""
    found = {}
    for path, module in worker.model_runner.model.named_modules():
        for name, tensor in module.named_parameters(recurse=False):
            found[f"{path}.{name}"] = tuple(tensor.shape) if tensor.numel() else _made_with(module)
    for number, cache in enumerate(worker.model_runner.kv_caches):
        found[f"KV cache {number}"] = tuple(cache.shape)
    return found


def _made_with(layer: Any) -> tuple[int, int]:
    """What a linear layer's weight was on this rank before vLLM's CPU GEMM packed it away."""
    return (
        getattr(layer, "output_size_per_partition", layer.output_size),
        getattr(layer, "input_size_per_partition", layer.input_size),
    )


def shapes_of(recipe: Recipe) -> list[Shapes]:
    """Of every rank; the engine also has to generate."""
    with VllmEngine(recipe) as engine:
        point = engine.measure(Workload(contexts=(40,), new_tokens=8)).points[0]
        assert len(point.tokens[0]) == 8
        ranks: list[Shapes] = engine.vllm.collective_rpc(shapes)
    return ranks


@pytest.mark.parametrize("name", ["tiny-glm4-moe", "tiny-glm4-moe-lite"])
def test_every_weight_of_the_twin_is_as_on_rank_0(name: str) -> None:
    recipe = find_recipe(name)
    real = shapes_of(recipe.replace(tensor_parallel=2))
    [twin] = shapes_of(recipe.rank_twin(tp=2))
    assert len(real) == 2
    assert twin == real[0] == real[1]
    assert any("experts" in weight for weight in twin)
    assert sum(weight.startswith("KV cache") for weight in twin) == 4


def test_a_twin_of_sparse_attention_holds_all_but_the_indexer() -> None:
    """By transformers' own models and plan for tensor parallelism, since no CPU engine runs GLM-5."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    def weights(config: dict[str, Any]) -> tuple[Shapes, dict[str, Any]]:
        read = AutoConfig.for_model(**config)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(read)
        return {key: tuple(p.shape) for key, p in model.named_parameters()}, read.base_model_tp_plan or {}

    base = find_model("glm-5.1").config
    assert base is not None
    layers, ranks = 4, 4
    small = twin_config(base, ranks, layers, "glm-5.1")
    real, plan = weights(base | {"num_hidden_layers": layers, "first_k_dense_replace": 1})
    twin, _ = weights(small)

    def on_a_rank(key: str, shape: tuple[int, ...]) -> tuple[int, ...]:
        how = next((how for part, how in plan.items() if _matches(part, key)), "")
        if "colwise" in how or key in ("model.embed_tokens.weight", "lm_head.weight"):
            side = -2  # (out, in), or (expert, out, in)
        elif "rowwise" in how:
            side = -1
        else:
            return shape
        return tuple(n // ranks if i == len(shape) + side else n for i, n in enumerate(shape))

    expected = {key: on_a_rank(key, shape) for key, shape in real.items() if ".indexer." not in key}
    assert twin == expected
    assert len(real) > len(expected)


def _matches(part: str, key: str) -> bool:
    """Whether an entry of the plan, with ``*`` for a layer's number, is about a parameter."""
    steps = key.removeprefix("model.").removesuffix(".weight").split(".")
    wanted = part.split(".")
    return len(steps) == len(wanted) and all(w in ("*", s) for w, s in zip(wanted, steps, strict=True))
