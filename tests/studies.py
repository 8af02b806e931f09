"""Studies for tests of the loop: their spaces, how the double behaves, and how to run one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from glmlab.knobs import Params
from glmlab.study import Study
from glmlab.study_spec import Budget
from tests.doubles import Knobs, scripted_start

ROOT = Path(__file__).parents[1]
RECIPE = {
    "name": "unit",
    "model": "tiny/glm4-moe",
    "max_model_len": 4096,
    "block_size": 32,
    "max_num_batched_tokens": 1024,
    "cpu_split_kv": True,
}
TWO_PLANS = {"cpu_split_kv": [True, False], "block_size": [32, 64]}
LIVE = {"cpu_split_kv": [True, False]}
# Too large for any budget below: the sampler proposes.
SAMPLED = {**TWO_PLANS, "max_num_batched_tokens": {"low": 256, "high": 1024, "step": 8}}


def spec(
    space: Mapping[str, Any] = TWO_PLANS, *, recipe: Mapping[str, Any] = RECIPE, **changes: Any
) -> dict[str, Any]:
    return {
        "study": "unit",
        "recipe": recipe,
        "space": space,
        "workload": {"contexts": [64], "new_tokens": 4},
        "confirm": {"rounds": 3, "rebuild_rounds": 3},
        **changes,
    }


def split_helps(knobs: Knobs) -> Any:
    """Switching split-KV off makes this double a fifth faster, larger blocks a little."""
    return (10.0 if knobs["cpu_split_kv"] else 8.0) - knobs["block_size"] / 1000


def bowl(knobs: Knobs) -> Any:
    return 5.0 + abs(knobs["max_num_batched_tokens"] - 600) / 100 + (knobs["block_size"] == 64)


def run(
    url: str,
    start: scripted_start,
    /,
    budget: Budget | None = None,
    stop: Callable[[], bool] = lambda: False,
    **changes: Any,
) -> Any:
    study = Study(spec(**changes), url, start=start)
    study.run(budget=budget, stop=stop)
    return study


def proposals(study: Study) -> list[Params]:
    return [r.params for r in study.records() if r.status != "interrupted"]
