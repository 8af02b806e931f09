"""The knob fp8_gemm_tiles against vLLM's own launcher of the Triton block-FP8 GEMM, without a GPU."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from vllm.model_executor.kernels.linear.scaled_mm.cutlass import CutlassFp8BlockScaledMMKernel
from vllm.model_executor.kernels.linear.scaled_mm.triton import TritonFp8BlockScaledMMKernel
from vllm.model_executor.layers.quantization.utils import fp8_utils
from vllm.model_executor.layers.quantization.utils.quant_utils import GroupShape

from glmlab.live import forced, fp8_gemm_tiles, tile_seam
from glmlab.live.fp8_gemm_tiles import Fp8GemmTiles, refusal
from glmlab.tiles import Tile, TileTable

N, K = 256, 512
TABLE = "1: 16x32x64 g1 w4 s3; 8: 16x64x128 g4 w8 s4"


class Recorder:
    """The Triton kernel, which writes down its launches."""

    def __init__(self, function: Any) -> None:
        self.arg_names = list(inspect.signature(function).parameters)
        self.launches: list[dict[str, Any]] = []

    def __getitem__(self, grid: Any) -> Any:
        def launch(*args: Any, **kwargs: Any) -> None:
            self.launches.append({**dict(zip(self.arg_names, args, strict=False)), **kwargs})

        return launch

    def warmup(self, *args: Any, grid: Any, **kwargs: Any) -> Any:
        return SimpleNamespace(metadata=SimpleNamespace(shared=300_000 if kwargs["num_stages"] == 8 else 0))


@pytest.fixture(autouse=True)
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    original = fp8_utils._w8a8_triton_block_scaled_mm
    recorder = Recorder(getattr(original, "glmlab_wraps", original))
    monkeypatch.setattr(fp8_utils, "_w8a8_triton_block_scaled_mm", recorder)
    lookup = fp8_utils.get_w8a8_block_fp8_configs
    monkeypatch.setattr(fp8_utils, "get_w8a8_block_fp8_configs", getattr(lookup, "glmlab_wraps", lookup))
    monkeypatch.setattr(tile_seam, "device_limits", lambda _device: {"shared_memory_bytes": 232_448})
    forced.reset({})
    yield recorder
    forced.reset({})


def worker(*kernels: type) -> Any:
    """As much of a vLLM worker as the seam asks for, with a linear layer for each kind of kernel."""
    layers = []
    for kind in kernels:
        layer = torch.nn.Module()
        layer.weight = torch.nn.Parameter(torch.empty(N, K), requires_grad=False)
        gemm: Any = object.__new__(kind)
        gemm.weight_group_shape = GroupShape(128, 128)
        layer.quant_method = SimpleNamespace(fp8_linear=gemm)
        layers.append(layer)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), *layers)
    graphs = SimpleNamespace(cudagraph_mode=SimpleNamespace(name="FULL_AND_PIECEWISE"))
    return SimpleNamespace(
        device=torch.device("cpu"),
        model_runner=SimpleNamespace(get_model=lambda: model),
        vllm_config=SimpleNamespace(compilation_config=graphs),
    )


def multiply(tokens: int) -> None:
    fp8_utils.w8a8_triton_block_scaled_mm(
        torch.zeros(tokens, K).to(torch.float8_e4m3fn),
        torch.zeros(N, K).to(torch.float8_e4m3fn),
        torch.ones(tokens, K // 128),
        torch.ones(N // 128, K // 128),
        [128, 128],
        output_dtype=torch.bfloat16,
    )


def test_launches_have_the_table_and_go_back_to_vllms_choice(kernel: Recorder) -> None:
    seam = Fp8GemmTiles(worker(TritonFp8BlockScaledMMKernel))
    multiply(4)
    own = kernel.launches[-1]
    assert seam.used() == seam.values() == {"fp8_gemm_tiles": "default"}
    seam.check({"fp8_gemm_tiles": TABLE})
    seam.set("fp8_gemm_tiles", TABLE)
    assert seam.used() == {}
    for tokens in (1, 4, 5, 900):
        multiply(tokens)
        launch, tile = kernel.launches[-1], TileTable.parse(TABLE).nearest(tokens)
        assert launch["M"] == tokens
        assert {name: launch[name] for name in tile.to_vllm()} == tile.to_vllm()
        assert "SPLIT_K" not in launch  # this kernel has none, and would refuse it
    assert seam.used() == seam.values() == {"fp8_gemm_tiles": TABLE}
    seam.set("fp8_gemm_tiles", "default")
    multiply(4)
    assert {n: v for n, v in kernel.launches[-1].items() if n.isupper() and isinstance(v, int)} == {
        n: v for n, v in own.items() if n.isupper() and isinstance(v, int)
    }


def test_live_only_where_the_triton_kernel_multiplies() -> None:
    live = Fp8GemmTiles(worker(TritonFp8BlockScaledMMKernel)).probe()["fp8_gemm_tiles"]
    assert live["live"]
    assert live["default"] == live["value"] == "default"
    assert Fp8GemmTiles(worker(TritonFp8BlockScaledMMKernel)).is_captured("fp8_gemm_tiles")
    other = Fp8GemmTiles(worker(CutlassFp8BlockScaledMMKernel)).probe()["fp8_gemm_tiles"]
    assert not other["live"]
    assert "run CutlassFp8BlockScaledMMKernel, which reads no tiles" in other["why"]
    assert "linear_backend: triton" in other["why"]
    none = Fp8GemmTiles(worker()).probe()["fp8_gemm_tiles"]
    assert none == {"live": False, "why": "the model has no linear layers with block-quantized FP8 weights"}
    mixed = worker(TritonFp8BlockScaledMMKernel, CutlassFp8BlockScaledMMKernel)
    status = Fp8GemmTiles(mixed).probe()["fp8_gemm_tiles"]
    assert status["live"]
    assert "some layers run CutlassFp8BlockScaledMMKernel" in status["why"]


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("16x64x256 g1 w4 s3", "BLOCK_SIZE_K = 256 reaches over quantization blocks of 128"),
        ("16x64x16 g1 w4 s3", "8-bit numbers are multiplied 32 at a time"),
        ("128x256x128 g1 w8 s7", "needs 294,912 bytes of shared memory or more"),
        ("16x64x64 g1 w4 s8", "the kernel needs 300,000 bytes of shared memory"),
        ("16x64", "expected BLOCK_M"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(value: str, says: str) -> None:
    seam = Fp8GemmTiles(worker(TritonFp8BlockScaledMMKernel))
    multiply(64)
    with pytest.raises(ValueError, match="fp8_gemm_tiles: ") as refused:
        seam.check({"fp8_gemm_tiles": value})
    assert says in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_step_must_not_reach_over_a_block_that_is_no_power_of_two() -> None:
    assert "take a divisor of 96" in refusal(Tile.parse("16x64x64 g1 w4 s3"), 96, 232_448)
    assert refusal(Tile.parse("16x64x32 g1 w4 s3"), 96, 232_448) == ""


def test_a_process_can_start_with_a_table(kernel: Recorder) -> None:
    forced.reset({"fp8_gemm_tiles": TABLE})
    assert fp8_gemm_tiles.install() == ""
    multiply(1)
    assert kernel.launches[-1]["BLOCK_SIZE_N"] == 32
