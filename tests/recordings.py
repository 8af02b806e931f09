"""Small recordings, made by recording a double. Only here may a double call its numbers measured."""

from __future__ import annotations

import itertools
import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from glmlab.engines.base import ApplyReport
from glmlab.measurement import Evidence, Measurement, PointMeasurement
from glmlab.recipe import Recipe
from glmlab.record import RecordedGrid, record_grid
from glmlab.recorded import load_recording
from glmlab.workload import Workload
from tests.doubles import Knobs, ScriptedEngine, scripted_start
from tests.studies import RECIPE

WORKLOAD = Workload(contexts=(64, 256), batch_sizes=(1, 2), new_tokens=4)
GRID: tuple[dict[str, Any], ...] = tuple(
    {"cpu_split_kv": split, "max_num_seqs": seqs}
    for split, seqs in itertools.product((True, False), (4, 8, 16))
)
SPACE = {"cpu_split_kv": [True, False], "max_num_seqs": [4, 8, 16]}
PREFILL_MS = 3.0  # per prompt token that is not in the cache


def bowl(knobs: Knobs) -> Any:
    """Best without split-KV and with 8 sequences; a larger block helps a little."""
    return (
        (10.0 if knobs["cpu_split_kv"] else 8.0)
        + abs(knobs["max_num_seqs"] - 8) / 8
        - knobs["block_size"] / 100
    )


def wobble(n: int) -> float:
    """Every visit differs a little, and no two alike."""
    return 1 + 0.004 * math.sin(n * n)


class MeasuringDouble(ScriptedEngine):
    """A double that costs something: 0.2 s to change knobs, and prefill where the cache is cold."""

    evidence: Evidence = "measured"
    BETWEEN_S = 0.01  # what a measurement takes beside its passes

    def measure(self, workload: Workload) -> Measurement:
        found = super().measure(workload)
        passes_s = sum(p.warmup_ms + p.elapsed_ms for p in found.points) / 1e3
        return found.model_copy(update={"duration_s": passes_s + self.BETWEEN_S})

    def __init__(self, recipe: Recipe, script: scripted_start) -> None:
        super().__init__(recipe, script)
        self._seen: defaultdict[int, int] = defaultdict(int)  # request -> tokens of its prompt in the cache

    def apply(self, **knobs: Any) -> ApplyReport:
        report = super().apply(**knobs)
        count = len(self._script.applied)
        return report.model_copy(update={"seconds": 0.2 + count / 1000 if report.changed else 0.001})

    def _point(self, context: int, batch: int, ms: float, workload: Workload) -> PointMeasurement:
        point = super()._point(context, batch, ms, workload)
        cached = [min(self._seen[request], context) for request in range(batch)]
        self._seen.update({r: context for r in range(batch) if self._seen[r] < context})
        prefill_ms = sum(context - known for known in cached) * PREFILL_MS
        return point.model_copy(
            update={
                "warmup_cached_tokens": cached,
                "warmup_ttft_ms": [ms + prefill_ms] * batch,
                "warmup_ms": point.warmup_ms + prefill_ms,
            }
        )


def record(
    path: Path,
    script: scripted_start | None = None,
    *,
    points: Sequence[Mapping[str, Any]] = GRID,
    visits: int = 5,
    recipe: Mapping[str, Any] = RECIPE,
    workload: Workload = WORKLOAD,
    **changes: Any,
) -> RecordedGrid:
    """Record a double, started anew."""
    script = script or scripted_start(bowl, drift=wobble)
    with MeasuringDouble(Recipe.parse(dict(recipe)), script) as engine:
        return record_grid(
            engine,
            workload,
            points,
            visits,
            path,
            **{
                "name": path.name.partition(".")[0],
                "title": "a double of the tests",
                "start_s": (30.0, 40.0),
                **changes,
            },
        )


def with_failures_of(path: Path, seconds: float) -> None:
    """Let every failed attempt of a recording have cost so much: a double fails at once."""
    bodies = [json.loads(line) for line in path.read_text().splitlines()]
    for body in bodies:
        if body.get("kind") == "failed":
            body["seconds"] = seconds
    path.write_text("".join(f"{json.dumps(body)}\n" for body in bodies))


def recording(path: Path, script: scripted_start | None = None, **changes: Any) -> Any:
    """What :func:`record` wrote, read back."""
    record(path, script, **changes)
    return load_recording(path)


def replay_spec(**changes: Any) -> dict[str, Any]:
    """A study file over recordings of the double."""
    return {
        "study": "again",
        "recipe": RECIPE,
        "engine": "replay",
        "space": SPACE,
        "workload": WORKLOAD.model_dump(mode="json"),
        **changes,
    }
