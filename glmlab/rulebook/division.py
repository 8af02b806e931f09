"""Arithmetic of rules: how a model divides over ranks, and whether there is a GPU for each."""

from __future__ import annotations

from typing import Any

from glmlab.rulebook.predicate import FINE as _FINE
from glmlab.rulebook.predicate import Found
from glmlab.rulebook.predicate import predicate as _predicate


def _nearest_ranks(facts: dict[str, Any], most: int) -> int:
    """The highest tensor parallelism that divides heads and, without EP, the experts' columns."""
    shape, expert_parallel = facts["shape"], facts["expert_parallel"]
    block = facts["fp8_block"]
    for ranks in range(most, 1, -1):
        width = shape.moe_intermediate_size // ranks
        whole = expert_parallel or (
            shape.moe_intermediate_size % ranks == 0
            and shape.intermediate_size % ranks == 0
            and (block is None or width % block[0] == 0)
        )
        if shape.spreads_over(ranks) and whole:
            return ranks
    return 1


@_predicate(reads=("tensor_parallel", "expert_parallel"), says=("heads", "kv_heads", "nearest"))
def heads_do_not_divide(facts: dict[str, Any]) -> Found:
    """Query heads must divide by tensor_parallel, KV heads divide or repeat."""
    shape, ranks = facts["shape"], facts["tensor_parallel"]
    if shape is None:
        return None
    if shape.spreads_over(ranks):
        return _FINE
    nearest = _nearest_ranks(facts, ranks)
    return {"heads": shape.num_attention_heads, "kv_heads": shape.kv_heads, "nearest": nearest}


@_predicate(reads=("tensor_parallel", "expert_parallel"), says=("what", "width", "nearest"))
def width_does_not_divide(facts: dict[str, Any]) -> Found:
    """Columns of an expert and of the dense layers must divide by tensor_parallel."""
    shape, ranks = facts["shape"], facts["tensor_parallel"]
    if shape is None:
        return None
    widths = {"moe_intermediate_size": shape.moe_intermediate_size}
    if facts["expert_parallel"]:
        widths = {}
    if shape.first_k_dense_replace:
        widths["intermediate_size"] = shape.intermediate_size
    for what, width in widths.items():
        if width % ranks:
            return {"what": what, "width": width, "nearest": _nearest_ranks(facts, ranks)}
    return _FINE


@_predicate(reads=("tensor_parallel", "expert_parallel", "quantization"), says=("width", "block", "nearest"))
def fp8_blocks_do_not_divide(facts: dict[str, Any]) -> Found:
    """An expert's columns on one rank must be whole quantization blocks."""
    shape, block = facts["shape"], facts["fp8_block"]
    if shape is None:
        return None
    if block is None or facts["expert_parallel"] or shape.moe_intermediate_size % facts["tensor_parallel"]:
        return _FINE
    width = shape.moe_intermediate_size // facts["tensor_parallel"]
    if width % block[0] == 0:
        return _FINE
    return {"width": width, "block": block[0], "nearest": _nearest_ranks(facts, facts["tensor_parallel"])}


@_predicate(reads=("tensor_parallel", "data_parallel", "expert_parallel"), says=("experts", "ranks_ep"))
def experts_do_not_divide(facts: dict[str, Any]) -> Found:
    """With expert parallelism the experts should divide over TP x DP ranks."""
    if facts["shape"] is None:
        return None
    ranks, experts = facts["tensor_parallel"] * facts["data_parallel"], facts["shape"].n_routed_experts
    return {"experts": experts, "ranks_ep": ranks} if experts % ranks else _FINE


def _as_tensor_parallel(facts: dict[str, Any]) -> int | None:
    """TP x DP, where the model divides over so many ranks without EP; 0 where not, None if not known."""
    if facts["shape"] is None:
        return None
    ranks: int = facts["tensor_parallel"] * facts["data_parallel"]
    return ranks if _nearest_ranks({**facts, "expert_parallel": False}, ranks) == ranks else 0


@_predicate(reads=("tensor_parallel", "data_parallel"), says=("tensor",))
def data_parallel_can_be_tensor(facts: dict[str, Any]) -> Found:
    """All TP x DP ranks can be tensor-parallel ones."""
    ranks = _as_tensor_parallel(facts)
    return {"tensor": ranks} if ranks else _FINE if ranks == 0 else None


@_predicate(reads=("tensor_parallel", "data_parallel"))
def data_parallel_cannot_be_tensor(facts: dict[str, Any]) -> Found:
    """They cannot, or it is not known."""
    return _FINE if _as_tensor_parallel(facts) else {"yes": True}


@_predicate(reads=("pipeline_parallel",), says=("layers",))
def more_stages_than_layers(facts: dict[str, Any]) -> Found:
    """A pipeline stage needs a layer."""
    if facts["shape"] is None:
        return None
    layers = facts["shape"].num_hidden_layers
    return {"layers": layers} if facts["pipeline_parallel"] > layers else _FINE


@_predicate(reads=("pipeline_parallel",), says=("layers",))
def stages_of_unequal_length(facts: dict[str, Any]) -> Found:
    """Layers that do not divide leave one stage longer, which the others wait for."""
    if facts["shape"] is None:
        return None
    layers, stages = facts["shape"].num_hidden_layers, facts["pipeline_parallel"]
    return {"layers": layers} if stages <= layers and layers % stages else _FINE


@_predicate(reads=("tensor_parallel", "pipeline_parallel", "data_parallel"))
def more_ranks_than_gpus(facts: dict[str, Any]) -> Found:
    """Each rank needs a GPU."""
    count = facts.get("gpu.count")
    if count is None:
        return None
    return {"yes": True} if facts["ranks"] > count else _FINE


@_predicate(reads=("tensor_parallel", "pipeline_parallel", "data_parallel"))
def fewer_ranks_than_gpus(facts: dict[str, Any]) -> Found:
    """GPUs that no rank uses."""
    count = facts.get("gpu.count")
    if count is None:
        return None
    return {"yes": True} if facts["ranks"] < count else _FINE


@_predicate(reads=("tensor_parallel", "decode_context_parallel"))
def dcp_does_not_divide(facts: dict[str, Any]) -> Found:
    """decode_context_parallel takes its ranks from tensor_parallel."""
    return {"yes": True} if facts["tensor_parallel"] % facts["decode_context_parallel"] else _FINE


@_predicate(reads=("tensor_parallel", "decode_context_parallel"), says=("kv_heads", "most"))
def dcp_beyond_kv_heads(facts: dict[str, Any]) -> Found:
    """With GQA, decode_context_parallel splits what tensor_parallel would copy, and no more."""
    shape = facts["shape"]
    if shape is None:
        return None
    if shape.attention != "gqa":
        return _FINE
    most = max(1, facts["tensor_parallel"] // shape.kv_heads)
    return {"kv_heads": shape.kv_heads, "most": most} if facts["decode_context_parallel"] > most else _FINE
