"""The knob moe_tiles against vLLM's own modules: its lookup, its launchers, its file names.

No GPU: a recorder stands in for the Triton kernels, all between it and the knob is vLLM's.
"""

from __future__ import annotations

import inspect
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
import torch
from vllm.model_executor.layers.fused_moe import fused_moe as vllm_moe
from vllm.model_executor.layers.fused_moe import utils as moe_utils
from vllm.model_executor.layers.fused_moe.experts import (
    fused_batched_moe,
    marlin_moe,
    nvfp4_emulation_moe,
    triton_moe,
)

from glmlab.catalog import find_model
from glmlab.engines.vllm_engine import VllmEngine
from glmlab.export.tuned_tiles import file_names
from glmlab.live import forced, moe_compile, moe_tiles
from glmlab.live.moe_candidates import MoeShape
from glmlab.live.moe_layers import READERS
from glmlab.live.moe_tiles import MoeTiles, refusal
from glmlab.recipe import Recipe
from glmlab.tiles import Tile, TileTable
from tests.moe_doubles import EXPERTS, TOP_K, K, N, Recorder, run_layer, worker

pytest_plugins = ["tests.moe_doubles"]
pytestmark = pytest.mark.usefixtures("kernels")
TABLE = "1: 16x32x64 g1 w4 s3; 8: 16x64x128 g4 w8 s4"


# ---------------------------------------------------------------------- the lookup
def asked_of_vllm(tokens: int) -> dict[str, int]:
    """The tile that vLLM itself would take: its own function, its own nearest rule."""
    found: dict[str, int] = vllm_moe.try_get_optimal_moe_config(
        (EXPERTS, 2 * N, K), (EXPERTS, K, N), TOP_K, None, tokens
    )
    return found


def test_vllms_own_function_gives_our_table_by_its_own_nearest_rule(bf16: Any) -> None:
    seam = MoeTiles(bf16)
    own = {tokens: asked_of_vllm(tokens) for tokens in (1, 4, 5, 4096)}
    seam.set("moe_tiles", TABLE)
    table = TileTable.parse(TABLE)
    for tokens, before in own.items():
        assert asked_of_vllm(tokens) == {**table.nearest(tokens).to_vllm(), "SPLIT_K": 1}
        assert asked_of_vllm(tokens) != before
    seam.set("moe_tiles", "default")
    assert {tokens: asked_of_vllm(tokens) for tokens in own} == own


def test_every_module_that_asks_for_tiles_reads_the_wrapped_lookup(bf16: Any) -> None:
    seam = MoeTiles(bf16)
    seam.set("moe_tiles", TABLE)
    for module in (triton_moe, fused_batched_moe, nvfp4_emulation_moe):
        taken = module.try_get_optimal_moe_config((EXPERTS, 2 * N, K), (EXPERTS, K, N), TOP_K, None, 8)
        assert taken["BLOCK_SIZE_N"] == 64
        assert not hasattr(module, "get_moe_configs")  # a copy of its own would go past us


def test_override_config_still_goes_first(bf16: Any) -> None:
    from vllm.model_executor.layers.fused_moe import override_config

    MoeTiles(bf16).set("moe_tiles", TABLE)
    with override_config({"BLOCK_SIZE_M": 64}):
        assert asked_of_vllm(8) == {"BLOCK_SIZE_M": 64}


def test_the_cache_of_the_lookup_can_still_be_emptied(bf16: Any, tmp_path: Any, monkeypatch: Any) -> None:
    """The exported file, found by the name that the seam reports, through vLLM's real lookup."""
    seam = MoeTiles(bf16)
    (name,) = seam.file_names()
    assert name == vllm_moe.get_config_file_name(EXPERTS, N, None, None) == "E=64,N=128,device_name=cpu.json"
    own = asked_of_vllm(8)
    monkeypatch.setenv("VLLM_TUNED_CONFIG_FOLDER", str(tmp_path))
    table = TileTable.parse(TABLE)
    (tmp_path / name).write_text(table.to_json(SPLIT_K=1))
    assert asked_of_vllm(8) == own  # cached
    vllm_moe.get_moe_configs.cache_clear()
    assert asked_of_vllm(8) == {**table.nearest(8).to_vllm(), "SPLIT_K": 1}
    assert vllm_moe.get_moe_configs.cache_info().currsize == 1


def test_files_of_block_quantized_weights_carry_dtype_and_block(fp8: Any) -> None:
    assert MoeTiles(fp8).file_names() == [
        "E=64,N=128,device_name=cpu,dtype=fp8_w8a8,block_shape=[128,128].json"
    ]


def test_the_exporter_tells_the_name_that_vllm_forms(recipe: Recipe) -> None:
    tiles = recipe.replace(moe_tiles=TABLE)
    on_this_cpu = {"runs": [{"gpus": [{"name": "cpu"}]}]}
    config = find_model(recipe.model).config
    assert config is not None
    vllms = vllm_moe.get_config_file_name(config["n_routed_experts"], config["moe_intermediate_size"], None)
    assert file_names(tiles, on_this_cpu) == [vllms]
    halved = vllm_moe.get_config_file_name(
        config["n_routed_experts"], config["moe_intermediate_size"] // 2, "fp8_w8a8", None
    )
    assert file_names(tiles.replace(tensor_parallel=2, quantization="fp8"), on_this_cpu) == [halved]


def test_a_later_seam_of_this_process_wraps_nothing_twice(bf16: Any) -> None:
    MoeTiles(bf16)
    lookup, kernel = vllm_moe.get_moe_configs, vllm_moe.fused_moe_kernel
    MoeTiles(bf16)
    assert vllm_moe.get_moe_configs is lookup
    assert vllm_moe.fused_moe_kernel is kernel


def test_a_table_that_the_process_starts_with_is_in_force_from_the_first_lookup() -> None:
    forced.reset({"moe_tiles": TABLE})
    assert moe_tiles.install() == ""
    assert asked_of_vllm(1)["BLOCK_SIZE_N"] == 32
    forced.reset({"moe_tiles": "16x16"})
    assert "expected BLOCK_M" in moe_tiles.install()


# ---------------------------------------------------------------------- the launches
def test_both_products_of_a_layer_are_launched_with_the_table(
    bf16: Any, kernels: dict[str, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    seam = MoeTiles(bf16)
    assert seam.used() == {}
    seam.set("moe_tiles", TABLE)
    for tokens in (1, 3, 40):
        run_layer(bf16, tokens, monkeypatch)
    table = TileTable.parse(TABLE)
    seen = [(each["num_valid_tokens"] // TOP_K, each) for each in kernels["fused_moe_kernel"].launches]
    assert [tokens for tokens, _ in seen] == [1, 1, 3, 3, 40, 40]
    for tokens, launch in seen:
        tile = table.nearest(tokens)
        assert (launch["BLOCK_SIZE_N"], launch["BLOCK_SIZE_K"]) == (tile.block_n, tile.block_k)
        assert (launch["num_warps"], launch["num_stages"]) == (tile.num_warps, tile.num_stages)
    assert seam.used() == seam.values() == {"moe_tiles": TABLE}


def test_a_launch_that_had_another_tile_is_told(
    bf16: Any, kernels: dict[str, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    seam = MoeTiles(bf16)
    seam.set("moe_tiles", TABLE)
    run_layer(bf16, 8, monkeypatch)
    own = vllm_moe.get_default_config(8, EXPERTS, N, K, TOP_K, None)
    monkeypatch.setattr(triton_moe, "try_get_optimal_moe_config", lambda *_args, **_kwargs: own)
    run_layer(bf16, 8, monkeypatch)
    tile = Tile.from_vllm(own)
    assert seam.used() == {"moe_tiles": f"{tile} at 8 tokens"}


def test_going_back_to_vllms_choice_is_seen_in_the_launches(
    bf16: Any, kernels: dict[str, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    seam = MoeTiles(bf16)
    seam.set("moe_tiles", TABLE)
    run_layer(bf16, 8, monkeypatch)
    seam.set("moe_tiles", "default")
    assert seam.used() == {}
    run_layer(bf16, 8, monkeypatch)
    assert seam.used() == seam.values() == {"moe_tiles": "default"}
    assert kernels["fused_moe_kernel"].launches[-1]["BLOCK_SIZE_K"] == asked_of_vllm(8)["BLOCK_SIZE_K"]


def test_a_lookup_that_somebody_replaced_is_not_taken_for_ours(
    bf16: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seam = MoeTiles(bf16)
    seam.set("moe_tiles", TABLE)
    monkeypatch.setattr(vllm_moe, "get_moe_configs", lambda *_: None)
    assert seam.values()["moe_tiles"].startswith("not in force")


# ---------------------------------------------------------------------- refusals
def test_what_cannot_run_is_refused_with_the_numbers(bf16: Any, fp8: Any) -> None:
    for found, value, says in (
        (bf16, "nonsense", "moe_tiles: 'nonsense': expected BLOCK_M"),
        (bf16, "8: 128x256x256 g1 w8 s5", "needs 786,432 bytes of shared memory or more, a block of this"),
        (fp8, "16x64x256 g1 w4 s3", r"BLOCK_SIZE_K = 256 does not go with quantization blocks of (128, 128)"),
        (fp8, "16x64x16 g1 w4 s3", "8-bit numbers are multiplied 32 at a time"),
    ):
        with pytest.raises(ValueError, match="moe_tiles") as refused:
            MoeTiles(found).check({"moe_tiles": value})
        assert says in str(refused.value)
        assert "\n" not in str(refused.value)
    MoeTiles(fp8).check({"moe_tiles": "16x64x128 g1 w4 s3"})
    MoeTiles(bf16).check({"moe_tiles": "default"})


def test_a_tile_is_compiled_as_it_would_be_launched_before_it_is_taken(
    fp8: Any, kernels: dict[str, Recorder], monkeypatch: pytest.MonkeyPatch
) -> None:
    moe_tiles.install()
    kernel = kernels["fused_moe_kernel"]
    shape = MoeShape(EXPERTS, N, K, TOP_K, "fp8")
    monkeypatch.setattr(vllm_moe, "moe_align_block_size", moe_compile._aligned)
    moe_compile.launch_both(shape, 64, {**Tile(16, 64, 64, 1, 4, 3).to_vllm(), "SPLIT_K": 1})
    seam = MoeTiles(fp8)
    seam.check({"moe_tiles": "16x32x128 g1 w8 s4"})
    assert [(each["N"], each["K"]) for each in kernel.tried] == [(2 * N, K), (K, N)]
    for tried in kernel.tried:
        assert tried["BLOCK_SIZE_K"] == 128
        assert (tried["num_warps"], tried["num_stages"]) == (8, 4)
        assert "BLOCK_M" not in tried
        assert tried["SWAP_AB"] is False
    monkeypatch.setattr(moe_utils, "enable_swap_ab", lambda m, n: m < 64 <= n)  # as on Hopper
    seam.check({"moe_tiles": "16x64x128 g1 w8 s4"})
    assert kernel.tried[-1]["SWAP_AB"] is True
    kernel.shared_bytes = 300_000
    with pytest.raises(ValueError, match="needs 300,000 bytes of shared memory"):
        seam.check({"moe_tiles": "16x32x64 g1 w8 s4"})


def test_kernels_that_take_blocks_only_refuse_the_rest() -> None:
    layer = SimpleNamespace(block_shape=None, gemms=((256, 256), (256, 128)), a_bytes=2, b_bytes=2)
    for kernel, tile, says in (
        ("batched_triton_kernel", "16x64x64 g1 w8 s3", "takes no warps and stages; write w4 s3"),
        ("batched_triton_kernel", "16x64x64 g8 w4 s3", "has no groups; write g1"),
        ("fused_moe_nvfp4_emulation_kernel", "16x64x64 g1 w4 s4", "takes no warps and stages"),
        ("fused_moe_kernel_gptq_awq", "16x64x256 g1 w4 s3", "does not divide K = 128"),
    ):
        layer.kernel = kernel
        assert says in refusal(Tile.parse(tile), layer, 232_448)  # type: ignore[arg-type]
        assert refusal(Tile.parse("16x64x64 g1 w4 s3"), layer, 232_448) == ""  # type: ignore[arg-type]


# ---------------------------------------------------------------------- which kernel runs
def test_live_where_a_triton_kernel_reads_the_table(bf16: Any, fp8: Any) -> None:
    for found in (bf16, fp8):
        status = MoeTiles(found).probe()["moe_tiles"]
        assert status["live"]
        assert status["value"] == status["default"] == "default"
        assert MoeTiles(found).is_captured("moe_tiles")
    assert not MoeTiles(worker(bf16.layer.quant_method.moe_kernel.fused_experts, mode="NONE")).is_captured("")


class OtherExperts:
    """Of some class that reads no tiles."""

    def __init__(self, weights: Any) -> None:
        self.quant_config = SimpleNamespace(weight_quant_dtype=weights)


@pytest.mark.parametrize(
    ("name", "weights", "says"),
    [
        ("MarlinExperts", "int4", "Build the engine with moe_backend: triton"),
        ("CutlassExpertsFp8", torch.float8_e4m3fn, "Build the engine with moe_backend: triton"),
        ("FlashInferExperts", "nvfp4", "No NVFP4 kernel of vLLM's reads them, but that of moe_backend: emul"),
    ],
)
def test_not_live_where_another_kernel_runs_and_what_to_do(
    name: str, weights: Any, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm.platforms import current_platform

    monkeypatch.setattr(type(current_platform), "is_cpu", lambda _self: False)
    experts = type(name, (OtherExperts,), {})(weights)
    status = MoeTiles(worker(experts)).probe()["moe_tiles"]
    assert not status["live"]
    assert f"the experts run {name}, which reads no tiles: no effect here" in status["why"]
    assert says in status["why"]


def test_classes_that_the_knob_counts_on_exist_and_launch_those_kernels() -> None:
    """Otherwise the probe would say not live for what is; a class that went is a change to look at."""
    source = inspect.getsource(triton_moe) + inspect.getsource(fused_batched_moe)
    source += inspect.getsource(nvfp4_emulation_moe)
    for name, kernel in READERS.items():
        assert kernel in moe_tiles._HOME
        if not name.startswith(("Int4", "Mxfp8")):
            assert f"class {name}(" in source
    assert not hasattr(marlin_moe, "try_get_optimal_moe_config")


def test_small_batches_of_a_fallback_are_live_and_the_rest_is_told(bf16: Any) -> None:
    class DeepGemmExperts:
        pass

    class TritonOrDeepGemmExperts:
        experts: ClassVar[Any] = DeepGemmExperts()
        fallback_experts = bf16.layer.quant_method.moe_kernel.fused_experts

    status = MoeTiles(worker(TritonOrDeepGemmExperts())).probe()["moe_tiles"]
    assert status["live"]
    assert "batches too large for Triton run DeepGemmExperts instead" in status["why"]


def test_batch_invariance_goes_before_any_table(bf16: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_BATCH_INVARIANT", "1")
    assert "VLLM_BATCH_INVARIANT" in MoeTiles(bf16).probe()["moe_tiles"]["why"]


def test_the_real_cpu_engine_says_why_not(recipe: Recipe) -> None:
    with VllmEngine(recipe) as engine:
        probed, used, values = engine.vllm.collective_rpc(
            lambda of: (MoeTiles(of).probe(), MoeTiles(of).used(), MoeTiles(of).values())
        )[0]
        assert engine.knobs()["moe_tiles"].why == probed["moe_tiles"]["why"]
    assert not probed["moe_tiles"]["live"]
    assert "CPU, and tiles are those of vLLM's Triton kernels on GPUs" in probed["moe_tiles"]["why"]
    assert used == values == {}
