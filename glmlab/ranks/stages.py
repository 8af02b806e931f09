"""Which layers each pipeline stage of a plan has."""

from __future__ import annotations

from collections.abc import Sequence

from glmlab.errors import RecipeError
from glmlab.recipe import Recipe


def pipeline_stages(recipe: Recipe, layers: int) -> Sequence[tuple[int, int]]:
    """First layer, and the one after the last, of each pipeline stage.

    As ``get_pp_indices`` of vLLM 0.32.0: evenly, and what remains goes one each to the stages before the
    last; ``VLLM_PP_LAYER_PARTITION`` in the recipe's ``env`` overrules it.

    Raises
    ------
    RecipeError
        If there are more stages than layers, or the partition does not add up.
    """
    stages = recipe.pipeline_parallel
    if stages > layers:
        raise RecipeError(f"pipeline_parallel = {stages}: the model has {layers} layers")
    asked = recipe.env.get("VLLM_PP_LAYER_PARTITION")
    if asked is not None:
        try:
            sizes = [int(each) for each in asked.split(",")]
        except ValueError:
            sizes = []
        if len(sizes) != stages or sum(sizes) != layers or min(sizes) < 0:
            raise RecipeError(
                f"env.VLLM_PP_LAYER_PARTITION = {asked!r}: expected {stages} numbers with commas between"
                f" them that add up to {layers} layers"
            )
    else:
        sizes = [layers // stages] * stages
        for back in range(2, layers % stages + 2):
            sizes[-back] += 1
    ends = [sum(sizes[: n + 1]) for n in range(stages)]
    return [(end - size, end) for size, end in zip(sizes, ends, strict=True)]
