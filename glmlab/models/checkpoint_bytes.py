"""How many bytes a whole checkpoint takes, from its sizes and its quantization layout."""

from __future__ import annotations

import math

from glmlab.models.facts import MtpWeights
from glmlab.models.quant_layout import QuantLayout
from glmlab.models.shape import ModelShape
from glmlab.models.weight_table import PARTS, Part, Weight, weight_table

_PLAIN_BYTES = 2
_ROUTER_BIAS_BYTES = 4  # e_score_correction_bias is FP32 in every checkpoint of the family


def checkpoint_bytes(
    shape: ModelShape, layout: QuantLayout, mtp_weights: MtpWeights = "layer"
) -> dict[Part, int]:
    """Bytes by part, the MTP layer as far as the checkpoint has it.

    Parameters
    ----------
    shape : ModelShape
        The sizes.
    layout : QuantLayout
        How each part is stored.
    mtp_weights : "absent", "layer" or "layer and copies"
        Whether the checkpoint has the MTP layer, and whether that repeats embedding and head.
    """
    table, layers, dense = weight_table(shape), shape.num_hidden_layers, shape.first_k_dense_replace
    sizes: dict[Part, float] = dict.fromkeys(PARTS, 0.0)
    counts = (
        (table.attention, layers),
        (table.dense, dense),
        (table.moe, layers - dense),
        (table.indexer, shape.indexer_layers),
        (table.first, 1),
        (table.last, 1),
    )
    for weights, copies in counts:
        for weight in weights:
            sizes[weight.part] += copies * weight.params * _bytes(weight, shape, layout, in_mtp=False)
    if mtp_weights == "absent":
        return {part: math.ceil(size) for part, size in sizes.items()}
    mtp = (*table.attention, *table.indexer, *table.moe, *table.mtp)
    if mtp_weights == "layer and copies":
        mtp += (*table.first, *(weight for weight in table.last if weight.is_matrix))
    for weight in mtp:
        size = weight.params * _bytes(weight, shape, layout, in_mtp=True)
        sizes["mtp"] += shape.num_nextn_predict_layers * size
    return {part: math.ceil(size) for part, size in sizes.items()}


def _bytes(weight: Weight, shape: ModelShape, layout: QuantLayout, *, in_mtp: bool) -> float:
    if weight.part == "router" and not weight.is_matrix:
        return _ROUTER_BIAS_BYTES
    if not weight.is_matrix or weight.module == "eh_proj":
        return _PLAIN_BYTES
    mix = layout.mtp if in_mtp and layout.mtp is not None else layout.mix(weight.part)
    return mix.bytes_per_param(shape.hidden_size, _PLAIN_BYTES)
