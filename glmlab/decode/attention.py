"""Decode attention of one layer: what reading the KV takes, and what the kernel takes whatever it reads.

Split-KV kernels (TRITON_ATTN, TRITON_MLA, sglang's Triton) start one *program* for each split of each
sequence and block of heads. At batch 1 there are few, and each reads a few GB a second: then time goes with
the KV of one program, not with the memory's bandwidth. With many programs all together reach a ceiling.
Between the two,

    (serial^n + shared^n)^(1/n),   serial = KV bytes of a program / what it reads a second,
                                   shared = KV bytes of all / what all read together

where several blocks of heads read the same latent: each reads it again through its multiprocessors, and the
memory once. Other kernels fill the GPU by themselves: for them ``serial`` is 0. Sparse attention reads
``index_topk`` tokens, and its indexer the keys of the whole context.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from glmlab.decode.constants import AttentionKernel, Case
from glmlab.decode.setup import Setup
from glmlab.footprint.split_kv import decode_splits
from glmlab.models.shape import DsaShape, GqaShape

_LEAST_TOKENS = 32  # of a split: BLOCK_N of triton_decode_attention.py, the tile of TRITON_ATTN with FP8 KV
_HEADS_OF_A_BLOCK = 16  # BLOCK_H of triton_decode_attention.py, BLOCK_M of triton_unified_attention.py


def kv_ms(setup: Setup, stage: int, sequences: int, context: int, case: Case) -> float:
    """Milliseconds that the layers of a stage need to read the KV of some sequences.

    Parameters
    ----------
    setup : Setup
        What the prediction is about.
    stage : int
        Of the pipeline, from 0.
    sequences : int
        Decoded together.
    context : int
        Tokens of each.
    case : {"best", "value", "worst"}
        Which end of the constants.
    """
    first, last = setup.stages[stage]
    shared = setup.recipe.decode_context_parallel
    held = math.ceil(context / shared)
    layers = last - first
    if isinstance(setup.shape, DsaShape) and setup.sparse:
        chosen = min(held, math.ceil(setup.shape.index_topk / shared))
        indexers = sum(first <= layer < last for layer in setup.shape.indexer_layer_numbers)
        one = _streamed_us(setup, sequences * chosen * setup.layer_kv_bytes, case)
        keys = _streamed_us(setup, sequences * held * setup.shape.indexer_bytes_per_layer, case)
        return (layers * one + indexers * keys) / 1e3
    return layers * _layer_us(setup, sequences, held, case) / 1e3


def attention_floor_us(setup: Setup, sequences: int, case: Case) -> float:
    """Microseconds of one layer's attention that no shorter context saves: launches, splits, joining."""
    kernel = setup.kernel
    fixed = kernel.fixed_us.at(case)
    if kernel.program_gb_s is None:
        return fixed
    splits = decode_splits(setup.recipe, setup.shape, setup.gpu, setup.choices, sequences)
    each = kernel.split_us.at(case) + sequences * kernel.split_sequence_us.at(case)
    return fixed + splits * each


def _layer_us(setup: Setup, sequences: int, context: int, case: Case) -> float:
    """Of one layer, all splits at work."""
    kernel, blocks = setup.kernel, _head_blocks(setup)
    each = context * setup.layer_kv_bytes  # of one sequence
    if kernel.program_gb_s is None:
        return _streamed_us(setup, sequences * each, case)
    splits = decode_splits(setup.recipe, setup.shape, setup.gpu, setup.choices, sequences)
    working = max(1, min(splits, math.ceil(context / _LEAST_TOKENS)))
    # GQA: the heads of a block share one KV head, so blocks share the KV; MLA: each block reads all of it.
    of_a_block = each / blocks if isinstance(setup.shape, GqaShape) else each
    serial = of_a_block / working / (kernel.program_gb_s.at(case) * 1e3)
    shared = sequences * max(
        each / _memory_gb_s(setup, kernel, case),
        blocks * of_a_block / _multiprocessors_gb_s(setup, kernel, case),
    )
    return _joined((serial, shared / 1e3), setup.constants.join_exponent.at(case))


def _joined(times: Sequence[float], exponent: float) -> float:
    """Of things that partly hide each other: between their sum and the longest."""
    return float(sum(time**exponent for time in times) ** (1 / exponent))


def _head_blocks(setup: Setup) -> int:
    if isinstance(setup.shape, GqaShape):
        return max(1, setup.shape.num_key_value_heads // setup.recipe.tensor_parallel)
    return math.ceil(setup.heads * setup.recipe.decode_context_parallel / _HEADS_OF_A_BLOCK)


def _memory_gb_s(setup: Setup, kernel: AttentionKernel, case: Case) -> float:
    return setup.bandwidth_gb_s * kernel.bandwidth_share.at(case)


def _multiprocessors_gb_s(setup: Setup, kernel: AttentionKernel, case: Case) -> float:
    if kernel.multiprocessor_gb_s is None:
        return math.inf
    return setup.gpu.sms * kernel.multiprocessor_gb_s.at(case)


def _streamed_us(setup: Setup, size: float, case: Case) -> float:
    """Of a kernel that fills the GPU by itself."""
    return size / _memory_gb_s(setup, setup.kernel, case) / 1e3
