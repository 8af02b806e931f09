"""Whether a model can be spread as a recipe's plan says: what an engine refuses before it loads anything.

Source: vLLM 0.32.0. ``config/model.py`` (``verify_with_parallel_config``: query heads; decode context
parallelism of GQA), ``config/parallel.py`` (decode context parallelism takes ranks of tensor parallelism),
``model_executor/layers/linear.py`` and ``vocab_parallel_embedding.py`` (``divide``: widths and vocabulary),
``fused_moe/config.py`` (each expert's width, over tensor and data parallelism where experts are not whole).
"""

from __future__ import annotations

from collections.abc import Iterator

from glmlab.catalog import Model
from glmlab.errors import RecipeError
from glmlab.models.shape import GqaShape
from glmlab.models.weight_table import VOCABULARY_PADDING
from glmlab.recipe import Recipe


def check_plan(recipe: Recipe, model: Model) -> None:
    """Refuse a plan that the engine refuses.

    Parameters
    ----------
    recipe : Recipe
        The plan.
    model : Model
        The recipe's model.

    Raises
    ------
    RecipeError
        With what can be instead.
    """
    model.check_tensor_parallel(recipe.tensor_parallel)
    _check_widths(recipe, model)
    if recipe.decode_context_parallel > 1:
        _check_context_parallel(recipe, model)


def _check_widths(recipe: Recipe, model: Model) -> None:
    wrong = list(_indivisible(recipe, model, recipe.tensor_parallel))
    if not wrong:
        return
    allowed = [
        str(ranks)
        for ranks in model.tensor_parallel_choices
        if next(_indivisible(recipe, model, ranks), None) is None
    ]
    instead = f"tensor_parallel can be {', '.join(allowed)}" if allowed else "lower data_parallel"
    raise RecipeError(
        f"tensor_parallel = {recipe.tensor_parallel}: {model.name} cannot be divided so, {'; '.join(wrong)};"
        f" {instead}"
    )


def _indivisible(recipe: Recipe, model: Model, ranks: int) -> Iterator[str]:
    """Widths that so many ranks cannot share."""
    shape = model.shape
    vocabulary = -(-shape.vocab_size // VOCABULARY_PADDING) * VOCABULARY_PADDING
    if vocabulary % ranks:
        yield f"vocab_size {shape.vocab_size}, padded to {vocabulary}, does not divide by {ranks}"
    if shape.first_k_dense_replace and shape.intermediate_size % ranks:
        yield f"intermediate_size {shape.intermediate_size} does not divide by {ranks}"
    if not shape.moe_layers:
        return
    shared = shape.n_shared_experts * shape.moe_intermediate_size
    whole = recipe.expert_parallel and recipe.data_parallel > 1  # shared experts of a sequence-parallel MoE
    over = 1 if recipe.expert_parallel else ranks * recipe.data_parallel
    if shape.moe_intermediate_size % over:
        yield f"moe_intermediate_size {shape.moe_intermediate_size} does not divide by {over}"
    elif shared % ranks and not whole:
        yield f"the shared experts' width {shared} does not divide by {ranks}"


def _check_context_parallel(recipe: Recipe, model: Model) -> None:
    shared, ranks, shape = recipe.decode_context_parallel, recipe.tensor_parallel, model.shape
    said = f"decode_context_parallel = {shared}"
    if recipe.serving_engine != "vllm":
        raise RecipeError(
            f"{said}: glmlab knows it of vLLM only, and this recipe is for {recipe.serving_engine};"
            " set it to 1, or serving_engine to vllm"
        )
    if ranks % shared:
        raise RecipeError(
            f"{said}: takes ranks of tensor_parallel = {ranks}, which it does not divide; expected"
            f" {_listed(each for each in range(1, ranks + 1) if ranks % each == 0)}"
        )
    if not isinstance(shape, GqaShape):
        return
    heads = shape.num_key_value_heads
    group = shape.num_attention_heads // heads
    most = ranks // heads
    if ranks <= heads:
        raise RecipeError(
            f"{said}: {model.name} has {heads} KV heads, of which tensor_parallel = {ranks} makes no copies"
            f" that could share a sequence; set it to 1, or tensor_parallel above {heads}"
        )
    if shared > most or group % shared:
        fitting = (n for n in range(1, most + 1) if ranks % n == 0 and group % n == 0)
        raise RecipeError(
            f"{said}: {model.name} has {heads} KV heads of {group} query heads each, so with tensor_parallel"
            f" = {ranks} it can be {_listed(fitting)}"
        )


def _listed(numbers: Iterator[int]) -> str:
    return ", ".join(map(str, numbers))
