"""Live knob ``moe_tiles``: tiles of vLLM's Triton fused-MoE kernels.

vLLM's own way is a JSON file per shape and GPU, read once (``get_moe_configs``, cached); here the
lookup is wrapped (:mod:`glmlab.live.tile_tables`), and the exported bundle holds such a file again.
What vLLM does to a tile afterwards is refused beforehand, so that what is asked for is what runs: with
block-quantized weights it cuts BLOCK_SIZE_K to the block; two kernels read the blocks only; SPLIT_K
is always 1. ``override_config`` and VLLM_BATCH_INVARIANT go before any table.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from glmlab.live.compile_ahead import Attempt
from glmlab.live.kernel_launches import WatchedKernel
from glmlab.live.moe_layers import MoeLayer, moe_layers
from glmlab.live.tile_seam import TileSeam, too_large, too_narrow
from glmlab.live.tile_tables import TRITON_STAGES, TRITON_WARPS, TileKnob
from glmlab.tiles import Tile

_FUSED_MOE = "vllm.model_executor.layers.fused_moe"
_HOME = {  # kernel -> the module that launches it
    "fused_moe_kernel": f"{_FUSED_MOE}.fused_moe",
    "fused_moe_kernel_gptq_awq": f"{_FUSED_MOE}.fused_moe",
    "batched_triton_kernel": f"{_FUSED_MOE}.experts.fused_batched_moe",
    "fused_moe_nvfp4_emulation_kernel": f"{_FUSED_MOE}.experts.nvfp4_emulation_moe",
}
# Kernels that are launched without warps and stages; the batched one has no groups either.
_BLOCKS_ONLY = frozenset({"batched_triton_kernel", "fused_moe_nvfp4_emulation_kernel"})

_knob = TileKnob("moe_tiles", SPLIT_K=1)  # the WNA16 kernel has no default for it
_top_k = 1  # experts of one token, as the launches of this process show


def _tokens(launch: Mapping[str, Any]) -> int:
    """Token count that a launch was chosen for.

    The second product of a layer runs on ``tokens x top_k`` rows as if top_k were 1; its count of
    valid rows is that of the first, which came before.
    """
    global _top_k  # noqa: PLW0603 (of the process, as the kernels are)
    if "max_num_tokens" in launch:
        return int(launch["max_num_tokens"])
    _top_k = max(_top_k, int(launch["top_k"]))
    return int(launch["num_valid_tokens"]) // _top_k


def _kind(launch: Mapping[str, Any]) -> str:
    return _kind_of(int(launch["N"]), int(launch["K"]), str(launch["b_ptr"].dtype))


def _kind_of(n: int, k: int, dtype: str) -> str:
    return f"{n}x{k} {dtype}"


def forget() -> None:
    """Forget launches, for a new engine of this process."""
    global _top_k  # noqa: PLW0603
    _top_k = 1
    _knob.forget()
    for name, home in _HOME.items():
        kernel = getattr(importlib.import_module(home), name, None)
        if isinstance(kernel, WatchedKernel):
            kernel.forget()


def install() -> str:
    """Wrap the lookup and watch the kernels, before the first launch; say why not otherwise."""
    try:
        modules = {name: importlib.import_module(home) for name, home in _HOME.items()}
    except ImportError as error:
        return f"this vLLM has no fused MoE as 0.26 to 0.33 have it ({error})"
    lookup = modules["fused_moe_kernel"]
    if reason := _knob.wrap_lookup(lookup, "get_moe_configs", "try_get_optimal_moe_config"):
        return reason
    try:
        _ = _knob.table
    except ValueError as error:
        return str(error)
    reasons = [_knob.watch(modules[name], name, tokens=_tokens, kind=_kind) for name in _HOME]
    return reasons[0]


class MoeTiles(TileSeam):
    """The knob of one worker; a :class:`glmlab.live.seam.Seam`."""

    KNOBS: ClassVar[tuple[str, ...]] = (_knob.name,)

    def __init__(self, worker: Any) -> None:
        self._layers = moe_layers(worker)
        why = self._layers.why
        without_effect = "" if self._layers.readers else why
        super().__init__(worker, _knob, without_effect=without_effect, install=install, note=why)

    def file_names(self) -> list[str]:
        """Names of the files in which this vLLM looks for the tiles of this model's layers."""
        name_of = importlib.import_module(_HOME["fused_moe_kernel"]).get_config_file_name
        names = {
            name_of(*layer.lookup[:3], list(layer.block_shape) if layer.block_shape else None)
            for layer in self._layers.readers
        }
        return sorted(names)

    def _answers(self) -> Iterator[Any]:
        return (_lookup()(*layer.lookup) for layer in self._layers.readers)

    def _attempts(self, tiles: Sequence[Tile], shared_memory_bytes: int) -> Iterator[Attempt]:
        pairs = [(tile, layer) for tile in tiles for layer in self._layers.readers]
        for tile, layer in pairs:
            if reason := refusal(tile, layer, shared_memory_bytes):
                raise ValueError(f"{_knob.name}: {tile}: {reason}")
        for tile, layer in pairs:
            kernel = getattr(importlib.import_module(_HOME[layer.kernel]), layer.kernel)
            constants = _launch_constants(tile, layer, kernel.arg_names)
            for n, k in layer.gemms:  # each product of the layer, as it was launched before
                kind = _kind_of(n, k, layer.dtype_name)
                yield from kernel.attempts(f"{_knob.name}: {tile}", kind, constants)


def refusal(tile: Tile, layer: MoeLayer, shared_memory_bytes: int) -> str:
    """Why a layer's kernel cannot run with a tile, or would not run with just that; empty if it can.

    Parameters
    ----------
    shared_memory_bytes : int
        What one block of the GPU may take.
    """
    smallest = min(layer.block_shape) if layer.block_shape else 0
    if smallest and (tile.block_k > smallest or smallest % tile.block_k):
        return (
            f"BLOCK_SIZE_K = {tile.block_k} does not go with quantization blocks of"
            f" {layer.block_shape}; take a divisor of {smallest}"
        )
    if max(layer.a_bytes, layer.b_bytes) == 1 and (reason := too_narrow(tile)):
        return reason
    uneven = [k for _, k in layer.gemms if k % tile.block_k]
    if uneven and layer.kernel == "fused_moe_kernel_gptq_awq":
        return f"BLOCK_SIZE_K = {tile.block_k} does not divide K = {uneven[0]}: that kernel would read beyond"
    if layer.kernel in _BLOCKS_ONLY and (tile.num_warps, tile.num_stages) != (TRITON_WARPS, TRITON_STAGES):
        return f"{layer.kernel} takes no warps and stages; write w{TRITON_WARPS} s{TRITON_STAGES}"
    if layer.kernel == "batched_triton_kernel" and tile.group_m != 1:
        return f"{layer.kernel} has no groups; write g1"
    return too_large(tile, layer.a_bytes, layer.b_bytes, shared_memory_bytes)


def _launch_constants(tile: Tile, layer: MoeLayer, arg_names: list[str]) -> dict[str, Any]:
    """What a launch with this tile passes, as the launchers in ``fused_moe.py`` form it."""
    from vllm.model_executor.layers.fused_moe.utils import enable_swap_ab

    passed: dict[str, Any] = dict(tile.to_vllm())
    for axis in "MNK":
        passed[f"BLOCK_{axis}"] = passed[f"BLOCK_SIZE_{axis}"]
    passed["SWAP_AB"] = layer.lookup[2] == "fp8_w8a8" and enable_swap_ab(tile.block_m, tile.block_n)
    passed["block_k_diviable"] = True
    if layer.kernel == "fused_moe_nvfp4_emulation_kernel":
        passed["block_k_diviable"] = all(k % tile.block_k == 0 for _, k in layer.gemms)
    options = () if layer.kernel in _BLOCKS_ONLY else ("num_warps", "num_stages")
    return {name: value for name, value in passed.items() if name in arg_names or name in options}


def _lookup() -> Any:
    return importlib.import_module(_HOME["fused_moe_kernel"]).get_moe_configs
