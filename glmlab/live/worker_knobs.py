"""All live knobs of one worker: which seam has each, and how a change of several goes through."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch

from glmlab.knob_table import KNOBS as KNOB_TABLE
from glmlab.live.cpu_attention import CpuAttention
from glmlab.live.custom_all_reduce import CustomAllReduce
from glmlab.live.flash_attention import FlashAttention
from glmlab.live.forced import forced
from glmlab.live.fp8_gemm_tiles import Fp8GemmTiles
from glmlab.live.graphs import Graphs, Which, workspace_unlocked
from glmlab.live.moe_tiles import MoeTiles
from glmlab.live.seam import Seam
from glmlab.live.triton_attention import TritonAttention
from glmlab.live.triton_mla import TritonMla

SEAMS: tuple[type[Seam], ...] = (
    CpuAttention,
    TritonAttention,
    TritonMla,
    FlashAttention,
    MoeTiles,
    Fp8GemmTiles,
)
# Knobs of the layers between attention; piecewise graphs hold them too.
_OF_LAYERS = frozenset({*MoeTiles.KNOBS, *Fp8GemmTiles.KNOBS})


class WorkerKnobs:
    """The knobs of one worker.

    Parameters
    ----------
    worker : vllm Worker
        With its model loaded and its KV cache set up.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._seams: list[Seam] = [seam(worker) for seam in SEAMS]
        self.graphs = Graphs(worker)
        self._owner: dict[str, Seam] = {}
        for seam in self._seams:
            for name, status in seam.probe().items():
                if status["live"] or status.get("value") is not None:
                    self._owner[name] = seam

    def probe(self) -> dict[str, dict[str, Any]]:
        """Knob -> fields of a KnobStatus."""
        found: dict[str, dict[str, Any]] = {}
        for seam in self._seams:
            for name, status in seam.probe().items():
                if name not in found or self._owner.get(name) is seam:
                    found[name] = status
                elif name not in self._owner and status["why"] not in found[name]["why"]:
                    found[name] = {"live": False, "why": f"{found[name]['why']}; {status['why']}"}
        if self.graphs.exist and (why := CustomAllReduce().why_fixed()):
            for name, status in found.items():
                if status["live"] and self._owner[name].is_captured(name):
                    found[name] = {"live": False, "why": why, "value": status.get("value")}
        return found

    def values(self) -> dict[str, Any]:
        """Knob -> value in force, of those that this worker has."""
        return {name: value for seam in self._seams for name, value in seam.values().items()}

    def used(self) -> dict[str, Any]:
        """Knob -> value that launches really had since the last change."""
        return {
            name: value
            for seam in self._seams
            for name, value in seam.used().items()
            if self._owner.get(name) is seam
        }

    def moe_tile_files(self) -> list[str]:
        """Names of the files in which this vLLM looks for the tiles of this model's mixtures."""
        return [name for seam in self._seams if isinstance(seam, MoeTiles) for name in seam.file_names()]

    def notes(self, batches: Sequence[int]) -> list[str]:
        """What a reader of numbers for these batch sizes must know."""
        used = self.used()
        unproved = [
            f"{name} = {forced(name)}: no launch that it decides was seen since it was set, so what it does"
            " here is not proved"
            for name in self.values()
            if forced(name) is not None and name not in used and KNOB_TABLE[name].decode
        ]
        return [note for seam in self._seams for note in seam.notes(batches)] + unproved

    def check(self, changes: Mapping[str, Any]) -> None:
        """Refuse what this worker cannot take, before anything is touched.

        Raises
        ------
        ValueError
            In one line.
        """
        for seam in self._seams:
            mine = {name: value for name, value in changes.items() if self._owner.get(name) is seam}
            if mine:
                seam.check(mine)

    def apply(self, changes: Mapping[str, Any], *, all_graphs: bool = False) -> dict[str, Any]:
        """Change knobs; graphs that hold one of them are captured again.

        Parameters
        ----------
        changes : mapping
            Knob -> value.
        all_graphs : bool
            Capture every graph again, whatever changes here: ranks that go back together must
            capture the same, since collectives lie inside.

        Returns
        -------
        dict
            ``kv_kept``, and ``graphs``: how many were captured anew.
        """
        now = self.values()
        changes = {name: value for name, value in changes.items() if now.get(name) != value}
        captured = {name for name in changes if self._owner[name].is_captured(name)}
        which: Which = "all" if all_graphs or captured & _OF_LAYERS else "full" if captured else "none"
        kv_kept = True
        with self._in_vllm(), workspace_unlocked(), self.graphs.changing(which):
            for name, value in changes.items():
                kv_kept &= self._owner[name].set(name, value)
        return {"kv_kept": kv_kept, "graphs": self.graphs.captured}

    @contextlib.contextmanager
    def _in_vllm(self) -> Iterator[None]:
        """As vLLM itself runs what touches kernels: its configuration current, no autograd."""
        from vllm.config import set_current_vllm_config

        with set_current_vllm_config(self._worker.vllm_config), torch.inference_mode():
            yield
