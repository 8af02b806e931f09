"""Whether this machine's memory can hold what a CPU engine would load, asked before one is started."""

from __future__ import annotations

import psutil

from glmlab.errors import GlmlabError, InputError
from glmlab.ranks.weights import stage_weights
from glmlab.recipe import Recipe
from glmlab.units import format_bytes


def check_room(recipe: Recipe) -> None:
    """Refuse weights that are larger than all memory: every rank of a CPU engine lies in it.

    A GPU's engine says itself, and soon, what its card has no room for; one on the CPU would load until
    the system kills it, or something else.

    Raises
    ------
    InputError
        With both sizes. What is not known is not refused.
    """
    try:
        weights = sum(stage.bytes for stage in stage_weights(recipe)) * recipe.tensor_parallel
    except GlmlabError:
        return
    room = psutil.virtual_memory().total
    if weights > room:
        raise InputError(
            f"recipe {recipe.name}: weights of {format_bytes(weights)} do not fit this machine's memory of"
            f" {format_bytes(room)}, and its vLLM runs on the CPU; for machines with GPUs ask glmlab fit,"
            " without an engine play a recording"
        )
