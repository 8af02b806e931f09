"""MemoryPart: one of the things that take memory on a GPU, and how well its size is known."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

GB = 1e9
MB = 1e6
GIB = 2**30  # what engines and model cards often print, and call GB
_LEAST_IN_GB = 0.1 * GB

Group = Literal["weights", "scales", "kv", "activations", "graphs", "split_kv", "workspace", "runtime"]
GROUP_NAMES: dict[Group, str] = {
    "weights": "weights",
    "scales": "scales held twice",
    "kv": "KV pool",
    "activations": "activations",
    "graphs": "CUDA graphs",
    "split_kv": "split-KV scratch",
    "workspace": "workspace",
    "runtime": "CUDA, NCCL",
}
GROUPS: tuple[Group, ...] = tuple(GROUP_NAMES)


@dataclass(frozen=True, kw_only=True)
class MemoryPart:
    """One component of a GPU's memory.

    Parameters
    ----------
    group : str
        Which column of the table it belongs to, of :data:`GROUPS`.
    name : str
        What it is.
    size : float
        Bytes on one GPU.
    plus_minus : float
        By how many bytes it may be wrong, either way. These are added up, not squared: they are
        guesses at what the software does, which err together.
    kind : {"computed", "measured", "estimated"}
        ``computed``: the engine's own formula, read in its source. ``measured``: a constant that
        somebody measured. ``estimated``: a formula of ours, or a constant taken from elsewhere.
    how : str
        The formula or the source, in one line.
    """

    group: Group
    name: str
    size: float
    plus_minus: float
    kind: Literal["computed", "measured", "estimated"]
    how: str

    def to_json(self) -> dict[str, Any]:
        return {
            "group": self.group,
            "name": self.name,
            "gb": round(self.size / GB, 3),
            "gib": round(self.size / GIB, 3),
            "plus_minus_gb": round(self.plus_minus / GB, 3),
            "kind": self.kind,
            "how": self.how,
        }


def total(parts: Iterable[MemoryPart], *groups: Group) -> float:
    """Bytes of some groups together; of all where none is named."""
    return sum(part.size for part in parts if not groups or part.group in groups)


def doubt(parts: Iterable[MemoryPart], *groups: Group) -> float:
    """By how many bytes :func:`total` may be wrong."""
    return sum(part.plus_minus for part in parts if not groups or part.group in groups)


def amount(size: float) -> str:
    """Bytes in words: GB, or MB where GB would read 0.0."""
    if size >= _LEAST_IN_GB:
        return f"{size / GB:.1f} GB"
    return f"{math.ceil(size / MB)} MB"
