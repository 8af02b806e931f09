"""Why a recipe does not fit, one line each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from glmlab.footprint.part import GB, amount

if TYPE_CHECKING:
    from glmlab.memory import Fit
    from glmlab.recipe import Recipe


def reasons_of(found: Fit) -> Iterator[str]:
    """The reasons; none where it fits.

    Parameters
    ----------
    found : Fit
        Of the recipe as it is.
    """
    recipe, room, usable = found.recipe, found.room_bytes, found.gpu.usable_memory_bytes
    if found.ranks > found.count:
        yield (
            f"{sizes_text(recipe)} are {found.ranks} ranks, which need as many GPUs; there"
            f" {'is' if found.count == 1 else 'are'} {found.count}"
        )
    if beyond_model(found):
        yield (
            f"max_model_len {found.choices.max_model_len:,} is beyond the model's own"
            f" {found.model.max_model_len:,}, and vLLM refuses it"
        )
    if room <= 0:
        yield _no_room(found)
    elif room < found.needed_bytes:
        yield (
            f"{amount(found.needed_bytes - room)} too little for KV: one sequence of"
            f" {found.choices.max_model_len:,} tokens needs {found.needed_bytes / GB:.2f} GB, the pool has"
            f" {room / GB:.2f} GB, which is {found.pool.longest:,} tokens"
        )
    if found.free_bytes < 0 and room > 0:
        yield f"{amount(-found.free_bytes)} more than the {usable / GB:.1f} GB that each GPU has to give"


def sizes_text(recipe: Recipe) -> str:
    """What the ranks of a recipe are the product of."""
    return (
        f"tensor_parallel {recipe.tensor_parallel} x pipeline_parallel {recipe.pipeline_parallel} x"
        f" data_parallel {recipe.data_parallel}"
    )


def beyond_model(found: Fit) -> bool:
    """Whether vLLM refuses the context; rule context-beyond-model."""
    recipe = found.recipe
    allowed = recipe.serving_engine != "vllm" or "VLLM_ALLOW_LONG_MAX_MODEL_LEN" in recipe.env
    return not allowed and found.choices.max_model_len > found.model.max_model_len


def _no_room(found: Fit) -> str:
    """The amounts that make up what a GPU is short of."""
    what = "weights and all else but KV" if found.recipe.serving_engine == "vllm" else "the weights"
    over = amount(-found.room_bytes)
    share = f"the {found.budget_bytes / GB:.1f} GB that {found.choices.utilization:g} gives of each GPU"
    if not found.needs_full_length:
        return f"{what} are {over} more than {share}"
    return (
        f"{amount(found.short_bytes)} a GPU: {what} are {over} more than {share}, and KV for one sequence of"
        f" {found.choices.max_model_len:,} tokens needs {amount(found.needed_bytes)}"
    )
