"""Studies of plans on GPUs, for tests: run by a double that says what it was measured on."""

from __future__ import annotations

from typing import Any

import pytest

from glmlab.all_reduce_time import AllReduceTime
from glmlab.engines.base import KnobStatus
from glmlab.study import Study
from tests.doubles import Knobs, scripted_start
from tests.studies import spec

H100 = "NVIDIA H100 80GB HBM3"
RECIPE = {
    "name": "plans", "model": "glm-4.7-flash", "max_model_len": 8192, "kv_cache_dtype": "fp8",
    "attention_backend": "TRITON_MLA", "kv_splits": 16,
}  # fmt: skip
PLANS = [{"tensor_parallel": 1}, {"tensor_parallel": 2}, {"tensor_parallel": 2, "expert_parallel": True}]
SPACE = {"plans": PLANS, "kv_splits": [16, 64]}
WORKLOAD = {"contexts": [256, 4096], "batch_sizes": [1, 4], "new_tokens": 32}


def machine(*gpus: str, versions: dict[str, str] | None = None, **facts: Any) -> dict[str, Any]:
    """What a run tells of itself."""
    cards = [{"name": name, "driver": "580", "uuid": str(n), **facts} for n, name in enumerate(gpus)]
    return {"versions": versions or {"vllm": "0.32.0"}, "gpus": cards}


def two_ranks_help(knobs: Knobs) -> Any:
    """A plan of two ranks is faster, and so are 64 splits with it; alone they cost."""
    alone = knobs["tensor_parallel"] == 1
    return (9.0 if alone else 6.0) + (0.5 if alone else -0.5) * (knobs["kv_splits"] == 64)


def no_room_for_experts(recipe: Any) -> str | None:
    return "CUDA out of memory" if recipe.expert_parallel else None


def plan_study(
    url: str, monkeypatch: pytest.MonkeyPatch, *, on: dict[str, Any] | None = None, **changes: Any
) -> Study:
    """A study of three plans, of which one does not start, by default on two H100."""
    made = machine(H100, H100) if on is None else on
    monkeypatch.setattr("glmlab.provenance.of_run", lambda: made)
    script = scripted_start(
        changes.pop("latency", two_ranks_help),
        start_fails=changes.pop("start_fails", no_room_for_experts),
        device=True,
        live={"kv_splits": KnobStatus(live=True, values=(16, 64))},
        chosen={"kv_splits": 16},
    )
    given = {"space": SPACE, "recipe": RECIPE, "workload": WORKLOAD, **changes}
    study = Study(spec(given.pop("space"), **given), url, start=script)
    study.run()
    return study


def all_reduces(device_us: float | None, ranks: int = 2) -> list[AllReduceTime]:
    return [
        AllReduceTime(path="vllm", bytes=size, ranks=ranks, right=True, wall_us=60.0, device_us=device_us)
        for size in (1024, 16_384, 1_048_576)
    ]
