"""Arithmetic of rules: KV splits and pages, and what the model's config.json says."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from glmlab.rulebook.moe_files import tuned_file
from glmlab.rulebook.predicate import FINE as _FINE
from glmlab.rulebook.predicate import Found
from glmlab.rulebook.predicate import predicate as _predicate

_GRID_2D = 128  # MIN_LAUNCH_GRID_SIZE_2D of triton_attn.py, 0.26 and 0.32


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
