"""What a study says beforehand that it cannot see."""

from __future__ import annotations

from typing import Any

import pytest

from glmlab.study_spec import StudySpec
from tests.studies import spec


def notes(space: dict[str, Any], **changes: Any) -> str:
    return " ".join(StudySpec.parse(spec(space, **changes)).notes)


@pytest.mark.parametrize("knob", ["attn_prefill_tile", "max_num_batched_tokens"])
def test_what_acts_on_prefill_only_is_hidden_by_the_prefix_cache(knob: str) -> None:
    space = {knob: [64, 1024]}
    assert f"{knob} acts on prefill" in notes(space)
    assert "acts on prefill" not in notes(space, objective=["ttft_ms"])


def test_what_acts_on_decode_too_is_seen() -> None:
    assert "acts on prefill" not in notes({"cpu_attn_isa": ["vec", "vec16"]})


def test_kernels_of_a_gpu_are_best_told_apart_by_device_time() -> None:
    assert "objective: device_ms" in notes({"kv_splits": [16, 64]})
    assert "device_ms" not in notes({"kv_splits": [16, 64]}, objective="device_ms")
    assert "device_ms" not in notes({"kv_splits": [16, 64], "block_size": [16, 32]})
    assert "device_ms" not in notes({"cpu_split_kv": [True, False]}), "no device clock on a CPU"


@pytest.mark.parametrize("plan", [{"tensor_parallel": 2}, {"pipeline_parallel": 2}])
def test_over_several_ranks_device_time_has_their_waiting_in_it(plan: dict[str, int]) -> None:
    recipe = {**spec({})["recipe"], **plan}
    space = {"kv_splits": [16, 64]}
    assert "objective: compute_ms" in notes(space, recipe=recipe)
    assert "ranks wait for each other" in notes(space, recipe=recipe, objective="device_ms")
    assert notes(space, recipe=recipe, objective="compute_ms") == ""
    assert "ranks wait" not in notes(space, objective="device_ms")
