"""Arithmetic that rules refer to by name (``holds:``): what a table of facts cannot say.

A predicate gets all facts and gives what it found, under names that the rule's texts and change may use;
an empty mapping where all is well; ``None`` where a number that it needs is not known.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from glmlab.rulebook.moe_files import tuned_file
from glmlab.rulebook.predicate import FINE as _FINE
from glmlab.rulebook.predicate import Found
from glmlab.rulebook.predicate import predicate as _predicate
from glmlab.tiles import DEFAULT, Tile, TileTable

# Bytes of one activation and of one weight in vLLM's Triton fused-MoE kernel, by the weights' format:
# FP8 experts get FP8 activations, INT4 and INT8 ones BF16 (fused_moe.py of 0.26 and 0.32).
_OPERANDS = {"bf16": (2.0, 2.0), "fp8": (1.0, 1.0), "int4": (2.0, 0.5), "int8": (2.0, 1.0)}
# triton_decode_attention.py 472-573 and triton_unified_attention.py 784-797 of vLLM 0.32: BLOCK_N and
# stages of decode attention; Triton's own default is 3 stages.
_MLA_TILE, _MLA_STAGES = 32, 2
_GQA_TILE, _GQA_TILE_FP8, _GQA_STAGES = 16, 32, 3
_GRID_2D = 128  # MIN_LAUNCH_GRID_SIZE_2D of triton_attn.py, 0.26 and 0.32


# ---------------------------------------------------------------------- how a model divides over ranks
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


# ---------------------------------------------------------------------- shared memory
def _limit(facts: dict[str, Any]) -> int | None:
    return None if facts["gpu"] is None else int(facts["gpu"].shared_memory_per_block_bytes)


def _table_exceeds(facts: dict[str, Any], field: str, *, all_stages: bool) -> Found:
    """The tiles of a table that take too much; ``all_stages`` counts each stage, else all but one."""
    written, limit = facts[field], _limit(facts)
    if written is None or written == DEFAULT:
        return _FINE
    operands = (1.0, 1.0) if field == "fp8_gemm_tiles" else _OPERANDS.get(facts.get("model.weights", ""))
    if limit is None or operands is None:
        return None
    table = TileTable.parse(written)
    least = {count: tile.shared_memory_bytes(*operands) for count, tile in table.items()}
    most = {count: _every_stage(tile, operands) for count, tile in table.items()}
    wrong = [c for c in table if (least[c] <= limit < most[c] if all_stages else least[c] > limit)]
    if not wrong or (all_stages and max(least.values()) > limit):
        return _FINE
    needed = (most if all_stages else least)[wrong[0]]
    fitted = TileTable({count: _fitted(tile, operands, limit) for count, tile in table.items()})
    return {
        "tile": str(table[wrong[0]]),
        "needed": f"{needed:,}",
        "limit": f"{limit:,}",
        "fitting": str(fitted),
    }


def _every_stage(tile: Tile, operands: tuple[float, float]) -> int:
    one = tile.block_m * tile.block_k * operands[0] + tile.block_k * tile.block_n * operands[1]
    return int(one * tile.num_stages)


def _fitted(tile: Tile, operands: tuple[float, float], limit: int) -> Tile:
    """The tile with fewer stages, then with smaller blocks, until it certainly fits."""
    sizes = tile.to_vllm()
    while _every_stage(Tile.from_vllm(sizes), operands) > limit:
        if sizes["num_stages"] > 2:
            sizes["num_stages"] -= 1
            continue
        largest = max(("BLOCK_SIZE_K", "BLOCK_SIZE_N", "BLOCK_SIZE_M"), key=lambda name: sizes[name])
        if sizes[largest] == 16:
            break
        sizes[largest] //= 2
    return Tile.from_vllm(sizes)


_TILE_SAYS = ("tile", "needed", "limit", "fitting")


@_predicate(reads=("moe_tiles", "quantization"), says=_TILE_SAYS)
def moe_tile_exceeds_shared_memory(facts: dict[str, Any]) -> Found:
    """(M K a + K N b) (stages - 1) bytes, which every version of Triton takes, exceed a block's."""
    return _table_exceeds(facts, "moe_tiles", all_stages=False)


@_predicate(reads=("moe_tiles", "quantization"), says=_TILE_SAYS)
def moe_tile_may_exceed_shared_memory(facts: dict[str, Any]) -> Found:
    """(M K a + K N b) stages bytes, which some versions of Triton take, exceed a block's."""
    return _table_exceeds(facts, "moe_tiles", all_stages=True)


@_predicate(reads=("fp8_gemm_tiles",), says=_TILE_SAYS)
def fp8_gemm_tile_exceeds_shared_memory(facts: dict[str, Any]) -> Found:
    """The same for the block-FP8 GEMM, whose operands are one byte each."""
    return _table_exceeds(facts, "fp8_gemm_tiles", all_stages=False)


@_predicate(
    reads=("attn_decode_tile", "attn_decode_stages", "kv_cache_dtype", "dense_mla"),
    says=("needed", "limit", "fitting", "fewer"),
)
def attention_tile_exceeds_shared_memory(facts: dict[str, Any]) -> Found:
    """Stages x KV tokens x what one token holds for one KV head exceed a block's."""
    shape, limit = facts["shape"], _limit(facts)
    if shape is None or limit is None:
        return None
    grouped, fp8 = shape.attention == "gqa", facts["kv_cache_dtype"].startswith("fp8")
    values = 2 * shape.head_size if grouped else shape.kv_values_per_layer
    own = (_GQA_TILE_FP8 if fp8 else _GQA_TILE) if grouped else _MLA_TILE
    stages = facts["attn_decode_stages"] or (_GQA_STAGES if grouped else _MLA_STAGES)
    tile, one = facts["attn_decode_tile"] or own, values * (1 if fp8 else 2)
    needed = tile * stages * one
    if needed <= limit:
        return _FINE
    fitting, fewer = tile, min(stages, 2)
    while fitting > 16 and fitting * fewer * one > limit:
        fitting //= 2
    return {"needed": f"{needed:,}", "limit": f"{limit:,}", "fitting": fitting, "fewer": fewer}


# ---------------------------------------------------------------------- KV splits and pages
@_predicate(reads=("kv_splits",), says=("nearest",))
def splits_are_no_power_of_two(facts: dict[str, Any]) -> Found:
    """tl.arange takes powers of two only."""
    splits = facts["kv_splits"] or 0
    return {"nearest": 1 << (splits.bit_length() - 1)} if splits & (splits - 1) else _FINE


@_predicate(reads=("kv_split_min_grid", "max_num_seqs", "tensor_parallel"), says=("until", "grid"))
def batch_beyond_split_grid(facts: dict[str, Any]) -> Found:
    """Above grid / KV heads of a rank sequences, TRITON_ATTN does not split at all."""
    if facts["shape"] is None:
        return None
    heads = max(1, facts["shape"].kv_heads // facts["tensor_parallel"])
    until = (facts["kv_split_min_grid"] or _GRID_2D) // heads
    if facts["max_num_seqs"] <= until:
        return _FINE
    grid = 1 << (facts["max_num_seqs"] * heads - 1).bit_length()
    return {"until": until, "grid": grid}


def _page(facts: dict[str, Any], multiple: int) -> Found:
    return {"yes": True} if facts["block_size"] is not None and facts["block_size"] % multiple else _FINE


@_predicate(reads=("block_size",))
def page_is_no_multiple_of_16(facts: dict[str, Any]) -> Found:
    """Pages of vLLM's Triton backends are multiples of 16 tokens."""
    return _page(facts, 16)


@_predicate(reads=("block_size",))
def page_is_no_multiple_of_64(facts: dict[str, Any]) -> Found:
    """Pages of the sparse MLA backend are multiples of 64 tokens."""
    return _page(facts, 64)


# ---------------------------------------------------------------------- what config.json says
@_predicate(reads=("max_model_len",), says=("longest",))
def context_beyond_model(facts: dict[str, Any]) -> Found:
    """A context longer than the model's positions."""
    if facts["shape"] is None:
        return None
    longest = facts["shape"].max_position_embeddings
    return {"longest": longest} if (facts["max_model_len"] or 0) > longest else _FINE


@_predicate(reads=(), says=("stray", "routed"))
def stray_num_experts(facts: dict[str, Any]) -> Found:
    """A ``num_experts`` beside ``n_routed_experts`` that says otherwise."""
    config = facts["config"]
    if config is None:
        return None
    stray, routed = config.get("num_experts"), config.get("n_routed_experts")
    return {"stray": stray, "routed": routed} if stray not in (None, routed) else _FINE


@_predicate(reads=("engine_args",))
def index_pattern_missing(facts: dict[str, Any]) -> Found:
    """Layers share indexers by ``index_topk_freq``, and nothing lists which."""
    config = facts["config"]
    if config is None:
        return None
    overrides = facts["engine_args"].get("hf_overrides")
    given = {**config, **(overrides if isinstance(overrides, Mapping) else {})}
    shared = (given.get("index_topk_freq") or 1) > 1
    listed = given.get("index_topk_pattern") or given.get("indexer_types")
    return {"yes": True} if shared and not listed else _FINE


@_predicate(reads=("moe_tiles", "tensor_parallel", "expert_parallel", "quantization"), says=("file",))
def no_tuned_moe_file(facts: dict[str, Any]) -> Found:
    """vLLM ships no tile file of this name."""
    shape, gpu, weights = facts["shape"], facts["gpu"], facts.get("model.weights")
    if shape is None or gpu is None or weights is None or not gpu.device_names:
        return None
    if weights not in ("bf16", "fp8"):
        return _FINE
    experts, width = shape.n_routed_experts, shape.moe_intermediate_size
    ranks = facts["tensor_parallel"]
    if facts["expert_parallel"]:
        experts = -(-experts // (ranks * facts["data_parallel"]))
    else:
        width //= ranks
    block = facts["fp8_block"]
    kind = "" if weights == "bf16" else ",dtype=fp8_w8a8"
    kind += f",block_shape={json.dumps(list(block), separators=(',', ':'))}" if block and kind else ""
    names = [
        f"E={experts},N={width},device_name={device.replace(' ', '_')}{kind}.json"
        for device in gpu.device_names
    ]
    return _FINE if any(tuned_file(name) for name in names) else {"file": names[0]}
