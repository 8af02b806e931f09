"""Live knob ``fp8_gemm_tiles``: tiles of vLLM's Triton GEMM for block-quantized FP8 weights.

``w8a8_triton_block_scaled_mm`` asks ``get_w8a8_block_fp8_configs`` for tiles by token count, which
reads the files packaged with vLLM and no folder of the user's (0.26 and 0.32: model_executor/layers/
quantization/utils/fp8_utils.py). So a bundle sets this knob through glmlab's plugin.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from glmlab.live.compile_ahead import Attempt, device_limits, refuse_what_cannot_run
from glmlab.live.kernel_launches import WatchedKernel
from glmlab.live.moe_layers import models
from glmlab.live.tile_tables import TileKnob
from glmlab.tiles import DEFAULT, FORM, Tile, TileTable

_MODULE = "vllm.model_executor.layers.quantization.utils.fp8_utils"
_LOOKUP = "get_w8a8_block_fp8_configs"
_KERNEL = "_w8a8_triton_block_scaled_mm"
_READER = "TritonFp8BlockScaledMMKernel"

_knob = TileKnob("fp8_gemm_tiles")


@dataclass(frozen=True)
class _Gemm:
    """A weight that the Triton kernel multiplies with, as its lookup is asked."""

    n: int
    k: int
    block_n: int
    block_k: int


def _kind(launch: Mapping[str, Any]) -> str:
    return f"{int(launch['N'])}x{int(launch['K'])}"


def _tokens(launch: Mapping[str, Any]) -> int:
    return int(launch["M"])


def forget() -> None:
    """Forget launches, for a new engine of this process."""
    _knob.forget()
    kernel = getattr(importlib.import_module(_MODULE), _KERNEL, None)
    if isinstance(kernel, WatchedKernel):
        kernel.forget()


def install() -> str:
    """Wrap the lookup and watch the kernel, before the first launch; say why not otherwise."""
    try:
        module = importlib.import_module(_MODULE)
    except ImportError as error:
        return f"this vLLM has no block-FP8 GEMM as 0.26 to 0.33 have it ({error})"
    if reason := _knob.wrap_lookup(module, _LOOKUP, "w8a8_triton_block_scaled_mm"):
        return reason
    try:
        _ = _knob.table
    except ValueError as error:
        return str(error)
    return _knob.watch(module, _KERNEL, tokens=_tokens, kind=_kind)


class Fp8GemmTiles:
    """The knob of one worker; a :class:`glmlab.live.seam.Seam`."""

    KNOBS: ClassVar[tuple[str, ...]] = (_knob.name,)

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._gemms, self._others = _look_at(worker)
        self._why = self._missing_parts()

    def _missing_parts(self) -> str:
        from vllm import envs

        if not self._gemms and not self._others:
            return "the model has no linear layers with block-quantized FP8 weights"
        if not self._gemms:
            return (
                f"the block-FP8 layers run {', '.join(self._others)}, which reads no tiles: no effect"
                " here. Build the engine with linear_backend: triton"
            )
        if reason := install():
            return reason
        if envs.VLLM_BATCH_INVARIANT:
            return "VLLM_BATCH_INVARIANT is set, and then vLLM ignores tile tables"
        return ""

    @functools.cached_property
    def _limits(self) -> dict[str, int]:
        return device_limits(self._worker.device)

    def probe(self) -> dict[str, dict[str, Any]]:
        if self._why:
            return {_knob.name: {"live": False, "why": self._why}}
        others = f"some layers run {', '.join(self._others)}, which reads no tiles" if self._others else ""
        return {
            _knob.name: {
                "live": True,
                "value": self.values()[_knob.name],
                "default": DEFAULT,
                "form": FORM,
                "why": others,
            }
        }

    def values(self) -> dict[str, Any]:
        if self._why:
            return {}
        lookup = getattr(importlib.import_module(_MODULE), _LOOKUP)
        asked = {_knob.in_force(lookup(gemm.n, gemm.k, gemm.block_n, gemm.block_k)) for gemm in self._gemms}
        return {_knob.name: "; ".join(sorted(asked))}

    def used(self) -> dict[str, Any]:
        used = None if self._why else _knob.used()
        return {} if used is None else {_knob.name: used}

    def notes(self, batches: Sequence[int]) -> list[str]:
        return []

    def is_captured(self, name: str) -> bool:
        """Linear layers lie between attention: full graphs hold them, and piecewise ones too."""
        mode = self._worker.vllm_config.compilation_config.cudagraph_mode
        return mode is not None and mode.name != "NONE"

    def check(self, changes: Mapping[str, Any]) -> None:
        value = changes.get(_knob.name, DEFAULT)
        if value == DEFAULT:
            return
        try:
            table = TileTable.parse(value)
        except ValueError as error:
            raise ValueError(f"{_knob.name}: {error}") from None
        kernel = getattr(importlib.import_module(_MODULE), _KERNEL)
        attempts: list[Attempt] = []
        for tile in dict.fromkeys(table.values()):
            what = f"{_knob.name}: {tile}"
            for block_k in sorted({gemm.block_k for gemm in self._gemms}):
                if reason := refusal(tile, block_k, self._limits["shared_memory_bytes"]):
                    raise ValueError(f"{what}: {reason}")
            gemm = self._gemms[0]  # sizes are no constants of this kernel: one stands for all
            attempts += kernel.attempts(what, f"{gemm.n}x{gemm.k}", tile.to_vllm())
        refuse_what_cannot_run(attempts, self._limits)

    def set(self, name: str, value: Any) -> bool:
        _knob.ask(value)
        return True


def refusal(tile: Tile, block_k: int, shared_memory_bytes: int) -> str:
    """Why the kernel cannot run with a tile; empty if it can.

    It loads one scale per step along K, so a step that reaches into a second quantization block
    would be scaled wrongly, without an error. Along N it looks each column's scale up.
    """
    if tile.block_k > block_k or block_k % tile.block_k:
        return (
            f"BLOCK_SIZE_K = {tile.block_k} reaches over quantization blocks of {block_k};"
            f" take a divisor of {block_k}"
        )
    if tile.block_k < 32:
        return f"BLOCK_SIZE_K = {tile.block_k}: 8-bit numbers are multiplied 32 at a time; take 32 or more"
    needs = tile.shared_memory_bytes(1, 1)
    if tile.num_stages > 1 and needs > shared_memory_bytes:
        return (
            f"needs {needs:,} bytes of shared memory or more, a block of this GPU has"
            f" {shared_memory_bytes:,}; take a smaller tile or fewer stages"
        )
    return ""


def _look_at(worker: Any) -> tuple[list[_Gemm], list[str]]:
    """Weights of the Triton kernel, and the other kernels of block-FP8 layers by name."""
    gemms: dict[_Gemm, None] = {}
    others: dict[str, None] = {}
    for layer, kernel in _block_kernels(worker):
        if type(kernel).__name__ != _READER:
            others[type(kernel).__name__] = None
            continue
        n, k = layer.weight.shape
        block = kernel.weight_group_shape
        gemms[_Gemm(int(n), int(k), int(block[0]), int(block[1]))] = None
    return list(gemms), list(others)


def _block_kernels(worker: Any) -> Iterator[tuple[Any, Any]]:
    """Layers with block-quantized FP8 weights, each with the kernel that multiplies with them."""
    try:
        from vllm.model_executor.kernels.linear.scaled_mm.BlockScaledMMLinearKernel import (
            Fp8BlockScaledMMLinearKernel,
        )
    except ImportError:
        return
    for model in models(worker):
        for module in model.modules():
            for holder in (getattr(module, "quant_method", None), getattr(module, "scheme", None)):
                kernel = getattr(holder, "fp8_linear", None)
                if isinstance(kernel, Fp8BlockScaledMMLinearKernel):
                    yield module, kernel
