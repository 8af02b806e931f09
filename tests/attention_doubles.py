"""Doubles for tests of attention seams: a GPU's facts, a worker, a Triton kernel that is not launched."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch

HEADS, KV_HEADS, HEAD_SIZE = 24, 2, 128  # GLM-4.7 on one of four ranks
FREE_BYTES = 4 * 2**30


class Compiled:
    def __init__(self, shared: int) -> None:
        self.metadata = SimpleNamespace(shared=shared)


class Kernel:
    """A Triton kernel that keeps what it was launched and compiled with."""

    def __init__(self, *arg_names: str) -> None:
        self.arg_names = arg_names
        self.launches: list[dict[str, Any]] = []
        self.compiled: list[dict[str, Any]] = []
        self.shared_bytes = 50_000
        self.error: Exception | None = None

    def __getitem__(self, grid: Any) -> Any:
        return lambda *args, **kwargs: self.launches.append({"grid": grid, "args": args, **kwargs})

    def warmup(self, *args: Any, grid: Any, **kwargs: Any) -> Compiled:
        self.compiled.append({"args": args, **kwargs})
        if self.error is not None:
            raise self.error
        return Compiled(self.shared_bytes)


def config(*, full_graphs: bool = True, kv: str = "fp8", **more: Any) -> Any:
    from vllm.config import CUDAGraphMode

    mode = CUDAGraphMode.FULL_AND_PIECEWISE if full_graphs else CUDAGraphMode.PIECEWISE
    return SimpleNamespace(
        compilation_config=SimpleNamespace(cudagraph_mode=mode, cudagraph_capture_sizes=[1, 2, 4, 8, 16, 64]),
        speculative_config=None,
        parallel_config=None,
        scheduler_config=SimpleNamespace(max_num_seqs=16),
        cache_config=SimpleNamespace(cache_dtype=kv),
        model_config=SimpleNamespace(
            max_model_len=150_016,
            get_num_attention_heads=lambda _: HEADS,
            get_num_kv_heads=lambda _: KV_HEADS,
            get_head_size=lambda: HEAD_SIZE,
            rswa_window=None,
            is_mm_prefix_lm=False,
        ),
        **more,
    )


def worker_of(vllm_config: Any, backend: str, builder: Any) -> Any:
    group = SimpleNamespace(
        backend=SimpleNamespace(get_name=lambda: backend), metadata_builders=[builder], layer_names=["l"]
    )
    return SimpleNamespace(
        model_runner=SimpleNamespace(attn_groups=[[group]]),
        vllm_config=vllm_config,
        cache_config=vllm_config.cache_config,
        device=torch.device("cpu"),
    )
