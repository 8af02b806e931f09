"""In which number format the experts' weights are: what decides which kernels run them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from glmlab.errors import RecipeError
from glmlab.models.model import Model
from glmlab.models.quant_config import block_sides
from glmlab.ranks.weights import recipe_layout
from glmlab.recipe import Recipe

KINDS = ("bf16", "fp8", "nvfp4", "int4", "int8", "other")

# What vLLM quantizes to while it loads, by the beginnings of its names (config/quantization.py of
# 0.32.0): no checkpoint has such a layout.
_METHODS = (
    ("fp8_per_block", "fp8"),
    ("fp8", "fp8"),
    ("nvfp4", "nvfp4"),
    ("experts_int8", "int8"),
    ("int8", "int8"),
)
# What the names of published checkpoints say, where nothing else does.
_IN_NAMES = (("nvfp4", "nvfp4"), ("fp8", "fp8"), ("awq", "int4"), ("gptq", "int4"), ("int4", "int4"))
# fp8_per_block of vLLM, and every FP8 checkpoint with blocks: data/formats/fp8-block.yaml.
_BLOCK = (128, 128)


class ExpertWeights(NamedTuple):
    """Format of the experts' weights.

    Attributes
    ----------
    kind : str or None
        One of :data:`KINDS`; None where it is not known.
    block : tuple of int or None
        Rows and columns that share a scale, for block-quantized FP8.
    """

    kind: str | None
    block: tuple[int, int] | None = None


def expert_weights(recipe: Recipe, model: Model) -> ExpertWeights:
    """What the recipe's ``quantization`` says, else the model's layout, else its name."""
    asked, name = recipe.quantization, model.name.lower()
    try:
        stored = recipe_layout(recipe, model).mix("routed_experts").formats[0][0]
    except RecipeError:
        for start, kind in _METHODS:
            if asked is not None and asked.startswith(start):
                return ExpertWeights(kind, _BLOCK if asked == "fp8_per_block" else None)
        told = next((kind for mark, kind in _IN_NAMES if mark in name), None)
        return ExpertWeights(told if asked is None else told or "other")
    kind = next((each for each in KINDS if stored.startswith(each)), "other")
    return ExpertWeights(kind, _block(model.config) if stored == "fp8-block" else None)


def _block(config: Mapping[str, Any] | None) -> tuple[int, int]:
    said = (config or {}).get("quantization_config")
    return block_sides(said.get("weight_block_size") if isinstance(said, Mapping) else None) or _BLOCK
