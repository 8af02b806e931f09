"""Which tiles are worth trying for one fused-MoE shape, and the shape itself.

vLLM's own tuner tries 1,920 tiles for each token count. Here what the token count makes pointless is
left out: blocks with many times more rows than an expert gets tokens, groups of more blocks than there
are, blocks that leave a thread next to nothing or more than its registers hold, and what does not fit
into shared memory.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from glmlab.tiles import Tile

Dtype = Literal["bf16", "fp8"]

_BLOCKS_N = (16, 32, 64, 128, 256)
_BLOCKS_K = {"bf16": (64, 128, 256), "fp8": (32, 64, 128)}
_GROUPS = (1, 4, 16, 64)
_WARPS = (2, 4, 8)
_STAGES = (2, 3, 4, 5)
_MOST_BLOCK_M = 128
_HALF_BLOCK_M = 64  # always tried where the largest is
_ACCUMULATORS = range(2, 129)  # FP32 numbers of the product that one thread holds
_MOST_LOADED = 512  # numbers that one thread fetches per step: more spill, and take 10 s to compile


@dataclass(frozen=True)
class MoeShape:
    """One fused-MoE layer as one rank sees it.

    Parameters
    ----------
    experts : int
        On this rank.
    n : int
        Intermediate size on this rank.
    k : int
        Hidden size.
    top_k : int
        Experts of one token.
    dtype : {"bf16", "fp8"}
        Of the weights; ``fp8`` has quantization blocks of 128 x 128, activations in groups of 128.
    """

    experts: int
    n: int
    k: int
    top_k: int
    dtype: Dtype = "bf16"

    def __post_init__(self) -> None:
        if min(self.experts, self.n, self.k, self.top_k) < 1 or self.top_k > self.experts:
            raise ValueError(f"{self}: sizes must be 1 or more, top_k at most the number of experts")
        if self.dtype not in _BLOCKS_K:
            raise ValueError(f"dtype = {self.dtype!r}: must be {' or '.join(_BLOCKS_K)}")
        if self.dtype == "fp8" and (self.n % 128 or self.k % 128):
            raise ValueError(f"{self}: N and K must be multiples of the quantization blocks of 128")

    @classmethod
    def parse(cls, text: str) -> MoeShape:
        """Read ``E=160,N=384,K=5120,top_k=8,dtype=fp8``; the order does not matter."""
        names = {"E": "experts", "N": "n", "K": "k", "top_k": "top_k"}
        sizes: dict[str, int] = {}
        dtype = "bf16"
        for part in text.split(","):
            key, _, value = part.strip().partition("=")
            if key == "dtype":
                dtype = value
            elif key in names and value.isdecimal():
                sizes[names[key]] = int(value)
            else:
                raise ValueError(f"{part!r}: expected E=, N=, K=, top_k= with a number, or dtype=bf16|fp8")
        if missing := [key for key, name in names.items() if name not in sizes]:
            raise ValueError(f"{text!r}: {missing[0]}= is missing")
        return cls(**sizes, dtype=dtype)  # type: ignore[arg-type]  # judged there

    def __str__(self) -> str:
        return f"E={self.experts},N={self.n},K={self.k},top_k={self.top_k},dtype={self.dtype}"

    @property
    def bytes_per_number(self) -> int:
        """Of weights, and of activations as the kernel loads them."""
        return 1 if self.dtype == "fp8" else 2

    @property
    def block_shape(self) -> list[int] | None:
        """Quantization blocks (n, k)."""
        return [128, 128] if self.dtype == "fp8" else None


@dataclass(frozen=True)
class GpuLimits:
    """What decides whether a tile can run.

    Parameters
    ----------
    shared_memory_bytes : int
        Of one block, opt-in: 232,448 on Hopper, 101,376 on SM120.
    capability : tuple of int
        Compute capability.
    """

    shared_memory_bytes: int
    capability: tuple[int, int]


def shared_memory_bytes(tile: Tile, shape: MoeShape, capability: tuple[int, int]) -> int:
    """Shared memory of the pipeline, to within the few hundred bytes of a reduction.

    Hopper's warp-group products read their operands from shared memory, so they need a buffer per
    stage where others need one fewer. They take 64 rows or more; vLLM swaps the operands of small FP8
    blocks to get there (``enable_swap_ab``). Held against what Triton 3.6 compiles for SM90 and SM120.
    """
    bytes_each = shape.bytes_per_number
    needs = tile.shared_memory_bytes(bytes_each, bytes_each)
    swapped = shape.dtype == "fp8" and tile.block_m < 64 <= tile.block_n
    rows = tile.block_n if swapped else tile.block_m
    if capability[0] == 9 and rows >= 64 and tile.num_warps >= 4:
        needs = needs // max(tile.num_stages - 1, 1) * tile.num_stages
    return needs


def candidates(
    shape: MoeShape, tokens: int, limits: GpuLimits, *, at_most: int | None = None, seed: int = 0
) -> list[Tile]:
    """Tiles worth trying for a token count.

    Parameters
    ----------
    at_most : int, optional
        Draw so many of them. Equal spaces give equal draws, so that token counts and shapes share
        compiled kernels.
    seed : int
        Of the draw.

    Returns
    -------
    list of Tile
        In order, without vLLM's own choice where that is none of them.
    """
    fitting = sorted(
        tile
        for tile in _space(shape, tokens)
        if shared_memory_bytes(tile, shape, limits.capability) <= limits.shared_memory_bytes
    )
    if at_most is None or len(fitting) <= at_most:
        return fitting
    # By the rank of each tile's own number, so that spaces that overlap draw mostly the same.
    return sorted(sorted(fitting, key=lambda tile: random.Random(f"{seed} {tile}").random())[:at_most])


def _space(shape: MoeShape, tokens: int) -> Iterator[Tile]:
    rows = tokens * shape.top_k
    per_expert = rows / shape.experts
    most_m = min(_MOST_BLOCK_M, max(16, _power_of_two(2 * per_expert)))
    least_m = min(most_m, _HALF_BLOCK_M, max(16, _power_of_two(per_expert / 4)))
    # Each expert that gets tokens has blocks of its own: so many rows of blocks there are at most.
    blocks = min(rows, shape.experts + rows // least_m)
    groups = sorted({min(group, blocks) for group in _GROUPS})
    block_m = least_m
    while block_m <= most_m:
        for block_n in _BLOCKS_N:
            if block_n > _power_of_two(2 * shape.n):
                continue
            for warps in _WARPS:
                if block_m * block_n // (32 * warps) not in _ACCUMULATORS:
                    continue
                for block_k in _BLOCKS_K[shape.dtype]:
                    if (block_m + block_n) * block_k // (32 * warps) > _MOST_LOADED:
                        continue
                    for group in groups:
                        for stages in _STAGES:
                            yield Tile(block_m, block_n, block_k, group, warps, stages)
        block_m *= 2


def _power_of_two(value: float) -> int:
    """The smallest power of two that is not below a value, and not below 1."""
    power = 1
    while power < value:
        power *= 2
    return power
