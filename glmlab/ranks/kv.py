"""KV bytes that one token takes on one rank of a plan.

Per layer, as vLLM 0.32.0 lays the cache out (``v1/kv_cache_interface.py``, ``utils/torch_utils.py``,
``layers/attention/mla_attention.py``):

====================  =============================================================================
GQA                   keys and values of the rank's KV heads, at least one head of each
dense MLA             the latent and its rope part (512 + 64 numbers), whole on every rank
DSA, FP8              ``fp8_ds_mla``: 656 bytes (512 FP8, 4 FP32 scales, 64 numbers of BF16 for rope)
DSA, NVFP4            ``nvfp4_ds_mla``: 352 bytes
DSA, 16-bit           as dense MLA
DSA indexer           132 bytes (128 FP8 keys and their FP32 scale) in each layer with an indexer
====================  =============================================================================

Which pipeline stage holds most KV and which most weights may differ; both are taken, so that a pool computed
from them is never larger than the engine's.

NVFP4 takes ``n / 2 + n / 16`` bytes for ``n`` numbers; ``int8_per_token_head`` one byte each and an FP32
scale for each head's keys and values. The cache of an MTP layer comes on top where it drafts.
"""

from __future__ import annotations

import math

from glmlab.catalog import Model, find_model
from glmlab.models.shape import DsaShape, GqaShape
from glmlab.ranks.plan import check_plan
from glmlab.ranks.stages import pipeline_stages
from glmlab.recipe import Recipe

_FP8_DS_MLA_BYTES = 656
_NVFP4_DS_MLA_BYTES = 352
# These backends keep DSA's KV packed, whether or not the recipe says so.
_PACKED_BY_DEFAULT = frozenset({"FLASHINFER_MLA_SPARSE_SM120"})


def rank_kv_bytes_per_token(
    recipe: Recipe, model: Model | None = None, *, attention_backend: str | None = None
) -> int:
    """KV bytes of one token on the rank that holds most layers.

    Parameters
    ----------
    recipe : Recipe
        The plan and the KV dtype; ``auto`` is what the checkpoint asks for, else 16 bits.
    model : Model, optional
        The recipe's model, where it is at hand already.
    attention_backend : str, optional
        What the engine takes where the recipe leaves it open; by default as the recipe says.

    Raises
    ------
    RecipeError
        If the model's sizes are not known, or it cannot be spread so.
    """
    model = find_model(recipe.model) if model is None else model
    check_plan(recipe, model)
    backend = (attention_backend or recipe.attention_backend or "").upper()
    a_layer = layer_kv_bytes(recipe, model, backend)
    shape, drafts = model.shape, 0
    if recipe.mtp_tokens:
        drafts = shape.num_nextn_predict_layers
    stages = pipeline_stages(recipe, model.layers)
    sparse = isinstance(shape, DsaShape) and not recipe.dense_mla
    most = 0.0
    for number, (first, last) in enumerate(stages):
        extra = drafts if number == len(stages) - 1 else 0
        held = (last - first + extra) * a_layer
        if sparse:
            indexers = sum(first <= layer < last for layer in shape.indexer_layer_numbers) + extra
            held += indexers * shape.indexer_bytes_per_layer
        most = max(most, held)
    return math.ceil(most / recipe.decode_context_parallel)


def kv_dtype(recipe: Recipe, model: Model) -> str:
    """The KV dtype that a recipe comes to: what it names, else what the checkpoint asks for, else 16 bits."""
    if recipe.kv_cache_dtype != "auto":
        return recipe.kv_cache_dtype
    layout = model.layout_or_none
    if layout is not None and layout.kv_cache is not None:
        return layout.kv_cache
    return "float32" if recipe.dtype == "float32" else "bfloat16"


def layer_kv_bytes(recipe: Recipe, model: Model, backend: str) -> float:
    """KV bytes of one token in one layer of a rank, without an indexer's and before ranks share a sequence.

    Parameters
    ----------
    recipe : Recipe
        The plan and the KV dtype.
    model : Model
        The recipe's model.
    backend : str
        The attention backend, in upper case.
    """
    shape, dtype = model.shape, kv_dtype(recipe, model)
    if isinstance(shape, GqaShape):
        heads = max(1, math.ceil(shape.num_key_value_heads / recipe.tensor_parallel))
        if dtype == "int8_per_token_head":
            return 2.0 * heads * (shape.head_size + 4)
        return 2 * heads * _number_bytes(shape.head_size, dtype)
    if isinstance(shape, DsaShape) and not recipe.dense_mla:
        packed = recipe.kv_cache_dtype == "auto" and backend in _PACKED_BY_DEFAULT
        if packed or dtype.startswith("fp8"):
            return _FP8_DS_MLA_BYTES
        if dtype == "nvfp4":
            return _NVFP4_DS_MLA_BYTES
    elif dtype == "fp8_ds_mla":
        return _FP8_DS_MLA_BYTES
    if dtype == "int8_per_token_head":
        return shape.kv_values_per_layer + 4.0
    return _number_bytes(shape.kv_values_per_layer, dtype)


def _number_bytes(numbers: int, dtype: str) -> float:
    if dtype == "nvfp4":
        return numbers / 2 + numbers / 16
    width = 4 if dtype == "float32" else 1 if dtype.startswith("fp8") else 2
    return float(numbers * width)
