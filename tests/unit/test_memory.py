"""fit against what others measured and what engines reported."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path
from typing import Any

import pytest

from glmlab.catalog import find_model
from glmlab.errors import GpuError, InputError, RecipeError
from glmlab.footprint.part import GB, GROUPS
from glmlab.gpus import Gpu, find_gpu
from glmlab.memory import Fit, fit
from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe
from glmlab.recorded import load_recording
from glmlab.rules import check
from tests.pace import in_recipes

GIB = 2**30


@pytest.fixture(scope="module")
def pro() -> Gpu:
    return find_gpu("rtx-pro-6000")


def recipe(**fields: Any) -> Recipe:
    return Recipe(
        **{"name": "test", "model": "glm-5.1", "tensor_parallel": 4, "kv_cache_dtype": "fp8_e4m3"} | fields
    )


NVFP4 = {"quantization": "nvfp4-experts"}


def prune(base: str, experts: int, folder: Path) -> str:
    """A checkpoint's folder with another number of experts."""
    config = dict(find_model(base).config or {}) | {"n_routed_experts": experts}
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return str(folder)


# ------------------------------------------------------------------ what others measured
def test_reap_160_as_the_seed_ran_it(pro: Gpu) -> None:
    """Runtime statistics of the launch notes: 77.15 and 11.26 GiB (written as GB), 269k tokens."""
    found = fit(find_recipe("glm-5.1-reap-160-sglang"), pro, 4)
    assert found.fits
    assert found.gb("weights", "scales") == pytest.approx(77.15 * GIB / GB, abs=1)
    assert found.gb("kv") == pytest.approx(11.26 * GIB / GB, abs=1)
    assert found.kv_tokens == pytest.approx(269_000, abs=1e9 / 44_928)
    assert found.longest_context == found.recipe.max_model_len


def test_scales_held_twice_are_no_weights_but_take_memory(pro: Gpu) -> None:
    sglang = fit(find_recipe("glm-5.1-reap-160-sglang"), pro, 4)
    vllm = fit(find_recipe("glm-5.1-reap-160-vllm"), pro, 4)
    assert sglang.gb("weights") == pytest.approx(vllm.gb("weights"))
    assert vllm.gb("scales") == 0
    assert sglang.gb("scales") == pytest.approx(7.08, abs=0.01)  # a ninth of the experts' NVFP4
    assert sglang.gb("weights", "scales", "kv") == pytest.approx(sglang.budget_bytes / GB)
    assert sglang.to_json()["per_gpu"][0]["scales_gb"] == pytest.approx(7.08, abs=0.01)


def test_what_dense_mla_does_not_load_is_said(pro: Gpu) -> None:
    dense = fit(find_recipe("glm-5.1-reap-160-vllm"), pro, 4)
    sparse = fit(find_recipe("glm-5.1-reap-160-vllm-sparse"), pro, 4)
    indexer = (sparse.parts[0].size - dense.parts[0].size) / GB
    assert f"dense_mla: the indexer is not loaded, {indexer:.2f} GB" in dense.parts[0].how
    assert "indexer" not in sparse.parts[0].how
    assert "indexer" not in fit(find_recipe("glm-4.7-nvfp4"), pro, 4).parts[0].how


@pytest.mark.parametrize("backend", [None, "auto", "flashinfer_mla_sparse_sm120"])
def test_the_backend_that_the_engine_chooses_sets_the_kv_format(pro: Gpu, backend: str | None) -> None:
    named = find_recipe("glm-5.1-reap-160-vllm-sparse")
    left_open = fit(named.replace(attention_backend=backend, kv_cache_dtype="auto"), pro, 4)
    assert left_open.pool.bytes_per_token == fit(named, pro, 4).pool.bytes_per_token == 61_464
    hopper = fit(left_open.recipe.replace(attention_backend=None), find_gpu("h100"), 4)
    assert hopper.pool.bytes_per_token == 78 * (1152 + 132)  # the plan of one GPU is not another's


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": "glm-4.7-nvfp4", "decode_context_parallel": 2}, "8 KV heads"),
        ({"model": "glm-4.7-nvfp4", "decode_context_parallel": 3}, "expected 1, 2, 4"),
        (
            {"model": "glm-4.7-nvfp4", "tensor_parallel": 16, "decode_context_parallel": 4},
            "with tensor_parallel = 16 it can be 1, 2",
        ),
        ({"decode_context_parallel": 4, "serving_engine": "sglang"}, "of vLLM only"),
        ({"model": "glm-4.7-flash", "tensor_parallel": 5}, "moe_intermediate_size 1536 does not divide by 5"),
        ({"model": "glm-4.5-air", "tensor_parallel": 2, "data_parallel": 3}, "1408 does not divide by 6"),
    ],
)
def test_a_plan_that_the_engine_refuses(pro: Gpu, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError) as error:
        fit(recipe(**fields), pro, 8)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "glm-4.7-nvfp4", "tensor_parallel": 16, "decode_context_parallel": 2},
        {"dense_mla": True, "decode_context_parallel": 2},
        {"model": "glm-4.5-air", "tensor_parallel": 2, "data_parallel": 3, "expert_parallel": True},
    ],
)
def test_a_plan_that_the_engine_takes(pro: Gpu, fields: dict[str, Any]) -> None:
    assert fit(recipe(**fields), pro, 16).pool.bytes_per_token > 0


def test_reap_160_weights_in_vllm(pro: Gpu) -> None:
    found = fit(recipe(model="glm-5.1-reap-160", max_model_len=65_536), pro, 4)
    assert 76 <= found.gb("weights") <= 78
    assert found.fits


def glm_5_2_504b(**fields: Any) -> Recipe:
    """As hermia-ai/glm-5.2-sm120-stock-vllm served it: 0.92 of the GPU, vLLM's own limits."""
    return recipe(
        model="glm-5.2-reap-504b",
        expert_parallel=True,
        max_num_seqs=1024,
        **fields,
    )


def test_glm_5_2_504b_on_stock_vllm(pro: Gpu) -> None:
    """Measured: 79.1 GB of weights, 8.25 GiB of KV, 164,160 tokens."""
    found = fit(glm_5_2_504b(max_model_len=131_072), pro, 4)
    assert found.fits
    assert found.gb("weights") == pytest.approx(79.1, abs=1)
    assert found.gb("kv") == pytest.approx(8.25 * GIB / GB, abs=1)
    assert found.kv_tokens == pytest.approx(164_160, abs=1e9 / 53_940)
    assert found.pool.bytes_per_token == 656 * 78 + 132 * 21


def test_glm_5_2_504b_does_not_hold_250k_without_context_parallelism(pro: Gpu) -> None:
    """Measured: 0.66 requests of 250,000 tokens without, 554,759 tokens with four ranks that share."""
    alone = fit(glm_5_2_504b(max_model_len=250_000), pro, 4)
    assert not alone.fits
    assert "250,000 tokens" in alone.reasons[0]
    shared = fit(alone.recipe.replace(decode_context_parallel=4), pro, 4)
    assert shared.fits
    assert shared.gb("kv") == pytest.approx(6.96 * GIB / GB, abs=1)
    assert shared.kv_tokens == pytest.approx(554_759, abs=1e9 / 13_485)


def test_full_glm_5_1_nvfp4_does_not_fit_four_cards(pro: Gpu) -> None:
    """434 GB on disk, so at least 108.5 a card, of which vLLM may fill 93.8."""
    found = fit(recipe(model="glm-5.1-nvfp4"), pro, 4)
    assert not found.fits
    assert not fit(find_recipe("glm-5.1-nvfp4"), pro, 4).fits
    assert 108 < found.gb("weights") < 117
    missing = found.gb("weights", "activations", "graphs", "split_kv", "workspace") - found.budget_bytes / GB
    assert missing == pytest.approx(-found.room_bytes / GB)
    assert 15 < missing < 30
    assert found.short_bytes / GB == pytest.approx(missing + 202_752 * 61_464 / GB, abs=0.1)
    assert found.kv_tokens == found.longest_context == 0
    assert fit(recipe(model="glm-5.1-nvfp4", tensor_parallel=8), pro, 8).fits


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("glm-5.1-reap-160-vllm", 4),
        ("glm-5.1-reap-160-vllm-sparse", 4),
        ("glm-4.7-nvfp4", 4),
        ("glm-4.7-fp8", 4),
        ("glm-4.5-air-fp8", 2),
        ("glm-4.7-flash", 1),
    ],
)
def test_packaged_recipes_fit_the_machine_that_they_are_for(pro: Gpu, name: str, count: int) -> None:
    assert fit(find_recipe(name), pro, count).fits


# ------------------------------------------------------------------ what engines reported
@pytest.mark.parametrize("name", ["h100-glm-4.7-tp4-splits", "h100-glm-5.1-reap-160-tp4-splits"])
def test_recorded_twins(name: str) -> None:
    """Tokens exactly; what PyTorch held within 0.3 GB; what it ever reserved not below the step's peak."""
    recorded = load_recording(name)
    gpu = find_gpu("h100").model_copy(update={"memory_bytes": recorded.header.gpus[0].memory_bytes})
    found = fit(recorded.header.recipe, gpu, 1)
    assert found.fits
    assert found.kv_tokens == recorded.header.state.kv_tokens
    memory = [visit.measurement.memory[0] for visit in recorded.visits]
    held = statistics.median(each.device_bytes or 0 for each in memory) / GB
    hidden = found.choices.batched_tokens * found.model.shape.hidden_size * 2 / GB
    kept = sum(
        part.size / GB
        for part in found.parts
        if part.group in ("weights", "kv", "split_kv") or part.name in ("shared workspace", "chunked prefill")
    )
    assert kept + hidden == pytest.approx(held, abs=0.3)
    step = next(part.size / GB for part in found.parts if part.name == "step")
    assert kept + step < max(each.peak_device_bytes or 0 for each in memory) / GB


# ------------------------------------------------------------------ accounting
def test_the_parts_make_the_budget(pro: Gpu) -> None:
    found = fit(recipe(model="glm-4.5-air", quantization="fp8", gpu_memory_utilization=0.9), pro, 4)
    assert found.gb("weights", "kv", "activations", "graphs", "split_kv", "workspace") == pytest.approx(
        0.9 * pro.usable_memory_bytes / GB
    )
    assert found.free_bytes == pytest.approx(0.1 * pro.usable_memory_bytes - found.gb("runtime") * GB)


def test_a_utilization_that_vllm_refuses(pro: Gpu) -> None:
    """It starts only where so much is free once CUDA and NCCL are up."""
    fields: dict[str, Any] = {"model": "glm-4.5-air", "quantization": "fp8"}
    assert fit(recipe(gpu_memory_utilization=0.98, **fields), pro, 4).fits
    found = fit(recipe(gpu_memory_utilization=1.0, **fields), pro, 4)
    assert not found.fits
    assert "GB more than" in found.reasons[0]


def test_a_fixed_pool_ignores_utilization(pro: Gpu) -> None:
    fields: dict[str, Any] = {"model": "glm-4.5-air", "quantization": "fp8", "max_model_len": 4096}
    found = fit(recipe(kv_cache_bytes=5_000_000_000, **fields), pro, 4)
    assert found.fits
    assert found.pool.size == 5e9
    assert found.kv_tokens_plus_minus == 0
    assert found.free_bytes == pytest.approx(pro.usable_memory_bytes - sum(part.size for part in found.parts))
    too_much = fit(recipe(kv_cache_bytes=90_000_000_000, **fields), pro, 4)
    assert not too_much.fits
    assert too_much.short_bytes == pytest.approx(-too_much.free_bytes)


def test_a_pool_shorter_than_the_longest_sequence(pro: Gpu) -> None:
    fields: dict[str, Any] = {"model": "glm-4.5-air", "quantization": "fp8", "kv_cache_bytes": 100_000_000}
    short = fit(recipe(max_model_len=131_072, **fields), pro, 4)
    assert not short.fits
    assert fit(recipe(max_model_len=short.pool.longest, **fields), pro, 4).fits
    assert not fit(recipe(max_model_len=short.pool.longest + 16, **fields), pro, 4).fits


def test_too_few_gpus(pro: Gpu) -> None:
    found = fit(recipe(model="glm-4.5-air", quantization="fp8"), pro, 2)
    assert not found.fits
    assert len(found.reasons) == 1
    assert "are 4 ranks, which need as many GPUs; there are 2" in found.reasons[0]


def test_pipeline_and_data_parallelism(pro: Gpu) -> None:
    fields: dict[str, Any] = {"model": "glm-4.5-air", "quantization": "fp8", "max_model_len": 65_536}
    flat = fit(recipe(tensor_parallel=2, **fields), pro, 4)
    staged = fit(recipe(tensor_parallel=2, pipeline_parallel=2, **fields), pro, 4)
    assert staged.ranks == 4
    assert staged.gb("weights") == pytest.approx(flat.gb("weights") / 2, rel=0.1)
    assert staged.pool.bytes_per_token == pytest.approx(flat.pool.bytes_per_token / 2, rel=0.05)
    twice = fit(recipe(tensor_parallel=2, data_parallel=2, expert_parallel=True, **fields), pro, 4)
    assert twice.ranks == 4
    assert twice.kv_tokens > 2 * flat.kv_tokens  # half the experts, and two pools


def test_larger_steps_take_from_the_pool(pro: Gpu) -> None:
    fields: dict[str, Any] = {"model": "glm-4.5-air", "quantization": "fp8", "max_model_len": 32_768}
    small = fit(recipe(max_num_batched_tokens=2048, **fields), pro, 4)
    large = fit(recipe(max_num_batched_tokens=32_768, **fields), pro, 4)
    assert small.gb("activations") < large.gb("activations")
    assert small.gb("kv") - large.gb("kv") == pytest.approx(large.gb("activations") - small.gb("activations"))


def test_eager_has_no_graphs(pro: Gpu) -> None:
    assert fit(recipe(**NVFP4, enforce_eager=True), pro, 4).gb("graphs") == 0
    assert fit(recipe(**NVFP4), pro, 4).gb("graphs") > 0


def test_every_part_says_how_and_how_sure(pro: Gpu) -> None:
    found = fit(recipe(**NVFP4), pro, 4)
    assert {part.group for part in found.parts} == set(GROUPS) - {"scales"}  # of sglang
    assert all(part.how for part in found.parts)
    assert all(
        part.plus_minus > 0 for part in found.parts if part.kind != "computed" and part.name != "loading"
    )
    assert found.plus_minus_bytes == sum(part.plus_minus for part in found.parts)


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("glm-5.1-nvfp4", {}),
        ("glm-4.7-nvfp4", {}),
        ("glm-4.7-nvfp4", {"gpu_memory_utilization": 1.0}),
        ("glm-4.7-nvfp4", {"kv_cache_bytes": 90_000_000_000}),
        ("glm-5.1-reap-160-sglang", {}),
    ],
)
def test_the_parts_and_what_is_left_make_the_card(pro: Gpu, name: str, fields: dict[str, Any]) -> None:
    one = fit(find_recipe(name).replace(**fields), pro).to_json()["per_gpu"][0]
    parts = sum(one[f"{group}_gb"] for group in GROUPS)
    assert parts + one["free_gb"] == pytest.approx(one["usable_gb"], abs=0.01)


def test_the_reason_names_what_the_headline_is_made_of(pro: Gpu) -> None:
    found = fit("glm-5.1-nvfp4", pro)
    amounts = [round(size / GB, 1) for size in (found.short_bytes, -found.room_bytes, found.needed_bytes)]
    whole, over, kv = (f"{size} GB" for size in amounts)
    assert amounts[0] == pytest.approx(amounts[1] + amounts[2], abs=0.11)
    assert found.reasons[0].startswith(f"{whole} a GPU: weights and all else but KV are {over} more than")
    assert found.reasons[0].endswith(f"KV for one sequence of 131,072 tokens needs {kv}")
    assert found.kv_tokens_plus_minus == 0  # of none at all


def test_a_context_beyond_the_models_own(pro: Gpu) -> None:
    asked = find_recipe("glm-4.7-nvfp4").replace(max_model_len=300_000)
    found = fit(asked, pro, 4)
    assert found.reasons == ("max_model_len 300,000 is beyond the model's own 202,752, and vLLM refuses it",)
    assert not found.is_close
    assert any(finding.id == "context-beyond-model" for finding in check(asked, pro, 4))
    assert fit(asked.replace(env={"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"}), pro, 4).fits


# ------------------------------------------------------------------ contract
def test_names_stand_for_recipe_and_gpu(pro: Gpu, tmp_path: Path) -> None:
    named = find_recipe("glm-4.7-nvfp4")
    expected = fit(named, pro, 4).to_json()
    named.save(tmp_path / "mine.yaml")
    assert fit("glm-4.7-nvfp4", gpu="rtx-pro-6000", count=4).to_json() == expected
    assert fit(tmp_path / "mine.yaml", "rtx-pro-6000").to_json() == expected
    given = {"name": "x", "model": "glm-4.7-nvfp4", "tensor_parallel": 2, "data_parallel": 2}
    assert fit(given, "rtx-pro-6000").count == 4
    with pytest.raises(GpuError, match="rtx-pro-600'"):
        fit("glm-4.7-nvfp4", "rtx-pro-600")
    with pytest.raises(RecipeError, match="expected a name, a file or the fields"):
        fit(4, "rtx-pro-6000")  # type: ignore[arg-type]


def test_json(pro: Gpu) -> None:
    body = fit(recipe(model="glm-4.5-air", quantization="fp8"), pro, 4).to_json()
    assert json.loads(json.dumps(body)) == body
    assert body["fits"] is True
    assert [rank["rank"] for rank in body["per_gpu"]] == [0, 1, 2, 3]
    for key in ("weights_gb", "kv_gb", "activations_gb", "graphs_gb", "free_gb"):
        assert isinstance(body["per_gpu"][0][key], float)
    assert body["kv_tokens"] > body["longest_context"] == 131_072
    assert isinstance(body["advice"], list)


@pytest.mark.parametrize("count", [0, -1, 1000, True, 2.0])
def test_absurd_counts(pro: Gpu, count: Any) -> None:
    with pytest.raises(InputError, match=r"count = .*: expected 1 to 72 GPUs"):
        fit(recipe(), pro, count)


def test_heads_that_cannot_be_spread(pro: Gpu) -> None:
    with pytest.raises(RecipeError, match="tensor_parallel = 3"):
        fit(recipe(tensor_parallel=3), pro, 3)


def test_a_model_without_its_config(pro: Gpu) -> None:
    with pytest.raises(RecipeError, match=r"config\.json"):
        fit(recipe(model="someone/unknown-model"), pro, 4)


def test_a_changed_config_is_read_again(pro: Gpu, tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    asked = recipe(model=prune("glm-5.1", 160, folder), **NVFP4)
    before = fit(asked, pro, 4).gb("weights")
    config = json.loads((folder / "config.json").read_text()) | {"n_routed_experts": 128}
    time.sleep(0.01)  # for a later time stamp
    (folder / "config.json").write_text(json.dumps(config))
    assert fit(asked, pro, 4).gb("weights") < before - 10


def test_a_fit_costs_no_more_than_reading_some_dozen_recipes(pro: Gpu) -> None:
    """A search asks before every step. The other half is check's."""
    base = recipe(**NVFP4)
    recipes = [base.replace(max_num_batched_tokens=1024 + step) for step in range(400)]
    fit(base, pro, 4)
    found: list[Fit] = []
    left = iter(recipes)
    assert in_recipes(lambda: found.extend(fit(next(left), pro, 4) for _ in range(100))) / 100 < 40
    assert len({each.gb("activations") for each in found}) > 200
