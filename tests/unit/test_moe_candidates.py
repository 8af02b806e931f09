"""Candidates for fused-MoE tiles: enough of them, none that cannot run, drawn alike for like shapes."""

from __future__ import annotations

import pytest

from glmlab.live.moe_candidates import GpuLimits, MoeShape, candidates, shared_memory_bytes
from glmlab.tiles import Tile

HOPPER = GpuLimits(232_448, (9, 0))
SM120 = GpuLimits(101_376, (12, 0))
SHAPES = [
    MoeShape(160, 384, 5120, 8, "bf16"),
    MoeShape(160, 384, 5120, 8, "fp8"),
    MoeShape(128, 1408, 4096, 8, "bf16"),
    MoeShape(64, 1536, 2048, 4, "fp8"),
    MoeShape(256, 256, 6144, 8, "fp8"),
]
TOKENS = (1, 2, 4, 16, 64, 256, 1024, 8192)


@pytest.mark.parametrize("limits", [HOPPER, SM120], ids=["hopper", "sm120"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_there_are_enough_and_all_fit(shape, limits):
    for tokens in TOKENS:
        found = candidates(shape, tokens, limits)
        assert len(found) >= 300
        assert len(set(found)) == len(found)
        for tile in found:
            assert shared_memory_bytes(tile, shape, limits.capability) <= limits.shared_memory_bytes
            if shape.dtype == "fp8":
                assert tile.block_k <= 128


@pytest.mark.parametrize("tokens", TOKENS)
def test_blocks_have_no_more_than_twice_the_rows_that_an_expert_gets(tokens):
    shape = SHAPES[0]
    rows = {tile.block_m for tile in candidates(shape, tokens, HOPPER)}
    assert max(rows) <= max(16, 4 * tokens * shape.top_k / shape.experts)
    assert 16 in rows or tokens > 1000


def test_groups_end_where_there_are_no_more_blocks():
    assert {tile.group_m for tile in candidates(SHAPES[3], 1, HOPPER)} == {1, 4}
    assert {tile.group_m for tile in candidates(SHAPES[0], 64, HOPPER)} == {1, 4, 16, 64}


def test_a_draw_is_the_same_each_time_and_for_like_spaces():
    glm_47, air = SHAPES[0], SHAPES[2]
    drawn = candidates(glm_47, 16, HOPPER, at_most=100)
    assert len(drawn) == 100
    assert drawn == candidates(air, 16, HOPPER, at_most=100)
    assert drawn != candidates(glm_47, 16, HOPPER, at_most=100, seed=1)
    # A smaller space shares what it can: those kernels are compiled once.
    assert len(set(drawn) & set(candidates(glm_47, 1, HOPPER, at_most=100))) > 30


@pytest.mark.parametrize(
    ("dtype", "tile", "capability", "needs"),
    # Triton 3.6, vLLM's fused_moe_kernel: warp-group products keep a buffer per stage.
    [
        ("bf16", "16x64x128 g1 w4 s4", (9, 0), 61440),
        ("bf16", "64x128x64 g1 w4 s3", (9, 0), 73728),
        ("bf16", "64x128x64 g1 w4 s3", (12, 0), 49152),
        ("bf16", "128x128x64 g1 w8 s4", (9, 0), 131072),
        ("bf16", "128x32x64 g1 w2 s3", (9, 0), 40960),
        ("fp8", "16x64x128 g1 w4 s3", (9, 0), 30720),
        ("fp8", "16x32x128 g1 w8 s3", (9, 0), 12288),
        ("fp8", "16x64x128 g1 w4 s3", (12, 0), 20480),
    ],
)
def test_shared_memory_is_what_triton_takes(dtype, tile, capability, needs):
    shape = MoeShape(160, 384, 5120, 8, dtype)
    assert shared_memory_bytes(Tile.parse(tile), shape, capability) == needs


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_shape_survives_its_text(shape):
    assert MoeShape.parse(str(shape)) == shape


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("E=160,N=384,K=5120", "top_k= is missing"),
        ("E=160,N=384,K=5120,top_k=x", "expected E=, N=, K=, top_k= with a number"),
        ("E=160,N=384,K=5120,top_k=8,dtype=int8", "dtype = 'int8': must be bf16 or fp8"),
        ("E=4,N=384,K=5120,top_k=8", "top_k at most the number of experts"),
        ("E=160,N=100,K=5120,top_k=8,dtype=fp8", "multiples of the quantization blocks of 128"),
    ],
)
def test_what_is_no_shape_is_refused(text, says):
    with pytest.raises(ValueError, match="=") as refusal:
        MoeShape.parse(text)
    assert says in str(refusal.value)
