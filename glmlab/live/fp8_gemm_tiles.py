"""Live knob ``fp8_gemm_tiles``: tiles of vLLM's Triton GEMM for block-quantized FP8 weights.

``w8a8_triton_block_scaled_mm`` asks ``get_w8a8_block_fp8_configs`` for tiles by token count, which
reads the files packaged with vLLM and no folder of the user's (0.26 and 0.32: model_executor/layers/
quantization/utils/fp8_utils.py). So a bundle sets this knob through glmlab's plugin.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from glmlab.live.compile_ahead import Attempt
from glmlab.live.kernel_launches import WatchedKernel
from glmlab.live.moe_layers import models
from glmlab.live.tile_seam import TileSeam, too_large, too_narrow
from glmlab.live.tile_tables import TileKnob
from glmlab.tiles import Tile

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


class Fp8GemmTiles(TileSeam):
    """The knob of one worker; a :class:`glmlab.live.seam.Seam`."""

    KNOBS: ClassVar[tuple[str, ...]] = (_knob.name,)

    def __init__(self, worker: Any) -> None:
        self._gemms, others = _look_at(worker)
        run = f"{', '.join(others)}, which reads no tiles"
        without_effect = ""
        if not self._gemms and not others:
            without_effect = "the model has no linear layers with block-quantized FP8 weights"
        elif not self._gemms:
            without_effect = (
                f"the block-FP8 layers run {run}: no effect here. Build the engine with linear_backend:"
                " triton"
            )
        note = f"some layers run {run}" if others else ""
        super().__init__(worker, _knob, without_effect=without_effect, install=install, note=note)

    def _answers(self) -> Iterator[Any]:
        lookup = getattr(importlib.import_module(_MODULE), _LOOKUP)
        return (lookup(gemm.n, gemm.k, gemm.block_n, gemm.block_k) for gemm in self._gemms)

    def _attempts(self, tiles: Sequence[Tile], shared_memory_bytes: int) -> Iterator[Attempt]:
        for tile in tiles:
            for block_k in sorted({gemm.block_k for gemm in self._gemms}):
                if reason := refusal(tile, block_k, shared_memory_bytes):
                    raise ValueError(f"{_knob.name}: {tile}: {reason}")
        kernel = getattr(importlib.import_module(_MODULE), _KERNEL)
        gemm = self._gemms[0]  # sizes are no constants of this kernel: one stands for all
        for tile in tiles:
            yield from kernel.attempts(f"{_knob.name}: {tile}", f"{gemm.n}x{gemm.k}", tile.to_vllm())


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
    return too_narrow(tile) or too_large(tile, 1, 1, shared_memory_bytes)


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
