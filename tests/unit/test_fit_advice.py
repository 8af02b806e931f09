"""Advice is computed through: what it promises is what a fit of the changed recipe gives."""

from __future__ import annotations

from typing import Any

import pytest

from glmlab.gpus import Gpu, find_gpu
from glmlab.memory import Fit, fit
from glmlab.recipe import Recipe
from glmlab.rules import check


@pytest.fixture(scope="module")
def pro() -> Gpu:
    return find_gpu("rtx-pro-6000")


def found(gpu: Gpu, count: int = 4, **fields: Any) -> Fit:
    defaults = {"name": "test", "tensor_parallel": 4, "kv_cache_dtype": "fp8"}
    return fit(Recipe(**defaults | fields), gpu, count)


def test_a_prune_for_a_model_that_is_far_too_large(pro: Gpu) -> None:
    full = found(pro, model="glm-5.1-nvfp4")
    first = full.advice[0]
    assert first.fits
    assert first.gpus == 4
    assert first.changes["model"].startswith("glm-5.1-reap-")
    assert any(each.changes.get("model") == "glm-5.1-reap-160" and each.fits for each in full.advice)
    more = next(each for each in full.advice if each.changes == {"tensor_parallel": 8})
    assert more.fits
    assert more.gpus == 8
    assert "on 8 GPUs" in more.what


def test_a_quantized_checkpoint_for_one_that_is_not(pro: Gpu) -> None:
    plain = found(pro, model="glm-4.7")
    assert plain.advice[0].changes == {"model": "glm-4.7-nvfp4"}


@pytest.mark.parametrize(
    "model", ["glm-5.1-nvfp4", "glm-4.7-fp8", "glm-5.1-reap-160", "glm-4.7", "glm-5.2-reap-504b"]
)
def test_what_is_promised_holds(pro: Gpu, model: str) -> None:
    asked = found(pro, model=model)
    assert not asked.fits
    assert asked.advice
    for each in asked.advice:
        again = fit(asked.recipe.replace(**each.changes), pro, each.gpus)
        assert again.fits == each.fits
        assert again.kv_tokens == each.kv_tokens
        assert asked.short_bytes - again.short_bytes == pytest.approx(each.gain_bytes)
        assert each.gain_bytes > 0


def test_the_most_effective_comes_first(pro: Gpu) -> None:
    advice = found(pro, model="glm-4.7-fp8").advice
    fits = [each.fits for each in advice]
    assert fits == sorted(fits, reverse=True)
    gains = [each.gain_bytes for each in advice if not each.fits]
    assert gains == sorted(gains, reverse=True)
    here = [each.longest_context for each in advice if each.fits and each.gpus == 4]
    assert here == sorted(here, reverse=True)


def test_no_context_parallelism_where_the_backend_refuses_it(pro: Gpu) -> None:
    sparse = found(pro, model="glm-5.2-reap-504b", max_model_len=500_000)
    assert not any("decode_context_parallel" in each.changes for each in sparse.advice)
    dense = found(pro, model="glm-5.2-reap-504b", max_model_len=500_000, dense_mla=True)
    shared = next(each for each in dense.advice if "decode_context_parallel" in each.changes)
    assert shared.fits


def test_settings_together_where_none_is_enough(pro: Gpu) -> None:
    short = found(pro, model="glm-4.7-fp8", max_model_len=150_000)
    together = next(each for each in short.advice if each.what.startswith("together: "))
    assert together.fits
    assert set(together.changes) == {"gpu_memory_utilization", "max_num_batched_tokens"}
    for name, value in together.changes.items():
        assert not fit(short.recipe.replace(**{name: value}), pro, 4).fits


def test_too_few_gpus_first_the_recipe_as_it_is(pro: Gpu) -> None:
    alone = fit("glm-4.7-nvfp4", pro, 1)
    assert [(each.changes, each.gpus, each.fits) for each in alone.advice] == [({}, 4, True)]
    assert alone.advice[0].what.startswith("the recipe as it is, on 4 GPUs: fits")
    twice = found(pro, count=4, model="glm-4.7-nvfp4", data_parallel=2)
    assert [(each.changes, each.gpus) for each in twice.advice] == [({}, 8), ({"data_parallel": 1}, 4)]
    smaller = found(pro, count=2, model="glm-4.5-air-fp8")
    assert smaller.advice[1].changes == {"tensor_parallel": 2}
    assert "on the 2 GPUs that are there" in smaller.advice[1].what


def test_too_few_gpus_for_what_is_too_large_as_well(pro: Gpu) -> None:
    large = fit("glm-5.1-nvfp4", pro, 1)
    first = large.advice[0]
    assert first.what.startswith("on 4 GPUs, glm-5.1-reap-")
    for each in large.advice:
        assert fit(large.recipe.replace(**each.changes), pro, each.gpus).fits == each.fits


@pytest.mark.parametrize(
    ("model", "most"), [("glm-4.7-nvfp4", 300_000), ("glm-4.7-fp8", 300_000), ("glm-4.7-fp8", 2_000_000)]
)
def test_no_advice_beyond_the_models_own_context(pro: Gpu, model: str, most: int) -> None:
    asked = found(pro, model=model, max_model_len=most)
    assert asked.advice
    for each in asked.advice:
        assert each.changes["max_model_len"] <= asked.model.max_model_len == 202_752
        again = fit(asked.recipe.replace(**each.changes), pro, each.gpus)
        assert again.fits == each.fits
        assert asked.short_bytes - again.short_bytes == pytest.approx(each.gain_bytes)


def test_a_utilization_that_leaves_no_room_is_lowered(pro: Gpu) -> None:
    full = found(pro, model="glm-4.7-nvfp4", gpu_memory_utilization=1.0)
    assert full.advice[0].changes == {"gpu_memory_utilization": 0.98}
    assert full.advice[0].fits


def test_huge_steps_are_lowered(pro: Gpu) -> None:
    wide = found(pro, model="glm-4.7-nvfp4", max_num_batched_tokens=1_000_000)
    assert wide.advice[0].changes == {"max_num_batched_tokens": 8192}
    assert "max_num_batched_tokens 8,192 in place of 1,000,000" in wide.advice[0].what
    many = found(pro, model="glm-4.7-nvfp4", max_num_batched_tokens=100_000, max_num_seqs=100_000)
    assert {"max_num_seqs": 1024} in [each.changes for each in many.advice if each.fits]
    assert any("max_num_batched_tokens" in each.changes and each.fits for each in many.advice)


@pytest.mark.parametrize(("size", "then"), [(90_000_000_000, 46), (1_000_000_000, 12)])
def test_a_fixed_pool_is_made_to_fit(pro: Gpu, size: int, then: int) -> None:
    fixed = found(
        pro, model="glm-4.7-nvfp4", kv_cache_dtype="auto", max_model_len=131_072, kv_cache_bytes=size
    )
    first = fixed.advice[0]
    assert first.fits
    assert first.changes["kv_cache_bytes"] // 1_000_000_000 == then


@pytest.mark.parametrize("model", ["glm-5.1-nvfp4", "glm-4.7-fp8", "glm-4.7", "glm-5.1"])
def test_at_most_one_line_that_is_not_enough(pro: Gpu, model: str) -> None:
    assert sum(not each.fits for each in found(pro, model=model).advice) <= 1


def test_what_headroom_buys(pro: Gpu) -> None:
    fitting = found(pro, model="glm-4.7-nvfp4", kv_cache_dtype="auto")
    assert fitting.fits
    changes = [each.changes for each in fitting.advice]
    assert {"kv_cache_dtype": "fp8"} in changes
    assert {"gpu_memory_utilization": 0.98} in changes
    for each in fitting.advice:
        again = fit(fitting.recipe.replace(**each.changes), pro, each.gpus)
        assert again.kv_tokens == each.kv_tokens > fitting.kv_tokens


def test_idle_gpus_are_named(pro: Gpu) -> None:
    idle = found(pro, count=4, model="glm-4.5-air-fp8", tensor_parallel=2)
    assert any("2 of 4 GPUs idle" in each.what for each in idle.advice)


def test_advice_of_a_close_fit_says_so(pro: Gpu) -> None:
    sparse = found(pro, model="glm-5.1-reap-160")
    smaller_steps = next(each for each in sparse.advice if "max_num_batched_tokens" in each.changes)
    assert smaller_steps.fits
    assert "too close to be sure" in smaller_steps.what


@pytest.mark.parametrize(
    ("backend", "taken"), [("FLASH_ATTN", False), ("flash_attn", False), ("FLASHINFER", True)]
)
def test_fp8_kv_only_where_the_backend_takes_it(pro: Gpu, backend: str, taken: bool) -> None:
    fields: dict[str, Any] = {
        "model": "glm-4.7-nvfp4",
        "kv_cache_dtype": "auto",
        "attention_backend": backend,
    }
    assert any(each.changes == {"kv_cache_dtype": "fp8"} for each in found(pro, **fields).advice) is taken


def test_flash_attention_takes_fp8_kv_on_hopper() -> None:
    fields: dict[str, Any] = {"kv_cache_dtype": "auto", "attention_backend": "FLASH_ATTN"}
    fitting = found(find_gpu("h200"), model="glm-4.7-nvfp4", **fields)
    assert any(each.changes == {"kv_cache_dtype": "fp8"} for each in fitting.advice)


def test_a_prune_that_needs_an_index_pattern_says_so(pro: Gpu) -> None:
    def said(**fields: Any) -> str:
        advice = found(pro, model="glm-5.1-nvfp4", **fields).advice
        return next(each.what for each in advice if str(each.changes.get("model")).startswith("glm-5.2"))

    assert "index_topk_pattern" in said()
    assert "index_topk_pattern" not in said(dense_mla=True)
    assert "index_topk_pattern" not in said(engine_args={"hf_overrides": {"index_topk_pattern": "F" * 78}})


@pytest.mark.parametrize(("vllm", "taken"), [("0.15.1", False), ("0.16.0", False), ("0.17.0", True)])
def test_no_fp8_kv_where_vllm_stops_for_want_of_scales(pro: Gpu, vllm: str, taken: bool) -> None:
    fields: dict[str, Any] = {"kv_cache_dtype": "auto", "versions": {"vllm": vllm}}
    advice = found(pro, model="glm-4.7-nvfp4", **fields).advice
    assert any("kv_cache_dtype" in each.changes for each in advice) is taken


@pytest.mark.parametrize("gpu", ["rtx-pro-6000", "h100", "b200"])
@pytest.mark.parametrize("backend", [None, "FLASH_ATTN", "FLASHINFER", "TRITON_ATTN"])
@pytest.mark.parametrize("vllm", ["0.15.1", "0.32.0"])
def test_no_rule_blocks_the_kv_format_of_the_advice(gpu: str, backend: str | None, vllm: str) -> None:
    fields: dict[str, Any] = {"attention_backend": backend, "versions": {"vllm": vllm}}
    asked = found(find_gpu(gpu), model="glm-4.7-nvfp4", kv_cache_dtype="auto", **fields)
    for each in asked.advice:
        if "kv_cache_dtype" in each.changes:
            changed = asked.recipe.replace(**each.changes)
            assert blocks(changed, asked.gpu) <= blocks(asked.recipe, asked.gpu)


def blocks(recipe: Recipe, gpu: Gpu) -> set[str]:
    return {finding.id for finding in check(recipe, gpu, 4) if finding.severity == "blocks"}
