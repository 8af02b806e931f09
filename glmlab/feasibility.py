"""What can be told before an engine is paid for: recipes that cannot run, with the reason."""

from __future__ import annotations

import os
from collections.abc import Iterator

from glmlab.catalog import Model, find_model
from glmlab.recipe import Recipe
from glmlab.workload import Workload


def blocked(recipe: Recipe, workload: Workload) -> str | None:
    """Why a recipe cannot run this workload, or ``None``.

    Only certain reasons count: arithmetic of the model's own configuration, and vLLM's own rules.
    """
    return next(_reasons(recipe, workload, find_model(recipe.model)), None)


def _reasons(recipe: Recipe, workload: Workload, model: Model) -> Iterator[str]:
    longest = recipe.max_model_len
    if longest is not None and workload.longest > longest:
        yield (
            f"workload: context {max(workload.contexts)} and its output need {workload.longest}"
            f" tokens, max_model_len is {longest}"
        )
    ranks = recipe.tensor_parallel * recipe.pipeline_parallel  # of the one replica that an engine runs
    if recipe.cpu_threads is not None:
        allowed = len(os.sched_getaffinity(0))
        if ranks * recipe.cpu_threads > allowed:
            yield (
                f"cpu_threads = {recipe.cpu_threads}: {ranks} ranks would need"
                f" {ranks * recipe.cpu_threads} CPUs, {allowed} are allowed here"
            )
    if model.config is None:
        return
    parallel = recipe.tensor_parallel
    if model.heads % parallel:
        yield f"tensor_parallel = {parallel}: does not divide the {model.heads} attention heads"
    kv_heads = model.kv_heads
    if model.attention == "gqa" and kv_heads % parallel and parallel % kv_heads:
        yield f"tensor_parallel = {parallel}: does not go with {kv_heads} KV heads"
    if recipe.pipeline_parallel > model.layers:
        yield f"pipeline_parallel = {recipe.pipeline_parallel}: the model has {model.layers} layers"
