"""Placement: which of this machine's GPUs an engine takes, and in which order its ranks sit on them.

vLLM takes the first GPUs that CUDA shows it. Where a plan leaves some unused, the ones that are idle and
reach each other best are shown to it; tensor-parallel ranks, which talk in every layer, get the closest.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from glmlab.hardware import Machine
from glmlab.machine.device import GpuPair
from glmlab.recipe import Recipe

_VISIBLE = "CUDA_VISIBLE_DEVICES"
# CUDA's own order begins with the fastest card; the driver's tools, and glmlab, count by PCI address.
_ORDER = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
_IN_USE_BYTES = 1 << 30  # an idle card holds less; a display takes some hundred MiB
_PATHS = ("same board", "one PCIe switch", "several PCIe switches", "host bridge", "one NUMA node")
_MOST_GPUS = 8  # of one board; beyond, vLLM's own choice stands: there NVSwitch makes all alike


@dataclass(frozen=True)
class Placement:
    """GPUs of an engine.

    Attributes
    ----------
    gpus : tuple of int
        Indices as the driver's tools count them, in the order of the ranks.
    why : str
        In words; empty where it is vLLM's own choice.
    """

    gpus: tuple[int, ...]
    why: str

    @property
    def environment(self) -> dict[str, str]:
        """Variables that show an engine these GPUs; none where it would take them anyway."""
        return {_VISIBLE: ",".join(map(str, self.gpus)), **_ORDER} if self.why else {}


def place(recipe: Recipe, host: Machine, variables: Mapping[str, str] = os.environ) -> Placement:
    """Choose GPUs for a recipe.

    Parameters
    ----------
    recipe : Recipe
        Its plan says how many, and which talk most.
    host : Machine
        This one.
    variables : mapping
        Of the environment: who has chosen there has chosen.
    """
    ranks = recipe.ranks
    own = tuple(range(ranks))
    if {_VISIBLE, *_ORDER} & {*variables, *recipe.env} or not 2 <= len(host.gpus) <= _MOST_GPUS:
        return Placement(own, "")
    if ranks > len(host.gpus):
        return Placement(own, "")  # vLLM says so better
    busy = {gpu.index for gpu in host.gpus if (gpu.memory_used_bytes or 0) > _IN_USE_BYTES}
    links = {frozenset((pair.first, pair.second)): _distance(pair) for pair in host.gpu_pairs}

    def cost(order: tuple[int, ...]) -> tuple[int, int, int, tuple[int, ...]]:
        inside = [_farthest(group, links) for group in _groups(order, recipe.tensor_parallel)]
        return len(busy & set(order)), max(inside), _farthest(order, links), order

    best = min(_orders([gpu.index for gpu in host.gpus], ranks, recipe.tensor_parallel), key=cost)
    if cost(best)[:3] == cost(own)[:3]:
        return Placement(own, "")
    return Placement(best, _reason(best, own, busy))


def _reason(best: tuple[int, ...], own: tuple[int, ...], busy: set[int]) -> str:
    reasons = []
    if busy & set(own) - set(best):
        reasons.append(f"GPU {', '.join(map(str, sorted(busy & set(own) - set(best))))} is in use by others")
    if not reasons or len(best) > 1:
        reasons.append("these reach each other best")
    return f"ranks sit on GPU {', '.join(map(str, best))}: {'; '.join(reasons)}"


def _orders(gpus: Sequence[int], ranks: int, group: int) -> Iterator[tuple[int, ...]]:
    """Every way to give ranks their GPUs; inside a group of tensor-parallel ranks order does not matter."""
    if ranks == 0:
        yield ()
        return
    for chosen in itertools.combinations(gpus, group):
        left = [gpu for gpu in gpus if gpu not in chosen]
        for rest in _orders(left, ranks - group, group):
            yield chosen + rest


def _groups(order: tuple[int, ...], size: int) -> list[tuple[int, ...]]:
    return [order[begin : begin + size] for begin in range(0, len(order), size)]


def _farthest(group: tuple[int, ...], links: Mapping[frozenset[int], int]) -> int:
    worst = len(_PATHS) + 2
    return max((links.get(frozenset(pair), worst) for pair in itertools.combinations(group, 2)), default=0)


def _distance(pair: GpuPair) -> int:
    """0 is NVLink, then comes the path through the PCIe tree; without peer access it is behind all others."""
    if pair.nvlink:
        return 0
    where = 1 + (_PATHS.index(pair.path) if pair.path in _PATHS else len(_PATHS))
    return where if pair.read is not False and pair.write is not False else where + len(_PATHS) + 2
