"""What the seams of tile tables have in common: those of fused MoE and of the block-FP8 GEMM."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from glmlab.live.compile_ahead import Attempt, device_limits, refuse_what_cannot_run
from glmlab.live.tile_tables import TileKnob
from glmlab.tiles import DEFAULT, FORM, Tile, TileTable


class TileSeam(ABC):
    """One knob of tiles in one worker; a :class:`glmlab.live.seam.Seam` but for ``KNOBS``.

    Parameters
    ----------
    worker : vllm.v1.worker.worker_base.WorkerBase
        Whose model it is.
    knob : TileKnob
        Of this process.
    without_effect : str
        Why no layer of the model reads tiles; empty where some do.
    install : callable
        Wraps the lookup and watches the kernels; says why not where it cannot.
    note : str
        What is said of the knob where it can be changed, such as layers that read no tiles.
    """

    def __init__(
        self, worker: Any, knob: TileKnob, *, without_effect: str, install: Callable[[], str], note: str
    ) -> None:
        self._worker, self._knob, self._note = worker, knob, note
        self._why = without_effect or install() or _ignored()

    @abstractmethod
    def _answers(self) -> Iterator[Any]:
        """What the lookup answers for each layer that reads tiles."""

    @abstractmethod
    def _attempts(self, tiles: Sequence[Tile], shared_memory_bytes: int) -> Iterator[Attempt]:
        """What launches with some tiles would compile; before the first, ValueError for what cannot run."""

    # ------------------------------------------------------------------ what can be, what is
    def probe(self) -> dict[str, dict[str, Any]]:
        if self._why:
            return {self._knob.name: {"live": False, "why": self._why}}
        return {
            self._knob.name: {
                "live": True,
                "value": self.values()[self._knob.name],
                "default": DEFAULT,
                "form": FORM,
                "why": self._note,
            }
        }

    def values(self) -> dict[str, Any]:
        if self._why:
            return {}
        return {self._knob.name: "; ".join(sorted({self._knob.in_force(each) for each in self._answers()}))}

    def used(self) -> dict[str, Any]:
        used = None if self._why else self._knob.used()
        return {} if used is None else {self._knob.name: used}

    def notes(self, batches: Sequence[int]) -> list[str]:
        return []

    def is_captured(self, name: str) -> bool:
        """Such layers lie between attention: full graphs hold them, and piecewise ones too."""
        mode = self._worker.vllm_config.compilation_config.cudagraph_mode
        return mode is not None and mode.name != "NONE"

    # ------------------------------------------------------------------ changing
    def check(self, changes: Mapping[str, Any]) -> None:
        value = changes.get(self._knob.name, DEFAULT)
        if value == DEFAULT:
            return
        try:
            table = TileTable.parse(value)
        except ValueError as error:
            raise ValueError(f"{self._knob.name}: {error}") from None
        tiles = list(dict.fromkeys(table.values()))
        limits = self._limits
        refuse_what_cannot_run(self._attempts(tiles, limits["shared_memory_bytes"]), limits)

    @functools.cached_property
    def _limits(self) -> dict[str, int]:
        return device_limits(self._worker.device)

    def set(self, name: str, value: Any) -> bool:
        self._knob.ask(value)
        return True


def _ignored() -> str:
    from vllm import envs

    return (
        "VLLM_BATCH_INVARIANT is set, and then vLLM ignores tile tables" if envs.VLLM_BATCH_INVARIANT else ""
    )


def too_narrow(tile: Tile) -> str:
    """Why a kernel of 8-bit numbers cannot run with a tile; empty if it can."""
    if tile.block_k < 32:
        return f"BLOCK_SIZE_K = {tile.block_k}: 8-bit numbers are multiplied 32 at a time; take 32 or more"
    return ""


def too_large(tile: Tile, a_bytes: float, b_bytes: float, shared_memory_bytes: int) -> str:
    """Why a tile does not fit the shared memory that a block may take; empty if it may fit."""
    needs = tile.shared_memory_bytes(a_bytes, b_bytes)
    if tile.num_stages > 1 and needs > shared_memory_bytes:
        return (
            f"needs {needs:,} bytes of shared memory or more, a block of this GPU has"
            f" {shared_memory_bytes:,}; take a smaller tile or fewer stages"
        )
    return ""
