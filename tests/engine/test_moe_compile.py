"""Kernels that are compiled beforehand are those that vLLM launches; a recorder stands in for them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.model_executor.layers.fused_moe import fused_moe as vllm_moe
from vllm.triton_utils import tl

from glmlab.live import moe_compile
from glmlab.live.moe_candidates import MoeShape
from glmlab.tiles import Tile
from tests.moe_doubles import EXPERTS, TOP_K, K, N, Recorder

pytest_plugins = ["tests.moe_doubles"]
pytestmark = pytest.mark.usefixtures("kernels")


def signature(launch: dict[str, Any]) -> dict[str, Any]:
    """What Triton compiles a launch for: types, and whether a number is 1 or a multiple of 16."""
    found: dict[str, Any] = {}
    for name, value in launch.items():
        if isinstance(value, torch.Tensor):
            found[name] = str(value.dtype)
        elif isinstance(value, int) and not isinstance(value, bool) and not name.isupper():
            found[name] = (value == 1, value % 16 == 0)
        else:
            found[name] = str(value)
    return found


@pytest.mark.parametrize("tokens", [1, 4, 16, 64])
@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_kernels_compiled_beforehand_are_those_that_are_launched(
    dtype: Any, tokens: int, kernels: dict[str, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise a benchmark would compile everything again, one after another."""
    shape = MoeShape(EXPERTS, N, K, TOP_K, dtype)
    config = {**Tile(16, 64, 64, 1, 4, 3).to_vllm(), "SPLIT_K": 1}
    kernel = kernels["fused_moe_kernel"]
    monkeypatch.setattr(vllm_moe, "moe_align_block_size", moe_compile._aligned)
    moe_compile.launch_both(shape, tokens, config)
    beforehand = [signature(launch) for launch in kernel.launches]
    kernel.launches.clear()

    monkeypatch.setattr(vllm_moe, "try_get_optimal_moe_config", lambda *_args, **_kwargs: config)
    monkeypatch.setattr(vllm_moe, "apply_moe_activation", lambda *_: None)
    monkeypatch.setattr(vllm_moe, "ops", SimpleNamespace(moe_sum=lambda *_: None))

    def quantize(A: Any, A_scale: Any, quant_dtype: Any, **_: Any) -> tuple[Any, Any]:  # noqa: N803
        if quant_dtype is None:
            return A, None
        return A.to(torch.float8_e4m3fn), torch.ones(A.shape[0], A.shape[1] // 128)

    monkeypatch.setattr(vllm_moe, "moe_kernel_quantize_input", quantize)
    loaded = torch.float8_e4m3fn if dtype == "fp8" else torch.bfloat16
    scales = (torch.ones(EXPERTS, 2 * N // 128, K // 128), torch.ones(EXPERTS, K // 128, N // 128))
    vllm_moe.fused_experts_impl(
        torch.zeros(tokens, K, dtype=torch.bfloat16),
        torch.zeros(EXPERTS, 2 * N, K).to(loaded),
        torch.zeros(EXPERTS, K, N).to(loaded),
        torch.ones(tokens, TOP_K),
        torch.zeros(tokens, TOP_K, dtype=torch.int32),
        use_fp8_w8a8=dtype == "fp8",
        w1_scale=scales[0] if dtype == "fp8" else None,
        w2_scale=scales[1] if dtype == "fp8" else None,
        block_shape=shape.block_shape,
    )
    assert [signature(launch) for launch in kernel.launches] == beforehand
    assert len(beforehand) == 2
    assert beforehand[0]["compute_type"] == str(tl.bfloat16)
