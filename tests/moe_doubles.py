"""Doubles for tests of fused-MoE tiles: recorders in place of kernels, a worker around real experts."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.model_executor.layers.fused_moe import fused_moe as vllm_moe
from vllm.model_executor.layers.fused_moe.activation import MoEActivation
from vllm.model_executor.layers.fused_moe.config import (
    FUSED_MOE_UNQUANTIZED_CONFIG,
    FusedMoEConfig,
    FusedMoEParallelConfig,
    RoutingMethodType,
    fp8_w8a8_moe_quant_config,
)
from vllm.model_executor.layers.fused_moe.experts import (
    fused_batched_moe,
    nvfp4_emulation_moe,
    triton_moe,
)
from vllm.model_executor.layers.fused_moe.fused_moe_method_base import FusedMoEMethodBase
from vllm.triton_utils import tl

from glmlab.live import forced, moe_compile, tile_seam

EXPERTS, N, K, TOP_K = 64, 128, 256, 2
KERNELS = [
    (vllm_moe, "fused_moe_kernel"),
    (vllm_moe, "fused_moe_kernel_gptq_awq"),
    (fused_batched_moe, "batched_triton_kernel"),
    (nvfp4_emulation_moe, "fused_moe_nvfp4_emulation_kernel"),
]


class Recorder:
    """A Triton kernel that writes down its launches."""

    def __init__(self, function: Any) -> None:
        self.arg_names = list(inspect.signature(function).parameters)
        self.launches: list[dict[str, Any]] = []
        self.tried: list[dict[str, Any]] = []
        self.shared_bytes = 0

    def __getitem__(self, grid: Any) -> Any:
        def launch(*args: Any, **kwargs: Any) -> None:
            self.launches.append({**dict(zip(self.arg_names, args, strict=False)), **kwargs})

        return launch

    def warmup(self, *args: Any, grid: Any, **kwargs: Any) -> Any:
        self.tried.append(kwargs)
        return SimpleNamespace(metadata=SimpleNamespace(shared=self.shared_bytes))


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Recorder]]:
    """Recorders in place of the kernels; vLLM's own lookup and kernels are back afterwards."""
    recorders = {}
    for module, name in KERNELS:
        kernel = getattr(module, name)
        recorders[name] = Recorder(getattr(kernel, "glmlab_wraps", kernel))
        monkeypatch.setattr(module, name, recorders[name])
    lookup = getattr(vllm_moe.get_moe_configs, "glmlab_wraps", vllm_moe.get_moe_configs)
    monkeypatch.setattr(vllm_moe, "get_moe_configs", lookup)
    monkeypatch.setattr(tile_seam, "device_limits", lambda _device: {"shared_memory_bytes": 232_448})
    if not hasattr(tl, "bfloat16"):  # vLLM without Triton has a placeholder that knows few types
        monkeypatch.setattr(tl, "bfloat16", "bf16", raising=False)
    forced.reset({})
    lookup.cache_clear()
    yield recorders
    forced.reset({})
    lookup.cache_clear()


class Method(FusedMoEMethodBase):  # type: ignore[misc]  # vLLM is Any
    """A quantization method that has come to its kernel."""

    def __init__(self, experts: Any) -> None:
        self.moe_kernel = SimpleNamespace(fused_experts=experts)

    create_weights = get_fused_moe_quant_config = apply = None


def moe_config(dtype: torch.dtype = torch.bfloat16) -> FusedMoEConfig:
    return FusedMoEConfig(
        num_experts=EXPERTS,
        experts_per_token=TOP_K,
        hidden_dim=K,
        intermediate_size=N,
        num_local_experts=EXPERTS,
        num_logical_experts=EXPERTS,
        activation=MoEActivation.SILU,
        device="cpu",
        routing_method=RoutingMethodType.Default,
        moe_parallel_config=FusedMoEParallelConfig.make_no_parallel(),
        in_dtype=dtype,
    )


def worker(experts: Any, weights: torch.dtype = torch.bfloat16, mode: str = "PIECEWISE") -> Any:
    """As much of a vLLM worker as the seam asks for, around real experts."""
    layer = torch.nn.Module()
    layer.quant_method = Method(experts)
    layer.moe_config = moe_config()
    layer.hidden_size, layer.intermediate_size_per_partition = K, N
    layer.w13_weight = torch.empty(EXPERTS, 2 * N, K, dtype=weights)
    layer.w2_weight = torch.empty(EXPERTS, K, N, dtype=weights)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), layer)
    return SimpleNamespace(
        device=torch.device("cpu"),
        model_runner=SimpleNamespace(get_model=lambda: model),
        vllm_config=SimpleNamespace(
            compilation_config=SimpleNamespace(cudagraph_mode=SimpleNamespace(name=mode))
        ),
        layer=layer,
    )


@pytest.fixture
def bf16() -> Any:
    return worker(triton_moe.TritonExperts(moe_config(), FUSED_MOE_UNQUANTIZED_CONFIG))


@pytest.fixture
def fp8() -> Any:
    quant = fp8_w8a8_moe_quant_config(
        w1_scale=torch.ones(EXPERTS, 2 * N // 128, K // 128),
        w2_scale=torch.ones(EXPERTS, K // 128, N // 128),
        block_shape=[128, 128],
    )
    return worker(triton_moe.TritonExperts(moe_config(), quant), weights=torch.float8_e4m3fn)


def run_layer(found: Any, tokens: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """One forward pass of real TritonExperts; what needs compiled operators is left out."""
    experts = found.layer.quant_method.moe_kernel.fused_experts
    monkeypatch.setattr(triton_moe, "moe_align_block_size", moe_compile._aligned)
    monkeypatch.setattr(vllm_moe, "moe_align_block_size", moe_compile._aligned)
    monkeypatch.setattr(type(experts), "activation", lambda *_: None)
    monkeypatch.setattr(type(experts), "moe_sum", lambda *_: None)
    room = tokens * TOP_K * max(2 * N, K)
    experts.apply(
        torch.empty(tokens, K, dtype=torch.bfloat16),
        torch.zeros(tokens, K, dtype=torch.bfloat16),
        found.layer.w13_weight,
        found.layer.w2_weight,
        torch.ones(tokens, TOP_K),
        torch.zeros(tokens, TOP_K, dtype=torch.int32),
        MoEActivation.SILU,
        EXPERTS,
        None,
        None,
        None,
        torch.empty(room, dtype=torch.bfloat16),
        torch.empty(room, dtype=torch.bfloat16),
        None,
        False,
    )
