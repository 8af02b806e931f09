"""What one rank of a plan holds: its weights, part by part, and the KV bytes of a token.

Weights are counted as vLLM 0.32.0 holds them after loading (how each is spread:
:mod:`glmlab.models.weight_table`; in which format: :mod:`glmlab.models.quant_layout`). What is beside the
checkpoint's own numbers:

- the router of ``glm4_moe`` is held in FP32 (``glm4_moe.py``: ``params_dtype=torch.float32``), and every
  router's bias, too;
- MLA absorbs kv_b into queries and outputs. Where kv_b is quantized, that is a 16-bit copy beside it
  (``mla_attention.py``, ``split_kv_b_proj``); else it is the same memory;
- the MTP layer shares embedding and head with the model (``llm_base_proposer.py``), but for pipelines,
  whose last stage has an embedding of its own for it;
- with expert_parallel and both tensor and data parallelism shared experts are whole on every rank
  (``config/parallel.py``: ``use_sequence_parallel_moe``).
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from glmlab.catalog import Model, find_model
from glmlab.errors import RecipeError
from glmlab.models.quant_layout import (
    QuantLayout,
    find_layout,
    known_methods,
    layout_for_method,
    list_layouts,
)
from glmlab.models.shape import DsaShape, GqaShape, MlaShape, ModelShape
from glmlab.models.weight_table import PARTS, VOCABULARY_PADDING, Weight, WeightTable, weight_table
from glmlab.names import did_you_mean
from glmlab.ranks.kv import rank_kv_bytes_per_token
from glmlab.ranks.plan import check_plan
from glmlab.ranks.stages import pipeline_stages
from glmlab.recipe import Recipe

__all__ = [
    "RankWeights",
    "plain_bytes",
    "rank_kv_bytes_per_token",
    "rank_weights",
    "recipe_layout",
    "stage_weights",
]


@dataclass(frozen=True)
class RankWeights:
    """Weights of one rank.

    Attributes
    ----------
    params : int
        Parameters.
    bytes : int
        Bytes, scales included.
    parts : dict
        Bytes by part, of :data:`glmlab.models.weight_table.PARTS`.
    """

    params: int
    bytes: int
    parts: dict[str, int]


def rank_weights(recipe: Recipe, model: Model | None = None) -> RankWeights:
    """Weights of the rank that holds most under a recipe's plan.

    Parameters
    ----------
    recipe : Recipe
        The plan; ``quantization`` names one of vLLM's methods or a layout of ``data/layouts``, and where it
        is open, the model's own layout counts.
    model : Model, optional
        The recipe's model, where it is at hand already.

    Raises
    ------
    RecipeError
        If the model's sizes are not known, it cannot be spread so, or the layout is not known.
    """
    return max(stage_weights(recipe, model), key=lambda held: held.bytes)


def stage_weights(recipe: Recipe, model: Model | None = None) -> tuple[RankWeights, ...]:
    """Weights of one rank of each pipeline stage, in their order; the ranks of a stage are alike.

    Parameters
    ----------
    recipe, model
        As for :func:`rank_weights`.

    Raises
    ------
    RecipeError
        As :func:`rank_weights` raises it.
    """
    model = find_model(recipe.model) if model is None else model
    layout = recipe_layout(recipe, model)
    check_plan(recipe, model)
    shape, width = model.shape, plain_bytes(recipe, model)
    stages = tuple(pipeline_stages(recipe, shape.num_hidden_layers))
    # A search asks for few plans with many live knobs. The value holds the layout: its id stays its own.
    key = (
        shape, id(layout), width, stages, recipe.tensor_parallel, recipe.data_parallel,
        recipe.expert_parallel, recipe.mtp_tokens > 0, recipe.dense_mla,
    )  # fmt: skip
    known = _KNOWN.get(key)
    if known is None:
        if len(_KNOWN) >= _KNOWN_AT_MOST:
            _KNOWN.clear()
        rank = _Rank(recipe, shape, layout, width)
        known = _KNOWN[key] = (layout, tuple(rank.stage(*ends) for ends in stages))
    return tuple(RankWeights(each.params, each.bytes, dict(each.parts)) for each in known[1])


_KNOWN: dict[tuple[Any, ...], tuple[QuantLayout, tuple[RankWeights, ...]]] = {}
_KNOWN_AT_MOST = 4096


def recipe_layout(recipe: Recipe, model: Model) -> QuantLayout:
    """How the weights of a recipe are stored.

    Raises
    ------
    RecipeError
        If the recipe names what is neither a layout nor a method, or the checkpoint's own layout is
        not known.
    """
    asked = recipe.quantization
    if asked is None:
        return model.layout
    if asked in list_layouts():
        return find_layout(asked)
    meant = layout_for_method(asked)
    own = model.layout_or_none
    if own is not None and own.parts and (meant is not None or asked in own.methods):
        return own  # the method only says how vLLM reads what the checkpoint has
    if meant is None:
        known = {*list_layouts(), *known_methods()}
        raise RecipeError(
            f"quantization = {asked!r}: neither a quantization layout nor one of vLLM's methods that"
            f" glmlab can compute{did_you_mean(asked, known)}"
        )
    return meant


def plain_bytes(recipe: Recipe, model: Model) -> int:
    """Bytes of a weight that is not quantized."""
    dtype = recipe.dtype
    if dtype == "auto":
        config = model.config or {}
        dtype = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    return 4 if dtype == "float32" else 2


class _Rank:
    """One rank of a plan, to count the weights of its stage."""

    def __init__(self, recipe: Recipe, shape: ModelShape, layout: QuantLayout, plain_bytes: int) -> None:
        self.recipe, self.shape, self.layout, self.plain_bytes = recipe, shape, layout, plain_bytes
        self.table: WeightTable = weight_table(shape)
        self.expert_ranks = recipe.tensor_parallel * recipe.data_parallel
        self.sparse = isinstance(shape, DsaShape) and not recipe.dense_mla

    def stage(self, first: int, last: int) -> RankWeights:
        """Weights of a pipeline stage, MTP layer and both ends where they belong."""
        shape, table = self.shape, self.table
        dense = max(0, min(last, shape.first_k_dense_replace) - first)
        counted: list[tuple[Weight, int]] = []
        counted += ((weight, last - first) for weight in table.attention)
        counted += ((weight, dense) for weight in table.dense)
        counted += ((weight, last - first - dense) for weight in table.moe)
        if self.sparse:
            indexers = sum(first <= layer < last for layer in shape.indexer_layer_numbers)
            counted += ((weight, indexers) for weight in table.indexer)
        is_last = last == shape.num_hidden_layers
        if first == 0 or (is_last and (shape.tie_word_embeddings or self._drafts)):
            counted += ((weight, 1) for weight in table.first)
        if is_last:
            counted += ((weight, 1) for weight in table.last)
        params, parts = 0, dict.fromkeys(PARTS, 0.0)
        for weight, copies in counted:
            held = self.held(weight) * copies
            params += held
            parts[weight.part] += held * self.bytes_per_param(weight)
        parts["attention"] += self._absorbed() * (last - first)
        if is_last and self._drafts:
            for weight in self._mtp_layer():
                held = self.held(weight) * shape.num_nextn_predict_layers
                params += held
                parts["mtp"] += held * self.bytes_per_param(weight, in_mtp=True)
        whole = {part: math.ceil(size) for part, size in parts.items()}
        return RankWeights(params, sum(whole.values()), {str(part): size for part, size in whole.items()})

    def held(self, weight: Weight) -> int:
        """Parameters of a weight that this rank holds."""
        ranks = self.recipe.tensor_parallel
        if weight.spread == "whole":
            return weight.params
        if weight.spread == "experts":
            return self._experts(weight)
        if weight.spread == "vocabulary":
            rows = -(-self.shape.vocab_size // VOCABULARY_PADDING) * VOCABULARY_PADDING
            return -(-rows // ranks) * self.shape.hidden_size
        if weight.spread == "kv_heads":
            ranks = min(ranks, self.shape.kv_heads)
        elif weight.part == "shared_experts" and self._whole_shared_experts:
            return weight.params
        return -(-weight.params // ranks)

    def bytes_per_param(self, weight: Weight, *, in_mtp: bool = False) -> float:
        """Bytes of one parameter of a weight."""
        if weight.part == "router" and (not weight.is_matrix or isinstance(self.shape, GqaShape)):
            return 4
        if not weight.is_matrix or weight.module == "eh_proj":
            return self.plain_bytes
        mix = self.layout.mtp if in_mtp and self.layout.mtp is not None else self.layout.mix(weight.part)
        return mix.bytes_per_param(self.shape.hidden_size, self.plain_bytes)

    @property
    def _drafts(self) -> bool:
        return self.recipe.mtp_tokens > 0 and self.shape.num_nextn_predict_layers > 0

    @property
    def _whole_shared_experts(self) -> bool:
        plan = self.recipe
        return plan.expert_parallel and plan.tensor_parallel > 1 and plan.data_parallel > 1

    def _experts(self, weight: Weight) -> int:
        if self.recipe.expert_parallel:
            each = weight.params // self.shape.n_routed_experts
            return -(-self.shape.n_routed_experts // self.expert_ranks) * each
        return -(-weight.params // self.expert_ranks)

    def _absorbed(self) -> float:
        """Bytes of the copy that absorption makes of one layer's quantized kv_b."""
        if not isinstance(self.shape, MlaShape) or self.layout.mix("attention").is_plain:
            return 0
        up = next(weight for weight in self.table.attention if weight.module == "self_attn.kv_b_proj")
        return self.held(up) * self.plain_bytes

    def _mtp_layer(self) -> Iterable[Weight]:
        table = self.table
        yield from (*table.attention, *table.moe, *table.mtp)
        if self.sparse:
            yield from table.indexer
