"""The rank twin: what one tensor-parallel rank of a model computes, as a model of its own.

A deployment over several GPUs can be tuned on one: its twin has the kernels' shapes that a rank
has, and runs without the others. It is named ``NAME@tp4-l4``, with NAME any model whose config.json
is known, 4 ranks, and 4 of its layers.

What a rank holds is what the layers of vLLM 0.32.0 give it (``model_executor/layers``: linear,
vocab_parallel_embedding, fused_moe; models glm4_moe, glm4_moe_lite, deepseek_v2):

=======================================  ====================================================
query heads, dense and expert widths     divided by the ranks (shared experts' width too)
KV heads of GQA                          divided, or one where there are more ranks than heads
vocabulary                               padded to a multiple of 64, then divided
norms, router, q_a, kv_a, MLA's latent   whole
experts                                  all of them, each narrower
=======================================  ====================================================

Where a rank's part of the vocabulary is no multiple of 64 (GLM-5.1 over 8 ranks), vLLM pads the
twin's once more: up to 63 rows of embedding and head that no rank has.

A ``glm_moe_dsa`` becomes a ``glm4_moe_lite``: the same latent attention and routing without the
sparse part, since TRITON_MLA, which tuning is about, is dense. Both hold the same weights but for
the indexer's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from glmlab.errors import RecipeError
from glmlab.models.shape import DsaShape, GqaShape, ModelShape

CARRIES_OVER = (
    "shapes of every sharded GEMM and of the fused-MoE kernel on a rank, hence their tiles and backends",
    "heads per rank, head size and KV layout, hence kv_splits, attention tiles, warps and stages",
    "KV bytes per token and layer on a rank",
)
DOES_NOT = (
    "collectives (no time here has an all-reduce in it, nor what would overlap with one)",
    "memory pressure (with fewer layers a rank's weights and KV pool are smaller than they will be)",
    "layer count (a step's time is that of the twin's layers; head and host weigh more in it)",
    "MTP (its layer is left out)",
    "the DSA indexer and sparse attention of GLM-5 (attention here is dense)",
    "answers (weights are random, and a trained router spreads tokens its own way)",
)

_VOCABULARY_PADDING = 64  # DEFAULT_VOCAB_PADDING_SIZE of vLLM's vocab_parallel_embedding
_NAME = re.compile(r"(?P<base>.+)@tp(?P<tp>[1-9][0-9]{0,8})-l(?P<layers>[1-9][0-9]{0,8})")
_MARK = "glmlab_rank_twin"  # in a twin's config.json: what it is, and that it has no twin itself

# Of the checkpoint, lists with an entry per layer, and token ids, which end beyond the twin's vocabulary.
_LEFT_OUT = frozenset(
    {
        "auto_map",
        "bos_token_id",
        "compression_config",
        "eos_token_id",
        "layer_types",
        "mlp_layer_types",
        "num_experts",
        "num_mtp_layers",
        "pad_token_id",
        "quantization_config",
    }
)
_LEFT_OUT_OF_DSA = frozenset({"head_dim", "qk_head_dim"})  # another thing in glm4_moe_lite
_ARCHITECTURES = {
    "glm4_moe": "Glm4MoeForCausalLM",
    "glm4_moe_lite": "Glm4MoeLiteForCausalLM",
}


class TwinName(NamedTuple):
    """A twin's name, taken apart.

    Attributes
    ----------
    base : str
        Name or folder of the model.
    tp : int
        Ranks that the model is spread over.
    layers : int
        Layers of the twin.
    """

    base: str
    tp: int
    layers: int

    @classmethod
    def parse(cls, name: str) -> TwinName | None:
        """Take a name apart; ``None`` where it is not meant as a twin's.

        Raises
        ------
        RecipeError
            If it is meant as one (an ``@`` in its last part) and is not written like one, or is
            the twin of a twin.
        """
        if "@" not in name.rpartition("/")[2]:
            return None
        found = _NAME.fullmatch(name)
        if found is None:
            base = name.rpartition("@")[0] or "glm-4.7"
            raise RecipeError(
                f"model = {name!r}: a rank twin is written NAME@tpT-lL, T ranks and L layers, such as"
                f" {base}@tp4-l4"
            )
        inner = _NAME.fullmatch(found["base"])
        if inner is not None:
            raise RecipeError(
                f"model = {name!r}: a twin of a twin; name the model itself, such as"
                f" {inner['base']}@tp{found['tp']}-l{found['layers']}"
            )
        return cls(found["base"], int(found["tp"]), int(found["layers"]))

    def __str__(self) -> str:
        return f"{self.base}@tp{self.tp}-l{self.layers}"


def twin_config(config: Mapping[str, Any], tp: int, layers: int, name: str) -> dict[str, Any]:
    """The config.json of the model that one of ``tp`` ranks computes.

    Parameters
    ----------
    config : mapping
        Content of the model's config.json.
    tp : int
        Ranks.
    layers : int
        Layers of the twin; see :func:`dense_layers` for which.
    name : str
        The model, for errors.

    Raises
    ------
    RecipeError
        If the model cannot be spread over so many ranks or has fewer layers, or is a twin itself.
    """
    if _MARK in config:
        raise RecipeError(f"model = {name!r}: is a rank twin already, which has no twin of its own")
    shape = ModelShape.parse(config, f"model {name}")
    _check_ranks(shape, tp, name)
    if not _is_whole(layers) or not 1 <= layers <= shape.num_hidden_layers:
        raise RecipeError(
            f"layers = {layers!r}: a rank twin of {name} has 1 to {shape.num_hidden_layers} layers"
        )
    twin = {key: value for key, value in config.items() if not _is_left_out(key, shape)}
    family = "glm4_moe" if isinstance(shape, GqaShape) else "glm4_moe_lite"
    dense = dense_layers(shape, layers)
    twin |= {
        "architectures": [_ARCHITECTURES[family]],
        "model_type": family,
        "num_hidden_layers": layers,
        "first_k_dense_replace": dense,
        "num_nextn_predict_layers": 0,
        "num_attention_heads": shape.num_attention_heads // tp,
        "num_key_value_heads": shape.num_attention_heads // tp,
        "intermediate_size": shape.intermediate_size // tp,
        "moe_intermediate_size": shape.moe_intermediate_size // tp,
        "vocab_size": _padded(shape.vocab_size) // tp,
        _MARK: {"tensor_parallel": tp, "of_layers": shape.num_hidden_layers},
    }
    if isinstance(shape, GqaShape):
        twin["num_key_value_heads"] = max(1, shape.num_key_value_heads // tp)
        twin["head_dim"] = shape.head_size  # would else follow from the twin's fewer heads
    else:
        # vLLM reads first_k_dense_replace; transformers knows only this for this family
        twin["mlp_layer_types"] = ["dense"] * dense + ["sparse"] * (layers - dense)
    if isinstance(shape, DsaShape):
        twin = {"topk_method": "noaux_tc", "scoring_func": "sigmoid"} | twin
    return twin


def description(asked: TwinName, config: Mapping[str, Any]) -> str:
    """What a twin is, in one line.

    Parameters
    ----------
    asked : TwinName
        Its name.
    config : mapping
        Of the model that it is the twin of.
    """
    shape = ModelShape.parse(config, f"model {asked.base}")
    dense = dense_layers(shape, asked.layers)
    return (
        f"rank twin: what one of {asked.tp} tensor-parallel ranks of {asked.base} computes, in"
        f" {asked.layers} of its {shape.num_hidden_layers} layers ({dense} dense, where it has"
        f" {shape.first_k_dense_replace})"
    )


def dense_layers(shape: ModelShape, layers: int) -> int:
    """How many of a twin's layers are dense: the model's share, and at least one of each kind.

    A single layer is one with experts: vLLM refuses these models without any.
    """
    dense, total = shape.first_k_dense_replace, shape.num_hidden_layers
    if dense == total:
        return layers
    if dense == 0:
        return 0
    nearest = (2 * layers * dense + total) // (2 * total)
    return min(max(nearest, 1), layers - 1)


def _check_ranks(shape: ModelShape, tp: int, name: str) -> None:
    """Refuse ranks that something of the model does not divide over; vLLM does so, too."""
    if _is_whole(tp) and tp >= 1 and not (wrong := _indivisible(shape, tp)):
        return
    allowed = [n for n in range(1, shape.num_attention_heads + 1) if not _indivisible(shape, n)]
    why = f" ({', '.join(wrong)} cannot be spread so)" if _is_whole(tp) and tp >= 1 else ""
    raise RecipeError(f"tp = {tp!r}: {name} spreads over {', '.join(map(str, allowed))} ranks{why}")


def _indivisible(shape: ModelShape, tp: int) -> list[str]:
    sizes = {
        "num_attention_heads": shape.num_attention_heads,
        "intermediate_size": shape.intermediate_size,
        "moe_intermediate_size": shape.moe_intermediate_size,
        "vocab_size": _padded(shape.vocab_size),
    }
    wrong = [f"{key} = {size}" for key, size in sizes.items() if size % tp]
    if isinstance(shape, GqaShape):
        heads = shape.num_key_value_heads
        if heads % tp and tp % heads:
            wrong.insert(0, f"num_key_value_heads = {heads}")
    return wrong


def _padded(vocabulary: int) -> int:
    return -(-vocabulary // _VOCABULARY_PADDING) * _VOCABULARY_PADDING


def _is_left_out(key: str, shape: ModelShape) -> bool:
    if key in _LEFT_OUT:
        return True
    return isinstance(shape, DsaShape) and (key in _LEFT_OUT_OF_DSA or key.startswith("index"))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
