"""Every weight of a GLM: which part it belongs to, its size, how an engine spreads it over ranks.

The parameters are those of :mod:`glmlab.models.shape`, tensor by tensor, under the checkpoints' own
module names; their sums equal its totals. How each is spread is what vLLM 0.32.0 does
(``model_executor/models``: glm4_moe, glm4_moe_lite, deepseek_v2, glm4_moe_mtp, deepseek_mtp;
``model_executor/layers``: linear, vocab_parallel_embedding, fused_moe):

=============  ==================================================================================
``ranks``      divided by tensor_parallel: query heads, o, q_b, kv_b, dense and shared experts
``kv_heads``   divided until one KV head is left, which further ranks repeat
``experts``    by expert_parallel whole experts, else each expert's width
``vocabulary`` padded to a multiple of 64 rows, then divided
``whole``      on every rank: norms, router, MLA's q_a and kv_a, the DSA indexer, the MTP layer's
               eh_proj
=============  ==================================================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

from glmlab.models.shape import DsaShape, GqaShape, MlaShape, ModelShape

Part = Literal[
    "attention",
    "indexer",
    "routed_experts",
    "shared_experts",
    "dense_ffn",
    "router",
    "norms",
    "embedding",
    "lm_head",
    "mtp",
]
PARTS: tuple[Part, ...] = (
    "attention", "indexer", "routed_experts", "shared_experts", "dense_ffn",
    "router", "norms", "embedding", "lm_head", "mtp",
)  # fmt: skip
Spread = Literal["ranks", "kv_heads", "experts", "vocabulary", "whole"]

VOCABULARY_PADDING = 64  # DEFAULT_VOCAB_PADDING_SIZE of vLLM's vocab_parallel_embedding


class Weight(NamedTuple):
    """One weight, or several alike of one layer.

    Attributes
    ----------
    module : str
        Name within its layer, as quantizers' ignore lists spell it.
    part : Part
        What it is counted under.
    params : int
        Its parameters on one rank that holds it whole.
    spread : Spread
        How ranks share it.
    is_matrix : bool
        Whether a quantizer may act on it; norms, biases and the router's bias keep their own type.
    """

    module: str
    part: Part
    params: int
    spread: Spread = "ranks"
    is_matrix: bool = True


class WeightTable(NamedTuple):
    """The weights of one model, by where they stand."""

    attention: tuple[Weight, ...]  # in every layer, with the layer's norms
    indexer: tuple[Weight, ...]  # in the layers that have one of their own
    dense: tuple[Weight, ...]  # feed-forward of a dense layer
    moe: tuple[Weight, ...]  # feed-forward of a layer with experts
    first: tuple[Weight, ...]  # before the first layer
    last: tuple[Weight, ...]  # after the last layer
    mtp: tuple[Weight, ...]  # what the MTP layer has beside a layer with experts and an indexer


@lru_cache(maxsize=256)
def weight_table(shape: ModelShape) -> WeightTable:
    """All weights of a model.

    Parameters
    ----------
    shape : ModelShape
        Its sizes.
    """
    h = shape.hidden_size
    attention = _gqa(shape) if isinstance(shape, GqaShape) else _mla(shape)
    head = (
        () if shape.tie_word_embeddings else (Weight("lm_head", "lm_head", _vocabulary(shape), "vocabulary"),)
    )
    return WeightTable(
        attention=(*attention, Weight("layernorms", "norms", 2 * h, "whole", is_matrix=False)),
        indexer=tuple(_indexer(shape)),
        dense=(Weight("mlp.up_proj", "dense_ffn", 3 * h * shape.intermediate_size),),
        moe=tuple(_moe(shape)),
        first=(Weight("embed_tokens", "embedding", _vocabulary(shape), "vocabulary"),),
        last=(Weight("norm", "norms", h, "whole", is_matrix=False), *head),
        mtp=(
            Weight("eh_proj", "mtp", 2 * h * h, "whole"),
            Weight("enorm", "mtp", 3 * h, "whole", is_matrix=False),
        ),
    )


def _vocabulary(shape: ModelShape) -> int:
    return shape.embedding_params


def _gqa(shape: ModelShape) -> Iterator[Weight]:
    assert isinstance(shape, GqaShape)
    h, d = shape.hidden_size, shape.head_size
    queries, keys = shape.num_attention_heads * d, shape.num_key_value_heads * d
    yield Weight("self_attn.q_proj", "attention", h * queries)
    yield Weight("self_attn.k_proj", "attention", h * keys, "kv_heads")
    yield Weight("self_attn.v_proj", "attention", h * keys, "kv_heads")
    yield Weight("self_attn.o_proj", "attention", h * queries)
    if shape.attention_bias:
        yield Weight("self_attn.q_proj", "norms", queries, is_matrix=False)
        yield Weight("self_attn.k_proj", "norms", 2 * keys, "kv_heads", is_matrix=False)
    if shape.use_qk_norm:
        yield Weight("self_attn.q_norm", "norms", 2 * d, "whole", is_matrix=False)


def _mla(shape: ModelShape) -> Iterator[Weight]:
    assert isinstance(shape, MlaShape)
    h, heads, rank = shape.hidden_size, shape.num_attention_heads, shape.kv_lora_rank
    query = heads * (shape.qk_nope_head_dim + shape.qk_rope_head_dim)
    if shape.q_lora_rank is None:
        yield Weight("self_attn.q_proj", "attention", h * query)
    else:
        yield Weight("self_attn.q_a_proj", "attention", h * shape.q_lora_rank, "whole")
        yield Weight("self_attn.q_a_layernorm", "norms", shape.q_lora_rank, "whole", is_matrix=False)
        yield Weight("self_attn.q_b_proj", "attention", shape.q_lora_rank * query)
    yield Weight("self_attn.kv_a_proj_with_mqa", "attention", h * (rank + shape.qk_rope_head_dim), "whole")
    yield Weight("self_attn.kv_a_layernorm", "norms", rank, "whole", is_matrix=False)
    yield Weight(
        "self_attn.kv_b_proj", "attention", rank * heads * (shape.qk_nope_head_dim + shape.v_head_dim)
    )
    yield Weight("self_attn.o_proj", "attention", heads * shape.v_head_dim * h)


def _indexer(shape: ModelShape) -> Iterator[Weight]:
    if not isinstance(shape, DsaShape):
        return
    h, width = shape.hidden_size, shape.index_n_heads * shape.index_head_dim
    yield Weight("self_attn.indexer.wq_b", "indexer", shape.q_lora_rank * width, "whole")
    yield Weight("self_attn.indexer.wk", "indexer", h * shape.index_head_dim, "whole")
    yield Weight("self_attn.indexer.weights_proj", "indexer", h * shape.index_n_heads, "whole")
    yield Weight("self_attn.indexer.k_norm", "norms", 2 * shape.index_head_dim, "whole", is_matrix=False)


def _moe(shape: ModelShape) -> Iterator[Weight]:
    routed, shared = shape.n_routed_experts, shape.n_shared_experts
    yield Weight("mlp.experts.0.up_proj", "routed_experts", routed * shape.expert_params, "experts")
    if shared:
        yield Weight("mlp.shared_experts.up_proj", "shared_experts", shared * shape.expert_params)
    yield Weight("mlp.gate", "router", shape.hidden_size * routed, "whole")
    yield Weight("mlp.gate.e_score_correction_bias", "router", routed, "whole", is_matrix=False)
