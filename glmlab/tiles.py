"""Tiles of Triton's GEMM-like kernels: one line of text per configuration, and vLLM's JSON for it.

A *tile* is how one program of a kernel is cut: ``16x64x128 g1 w4 s3`` reads BLOCK_SIZE_M x _N x _K,
GROUP_SIZE_M, warps, pipeline stages. A *table* gives a tile per token count M, ``1: 16x64x128 g1 w4
s3; 64: 64x128x64 g8 w8 s4``; like vLLM, a kernel takes the entry whose M is nearest. Text, so that a
table is one scalar value of a knob, in a study's storage as on the command line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import astuple, dataclass
from typing import Any

DEFAULT = "default"  # vLLM's own lookup: its tuned files, else its heuristic
FORM = "default, one tile such as '16x64x128 g1 w4 s3', or tiles by token count: '1: TILE; 64: TILE'"

_TILE = re.compile(r"(\d+)x(\d+)x(\d+) g(\d+) w(\d+) s(\d+)")
_KEYS = ("BLOCK_SIZE_M", "BLOCK_SIZE_N", "BLOCK_SIZE_K", "GROUP_SIZE_M", "num_warps", "num_stages")
_MOST_STAGES = 8


def _is_power_of_two(value: int) -> bool:
    return value > 0 and value & (value - 1) == 0


@dataclass(frozen=True, order=True)
class Tile:
    """One configuration of a tiled kernel, under the names of vLLM's JSON files.

    Raises
    ------
    ValueError
        For sizes that Triton cannot compile: blocks are powers of two from 16 on, since they are
        operands of ``tl.dot``; warps are 1, 2, 4, 8 or 16.
    """

    block_m: int
    block_n: int
    block_k: int
    group_m: int
    num_warps: int
    num_stages: int

    def __post_init__(self) -> None:
        for name in ("block_m", "block_n", "block_k"):
            value = getattr(self, name)
            if not _is_power_of_two(value) or value < 16:
                raise ValueError(f"{name} = {value}: must be a power of two, 16 or more")
        if self.num_warps not in (1, 2, 4, 8, 16):
            raise ValueError(f"num_warps = {self.num_warps}: must be 1, 2, 4, 8 or 16")
        if not 1 <= self.num_stages <= _MOST_STAGES:
            raise ValueError(f"num_stages = {self.num_stages}: must be 1 to {_MOST_STAGES}")
        if self.group_m < 1:
            raise ValueError(f"group_m = {self.group_m}: must be 1 or more")

    @classmethod
    def parse(cls, text: str) -> Tile:
        """Read ``16x64x128 g1 w4 s3``."""
        found = _TILE.fullmatch(" ".join(text.split()))
        if not found:
            raise ValueError(
                f"{text!r}: expected BLOCK_MxBLOCK_NxBLOCK_K gGROUP wWARPS sSTAGES, such as"
                " '16x64x128 g1 w4 s3'"
            )
        return cls(*map(int, found.groups()))

    def __str__(self) -> str:
        m, n, k, group, warps, stages = astuple(self)
        return f"{m}x{n}x{k} g{group} w{warps} s{stages}"

    def to_vllm(self) -> dict[str, int]:
        """The entry of a vLLM configuration file."""
        return dict(zip(_KEYS, astuple(self), strict=True))

    @classmethod
    def from_vllm(cls, entry: Mapping[str, Any]) -> Tile:
        """Read an entry of a vLLM configuration file; ``SPLIT_K`` and what else it holds is dropped."""
        missing = [key for key in _KEYS if key not in entry]
        if missing:
            raise ValueError(f"{missing[0]}: missing in {dict(entry)}")
        return cls(*(int(entry[key]) for key in _KEYS))

    def shared_memory_bytes(self, a_bytes: float, b_bytes: float) -> int:
        """Shared memory of the pipeline's buffers, the largest part of what a program takes.

        ``(M K a + K N b) max(stages - 1, 1)``: Triton keeps stages - 1 tiles of both operands in
        flight (its matmul tutorial's pipelining). A launch may still be refused; this only tells
        beforehand which cannot be.

        Parameters
        ----------
        a_bytes, b_bytes : float
            Bytes of one number of the activations and of the weights.
        """
        one = self.block_m * self.block_k * a_bytes + self.block_k * self.block_n * b_bytes
        return int(one * max(self.num_stages - 1, 1))


class TileTable(Mapping[int, Tile]):
    """Token count M -> tile; a table of one entry without an M serves every M.

    Parameters
    ----------
    tiles : mapping
        M -> Tile; at least one. M = 0 stands for every token count and then is alone.
    """

    EVERY = 0

    def __init__(self, tiles: Mapping[int, Tile]) -> None:
        self._tiles = dict(sorted(tiles.items()))
        if not self._tiles:
            raise ValueError("a table of tiles needs at least one entry")
        if self.EVERY in self._tiles and len(self._tiles) > 1:
            raise ValueError("either one tile for every token count, or 'M: tile; M: tile'")

    @classmethod
    def parse(cls, text: str) -> TileTable:
        """Read one tile, or ``M: tile; M: tile``."""
        if ":" not in text:
            return cls({cls.EVERY: Tile.parse(text)})
        tiles: dict[int, Tile] = {}
        for part in filter(None, (part.strip() for part in text.split(";"))):
            count, _, tile = part.partition(":")
            if not count.strip().isdecimal() or int(count) < 1:
                raise ValueError(f"{part!r}: expected a token count of 1 or more before the colon")
            if int(count) in tiles:
                raise ValueError(f"token count {int(count)} is listed twice")
            tiles[int(count)] = Tile.parse(tile)
        return cls(tiles)

    def __str__(self) -> str:
        if self.EVERY in self._tiles:
            return str(self._tiles[self.EVERY])
        return "; ".join(f"{count}: {tile}" for count, tile in self._tiles.items())

    def __getitem__(self, count: int) -> Tile:
        return self._tiles[count]

    def __iter__(self) -> Iterator[int]:
        return iter(self._tiles)

    def __len__(self) -> int:
        return len(self._tiles)

    def nearest(self, tokens: int) -> Tile:
        """The tile that a kernel on so many tokens takes."""
        return self._tiles[min(self._tiles, key=lambda count: abs(count - tokens))]

    def to_vllm(self, **more: int) -> dict[int, dict[str, int]]:
        """What ``get_moe_configs`` of vLLM returns; the one-for-all tile stands at M = 1.

        Parameters
        ----------
        more : int
            Further keys of each entry, such as ``SPLIT_K=1``.
        """
        return {max(count, 1): tile.to_vllm() | more for count, tile in self._tiles.items()}

    def to_json(self, **more: int) -> str:
        """Content of a file that ``VLLM_TUNED_CONFIG_FOLDER`` is searched for."""
        body = {str(count): entry for count, entry in self.to_vllm(**more).items()}
        return json.dumps(body, indent=4) + "\n"

    @classmethod
    def from_json(cls, text: str) -> TileTable:
        """Read such a file."""
        body = json.loads(text)
        return cls({int(k): Tile.from_vllm(v) for k, v in body.items() if str(k).isdecimal()})


def canonical_tiles(text: str) -> str:
    """The one spelling of a tile, a table or ``default``; for comparing and storing."""
    if text.strip() == DEFAULT:
        return DEFAULT
    return str(TileTable.parse(text))
