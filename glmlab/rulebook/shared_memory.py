"""Arithmetic of rules: tiles against the shared memory that a block of the GPU may take."""

from __future__ import annotations

from typing import Any

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
