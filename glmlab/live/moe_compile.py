"""Compile tiles of the fused-MoE kernel beforehand, in processes beside the one that measures.

Compiling takes far longer than measuring. vLLM's own launcher is run on tensors without storage
(``device="meta"``), with a kernel that compiles and does not launch; the result lands in Triton's cache
on disk, where the measuring process finds it. What does not compile, or needs more shared memory than
the GPU has, is known before the GPU is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from glmlab.live.error_line import error_line
from glmlab.live.moe_candidates import GpuLimits, MoeShape
from glmlab.tiles import Tile

_MOST_SAID = 240  # characters

Status = Literal["ok", "out_of_resources", "compile_error", "wrong", "error"]


@dataclass(frozen=True)
class Build:
    """How compiling one tile for one shape and token count went.

    Parameters
    ----------
    status : str
        ``error``: it is not known whether it compiles.
    reason : str
        One line, empty if all went well.
    shared_memory_bytes : int
        The most that one of the two products needs; 0 where it did not compile.
    """

    status: Status
    reason: str = ""
    shared_memory_bytes: int = 0


def gpu_limits() -> GpuLimits:
    """Limits of the current CUDA device."""
    import torch

    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    return GpuLimits(int(properties.shared_memory_per_block_optin), (properties.major, properties.minor))


class _CompileOnly:
    """Stands in for the kernel: compiles what would be launched."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.compiled: list[Any] = []

    def __getitem__(self, grid: Any) -> Any:
        def compile_it(*args: Any, **kwargs: Any) -> Any:
            self.compiled.append(self.kernel.warmup(*args, grid=(1,), **kwargs))

        return compile_it


def compile_tile(tile: Tile, uses: Sequence[tuple[MoeShape, int]], limits: GpuLimits) -> list[Build]:
    """Compile one tile for several shapes and token counts; equal kernels are compiled once.

    Runs in a process of its own: it replaces the kernel of that process for good.

    Returns
    -------
    list of Build
        One for each use. Nothing is raised: a tile that cannot be is a result.
    """
    from vllm.model_executor.layers.fused_moe import fused_moe

    if not isinstance(fused_moe.fused_moe_kernel, _CompileOnly):
        fused_moe.fused_moe_kernel = _CompileOnly(fused_moe.fused_moe_kernel)
        fused_moe.moe_align_block_size = _aligned
    return [_build(tile, shape, tokens, limits) for shape, tokens in uses]


def _build(tile: Tile, shape: MoeShape, tokens: int, limits: GpuLimits) -> Build:
    from vllm.model_executor.layers.fused_moe import fused_moe

    kernel = fused_moe.fused_moe_kernel
    kernel.compiled.clear()
    try:
        launch_both(shape, tokens, {**tile.to_vllm(), "SPLIT_K": 1})
    except Exception as error:  # noqa: BLE001 (Triton, MLIR and ptxas raise many kinds)
        return Build("compile_error" if refuses(error) else "error", said(error))
    needs = max(int(done.metadata.shared) for done in kernel.compiled)
    if needs > limits.shared_memory_bytes:
        return Build(
            "out_of_resources",
            f"needs {needs:,} bytes of shared memory, a block has {limits.shared_memory_bytes:,}",
            needs,
        )
    return Build("ok", "", needs)


def launch_both(shape: MoeShape, tokens: int, config: dict[str, int]) -> None:
    """Launch both products of a layer on tensors without storage, as ``fused_experts_impl`` does.

    tests/engine/test_moe_tiles_seam.py holds the two sets of launches against each other.
    """
    import torch
    from vllm.model_executor.layers.fused_moe import fused_moe
    from vllm.triton_utils import tl

    bf16, fp32, int32 = torch.bfloat16, torch.float32, torch.int32
    quantized = shape.dtype == "fp8"
    loaded = torch.float8_e4m3fn if quantized else bf16

    def empty(*sizes: int, dtype: Any = loaded) -> Any:
        return torch.empty(sizes, dtype=dtype, device="meta")

    def scales(*sizes: int) -> Any:
        return empty(*sizes, dtype=fp32) if quantized else None

    experts, n, k, top_k = shape.experts, shape.n, shape.k, shape.top_k
    assignment = fused_moe._prepare_expert_assignment(
        empty(tokens, top_k, dtype=int32),
        config,
        tokens,
        top_k,
        experts,
        None,
        block_shape=shape.block_shape,
        ignore_invalid_experts=True,
    )
    products = (
        (empty(tokens, k), empty(experts, 2 * n, k), 2 * n, k, False, top_k),
        (empty(tokens * top_k, n), empty(experts, k, n), k, n, True, 1),
    )
    for a, b, width, depth, weighted, repeats in products:
        fused_moe.invoke_fused_moe_triton_kernel(
            a,
            b,
            empty(tokens, top_k, width, dtype=bf16),
            scales(a.shape[0], depth // 128),
            scales(experts, width // 128, depth // 128),
            empty(tokens, top_k, dtype=fp32),
            *assignment,
            weighted,
            repeats,
            config,
            compute_type=tl.bfloat16,
            use_fp8_w8a8=quantized,
            use_int8_w8a8=False,
            use_int8_w8a16=False,
            use_int4_w4a16=False,
            per_channel_quant=False,
            block_shape=shape.block_shape,
        )


def _aligned(topk_ids: Any, block_size: int, num_experts: int, *_: Any, **__: Any) -> tuple[Any, Any, Any]:
    """Sizes of what ``moe_align_block_size`` gives: its operator knows no tensors without storage."""
    import torch

    rows = topk_ids.numel() + num_experts * (block_size - 1)
    if topk_ids.numel() < num_experts:
        rows = min(topk_ids.numel() * block_size, rows)
    blocks = -(-rows // block_size)
    sizes = ((rows,), (blocks,), (1,))
    ids, of_experts, padded = (torch.empty(size, dtype=torch.int32, device="meta") for size in sizes)
    return ids, of_experts, padded


def refuses(error: BaseException) -> bool:
    """Whether a compiler refused the kernel; anything else may be this process's own trouble."""
    return type(error).__module__.startswith("triton.") or "PassManager" in str(error)


def said(error: BaseException) -> str:
    """What an error says, in one line that a table has room for."""
    return error_line(error)[:_MOST_SAID]
