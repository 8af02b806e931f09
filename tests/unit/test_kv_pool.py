"""Rounding of the KV pool, against what engines reported."""

from __future__ import annotations

import pytest

from glmlab.footprint.kv_pool import KvPool
from glmlab.recorded import load_recording


@pytest.mark.parametrize(
    ("name", "bytes_per_token"),
    [
        ("h100-glm-4.7-tp4-splits", 2 * 2 * 128 * 2),  # two layers, K and V of two KV heads, FP8
        ("h100-glm-5.1-reap-160-tp4-splits", 576 * 2),
    ],
)
def test_the_recorded_engine_reported_these_tokens(name: str, bytes_per_token: int) -> None:
    header = load_recording(name).header
    recipe = header.recipe
    assert recipe.kv_cache_bytes is not None
    assert recipe.max_model_len is not None
    block_size = header.state.knobs["block_size"]
    pool = KvPool(recipe.kv_cache_bytes, bytes_per_token, block_size)
    assert pool.tokens(recipe.max_model_len) == header.state.kv_tokens


def test_tokens_count_requests_of_full_length_in_whole_blocks() -> None:
    pool = KvPool(size=100 * 16 * 10, bytes_per_token=10, block_size=16)
    assert pool.blocks == 100
    assert pool.tokens(16) == 1600
    assert pool.tokens(24) == 1200  # two blocks for 24 tokens, so 50 requests of 24


def test_one_block_is_not_for_a_sequence() -> None:
    pool = KvPool(size=100 * 160, bytes_per_token=10, block_size=16)
    assert pool.longest == 99 * 16
    assert KvPool(pool.bytes_for(pool.longest), 10, 16).longest == pool.longest
    assert KvPool(pool.bytes_for(pool.longest) - 1, 10, 16).longest == pool.longest - 16


def test_a_pool_of_nothing_holds_nothing() -> None:
    pool = KvPool(size=0, bytes_per_token=10, block_size=16)
    assert (pool.blocks, pool.tokens(4096), pool.longest) == (0, 0, 0)


def test_context_parallel_ranks_share_a_sequence() -> None:
    """Measured: 164,160 tokens in 8.25 GiB, 19,898 a GiB; with four ranks 79,595 a GiB."""
    alone = KvPool(2**30, 53_940, 64)
    shared = KvPool(2**30, 53_940 // 4, 64, context_ranks=4)
    assert alone.tokens(250_000) == pytest.approx(19_898, rel=0.005)
    assert shared.tokens(250_000) == pytest.approx(79_595, rel=0.005)
