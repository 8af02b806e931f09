"""ModelShape: what a GLM's config.json says of its size, and what follows from it.

Parameter formulas per layer, with ``h`` the hidden size (names of weights as in the checkpoints):

==================  ===================================================================================
GQA attention       ``h (q + 2 kv) d`` for q, k, v (and as many biases where ``attention_bias``, less the
                    ``h``), ``q d h`` for o; ``2 d`` for the norms of q and k where ``use_qk_norm``
MLA attention       ``h rq + rq + rq q (nope + rope)`` for q (``h q (nope + rope)`` where ``q_lora_rank`` is
                    null), ``h (rkv + rope) + rkv + rkv q (nope + v)`` for k and v, ``q v h`` for o
DSA indexer         ``rq nI dI + h dI + h nI + 2 dI``, in the layers that have one of their own
dense FFN           ``3 h intermediate``
mixture of experts  ``3 h moe_intermediate (routed + shared)``, router ``h routed`` and its bias ``routed``
norms               ``2 h``; after the last layer ``h`` once
embedding, head     ``vocab h`` each, once where ``tie_word_embeddings``
MTP layer           a mixture layer with attention, ``2 h h`` to join the two inputs, ``3 h`` of norms;
                    embedding and head are the model's own
==================  ===================================================================================

Source: the modules Glm4Moe, Glm4MoeLite and GlmMoeDsa of transformers 5.19.0, whose parameters, counted
on full-size configurations, these formulas give to the last one.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, ValidationError, model_validator

from glmlab.errors import RecipeError
from glmlab.names import did_you_mean

Attention = Literal["gqa", "mla", "mla+dsa"]

# vLLM keeps the indexer's keys in FP8 with one FP32 scale for every 128 of them (deepseek_v2.py, Indexer).
_INDEXER_SCALE_GROUP = 128
_INDEXER_SCALE_BYTES = 4

# Strict: a config.json that says true or "8" where a size is meant is broken.
Size = Annotated[int, Field(strict=True, ge=1)]
SizeOrZero = Annotated[int, Field(strict=True, ge=0)]


class ModelShape(BaseModel, ABC):
    """Sizes of one model. The field names are those of config.json; its other keys do not matter here."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())

    attention: ClassVar[Attention]

    model_type: str
    vocab_size: Size
    hidden_size: Size
    intermediate_size: Size
    moe_intermediate_size: Size
    num_hidden_layers: Size
    first_k_dense_replace: SizeOrZero
    num_attention_heads: Size
    n_routed_experts: Size
    num_experts_per_tok: Size
    n_shared_experts: SizeOrZero
    max_position_embeddings: Size
    num_nextn_predict_layers: SizeOrZero = 0
    tie_word_embeddings: StrictBool = False
    moe_layer_freq: Literal[1] = 1

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        if self.num_experts_per_tok > self.n_routed_experts:
            raise ValueError(
                f"num_experts_per_tok = {self.num_experts_per_tok} exceeds"
                f" n_routed_experts = {self.n_routed_experts}"
            )
        if self.first_k_dense_replace > self.num_hidden_layers:
            raise ValueError(
                f"first_k_dense_replace = {self.first_k_dense_replace} exceeds"
                f" num_hidden_layers = {self.num_hidden_layers}"
            )
        return self

    @staticmethod
    def parse(config: Mapping[str, Any], where: str) -> ModelShape:
        """Read the content of a config.json.

        Parameters
        ----------
        config : mapping
            The content.
        where : str
            Names it in errors.

        Raises
        ------
        RecipeError
            For another family, a missing field, or a value that cannot be.
        """
        family = config.get("model_type")
        if not isinstance(family, str) or family not in _SHAPES:
            near = did_you_mean(str(family), _SHAPES)
            raise RecipeError(f"{where}: model_type = {family!r}: not a GLM that glmlab can compute{near}")
        try:
            return _SHAPES[family].model_validate(dict(config))
        except ValidationError as error:
            raise RecipeError.from_validation(error, where) from None

    # ------------------------------------------------------------------ per layer
    @property
    @abstractmethod
    def attention_params(self) -> int:
        """Parameters of one layer's attention, without an indexer."""

    @property
    @abstractmethod
    def kv_values_per_layer(self) -> int:
        """Numbers that one token leaves in one layer's KV cache, all heads together."""

    @property
    def indexer_params(self) -> int:
        """Parameters of one DSA indexer."""
        return 0

    @property
    def indexer_layer_numbers(self) -> tuple[int, ...]:
        """Layers with a DSA indexer of their own; the others use the choice of the one before."""
        return ()

    @property
    def indexer_layers(self) -> int:
        """How many layers have a DSA indexer of their own."""
        return len(self.indexer_layer_numbers)

    @property
    def indexer_bytes_per_layer(self) -> int:
        """Bytes that one token leaves in one indexer's key cache, scales included."""
        return 0

    @property
    def expert_params(self) -> int:
        """Parameters of one expert."""
        return 3 * self.hidden_size * self.moe_intermediate_size

    @property
    def moe_params(self) -> int:
        """Parameters of one layer's mixture: experts, shared experts, router."""
        experts = self.n_routed_experts + self.n_shared_experts
        return experts * self.expert_params + (self.hidden_size + 1) * self.n_routed_experts

    @property
    def moe_layers(self) -> int:
        """Layers with experts, the MTP layer not counted."""
        return self.num_hidden_layers - self.first_k_dense_replace

    # ------------------------------------------------------------------ whole model
    @property
    def embedding_params(self) -> int:
        """Parameters of the input embedding; the output head has as many."""
        return self.vocab_size * self.hidden_size

    @property
    def total_params(self) -> int:
        """All parameters but the MTP layer's."""
        dense = 3 * self.hidden_size * self.intermediate_size
        return (
            self.embedding_params * (1 if self.tie_word_embeddings else 2)
            + self.num_hidden_layers * (self.attention_params + 2 * self.hidden_size)
            + self.indexer_layers * self.indexer_params
            + self.first_k_dense_replace * dense
            + self.moe_layers * self.moe_params
            + self.hidden_size
        )

    @property
    def active_params(self) -> int:
        """Parameters that one token passes through: top-k experts, output head in, input embedding out."""
        idle = self.n_routed_experts - self.num_experts_per_tok
        looked_up = 0 if self.tie_word_embeddings else self.embedding_params
        return self.total_params - looked_up - self.moe_layers * idle * self.expert_params

    @property
    def mtp_params(self) -> int:
        """Parameters of the MTP layer, which :attr:`total_params` leaves out."""
        layer = self.attention_params + self.indexer_params + self.moe_params
        joining = 2 * self.hidden_size**2 + 5 * self.hidden_size
        return self.num_nextn_predict_layers * (layer + joining)

    @property
    def kv_heads(self) -> int:
        """KV heads that tensor parallelism can spread; 1 for MLA, whose latent every rank needs whole."""
        return 1

    def spreads_over(self, ranks: int) -> bool:
        """Whether the query heads divide over so many ranks, and the KV heads divide or repeat over them."""
        queries, keys = self.num_attention_heads, self.kv_heads
        return ranks >= 1 and queries % ranks == 0 and (keys % ranks == 0 or ranks % keys == 0)


class GqaShape(ModelShape):
    """Grouped-query attention: GLM-4.5, 4.6, 4.7."""

    attention: ClassVar[Attention] = "gqa"

    num_key_value_heads: Size
    head_dim: Size | None = None
    use_qk_norm: StrictBool = False
    attention_bias: StrictBool = False

    @model_validator(mode="after")
    def _heads_fit(self) -> Self:
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"num_key_value_heads = {self.num_key_value_heads} does not divide"
                f" num_attention_heads = {self.num_attention_heads}"
            )
        if self.head_dim is None and self.hidden_size % self.num_attention_heads:
            raise ValueError("head_dim: missing, and hidden_size / num_attention_heads is not whole")
        return self

    @property
    def head_size(self) -> int:
        """Numbers of one head, in a query, a key or a value."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def attention_params(self) -> int:
        queries = self.num_attention_heads * self.head_size
        inputs = queries + 2 * self.num_key_value_heads * self.head_size
        bias = inputs if self.attention_bias else 0
        norms = 2 * self.head_size if self.use_qk_norm else 0
        return self.hidden_size * (inputs + queries) + bias + norms

    @property
    def kv_values_per_layer(self) -> int:
        return 2 * self.num_key_value_heads * self.head_size

    @property
    def kv_heads(self) -> int:
        return self.num_key_value_heads


class MlaShape(ModelShape):
    """Multi-head latent attention: GLM-4.7-Flash."""

    attention: ClassVar[Attention] = "mla"

    q_lora_rank: Size | None
    kv_lora_rank: Size
    qk_nope_head_dim: Size
    qk_rope_head_dim: Size
    v_head_dim: Size

    @property
    def attention_params(self) -> int:
        h, heads, rank = self.hidden_size, self.num_attention_heads, self.kv_lora_rank
        query = heads * (self.qk_nope_head_dim + self.qk_rope_head_dim)
        queries = h * query if self.q_lora_rank is None else self.q_lora_rank * (h + 1 + query)
        down = h * (rank + self.qk_rope_head_dim) + rank
        up = rank * heads * (self.qk_nope_head_dim + self.v_head_dim)
        return queries + down + up + heads * self.v_head_dim * h

    @property
    def kv_values_per_layer(self) -> int:
        return self.kv_lora_rank + self.qk_rope_head_dim


class DsaShape(MlaShape):
    """MLA with DeepSeek sparse attention: GLM-5, 5.1, 5.2."""

    attention: ClassVar[Attention] = "mla+dsa"

    q_lora_rank: Size
    index_n_heads: Size
    index_head_dim: Size
    index_topk: Size
    # 5.2 has an indexer in some layers only: listed by name, by letter, or as a schedule.
    indexer_types: tuple[Literal["full", "shared"], ...] | None = None
    index_topk_pattern: str | tuple[str, ...] | None = None
    index_topk_freq: Size = 1
    index_skip_topk_offset: SizeOrZero = 2

    @property
    def indexer_params(self) -> int:
        width = self.index_n_heads * self.index_head_dim
        keys = self.hidden_size * (self.index_head_dim + self.index_n_heads)
        return self.q_lora_rank * width + keys + 2 * self.index_head_dim

    @property
    def indexer_layer_numbers(self) -> tuple[int, ...]:
        """As ``GlmMoeDsaConfig.__post_init__`` of transformers 5.19.0 lays them out."""
        return self._indexers

    @cached_property
    def _indexers(self) -> tuple[int, ...]:
        kinds = self.indexer_types or self.index_topk_pattern
        if kinds is not None:
            listed = enumerate(kinds[: self.num_hidden_layers])
            return tuple(layer for layer, kind in listed if kind in ("full", "F"))
        first = self.index_skip_topk_offset - 1
        return tuple(
            layer
            for layer in range(self.num_hidden_layers)
            if max(layer - first, 0) % self.index_topk_freq == 0
        )

    @property
    def indexer_bytes_per_layer(self) -> int:
        groups = self.index_head_dim // _INDEXER_SCALE_GROUP
        return self.index_head_dim + groups * _INDEXER_SCALE_BYTES


_SHAPES: dict[str, type[ModelShape]] = {
    "glm4_moe": GqaShape,
    "glm4_moe_lite": MlaShape,
    "glm_moe_dsa": DsaShape,
}
