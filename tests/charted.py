"""Trials made by hand for tests of charts: every number is written down, so that each can be checked."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from glmlab.measurement import Evidence, Measurement, PointMeasurement, WorkerMemory
from glmlab.study_spec import StudySpec
from glmlab.trial_record import TrialCost, TrialRecord, Visit
from tests.studies import spec

SPACE = {"cpu_split_kv": [True, False], "block_size": [32, 64]}
# Ten, so that p10 and p90 fall between known ones: of 1..10 they are 1.9 and 9.1.
STEPS = tuple(range(1, 11))


def study(space: Mapping[str, Any] = SPACE, **changes: Any) -> StudySpec:
    workload = {"contexts": [64, 256], "batch_sizes": [1], "new_tokens": 11}
    return StudySpec.parse(spec(space, **{"workload": workload, **changes}))


def point(
    context: int,
    batch: int,
    gaps_ms: Sequence[float],
    *,
    device_ms: Sequence[float] | None = None,
    elapsed_ms: float = 100.0,
    tokens: Sequence[int] = (1, 2, 3, 4),
) -> PointMeasurement:
    return PointMeasurement(
        context=context,
        batch=batch,
        wall_step_ms=list(gaps_ms),
        step_tokens=[batch] * len(gaps_ms),
        token_gap_ms=list(gaps_ms),
        ttft_ms=[5.0] * batch,
        cached_tokens=[context] * batch,
        device_step_ms=None if device_ms is None else list(device_ms),
        warmup_ms=1.0,
        warmup_ttft_ms=[1.0] * batch,
        warmup_cached_tokens=[context] * batch,
        elapsed_ms=elapsed_ms,
        tokens=[list(tokens)] * batch,
    )


def measurement(
    *points: PointMeasurement, evidence: Evidence = "measured", peak_bytes: int | None = None
) -> Measurement:
    memory = [] if peak_bytes is None else [WorkerMemory(rank=0, peak_rss_bytes=peak_bytes)]
    return Measurement(
        evidence=evidence, points=list(points), memory=memory, started_unix_s=0.0, duration_s=1.0
    )


def steps(times: float) -> list[float]:
    """Ten samples: median 5.5, p10 1.9 and p90 9.1, each times a factor."""
    return [times * each for each in STEPS]


def trial(
    number: int,
    params: Mapping[str, Any],
    *points: PointMeasurement,
    values: Sequence[float] | None = None,
    **changes: Any,
) -> TrialRecord:
    """A complete trial; without values its median times per token, each context alike."""
    found = measurement(*points, evidence=changes.get("evidence", "measured"))
    if values is None:
        values = [sum(each.tpot_ms for each in points) / len(points)]
    return TrialRecord(
        number=number,
        status="complete",
        params=dict(params),
        values=tuple(values),
        measurement=found,
        **changes,
    )


def simple(number: int, params: Mapping[str, Any], times: float, **changes: Any) -> TrialRecord:
    """A trial at both contexts of :func:`study`: 5.5 and 11 ms, times a factor, so 8.25 in all."""
    return trial(number, params, point(64, 1, steps(times)), point(256, 1, steps(2 * times)), **changes)


def without_value(number: int, status: Any, reason: str, params: Mapping[str, Any] | None = None) -> Any:
    return TrialRecord(number=number, status=status, reason=reason, params=dict(params or {}))


def cost(**seconds: float) -> TrialCost:
    return TrialCost(**{f"{name}_s": value for name, value in seconds.items()})


def visit(side: Any, round_: int, times: float, **seconds: float) -> Visit:
    return Visit(
        side=side,
        round=round_,
        measurement=measurement(point(64, 1, steps(times)), point(256, 1, steps(2 * times))),
        cost=cost(**seconds),
    )


def title(figure: Any) -> str:
    """A figure's title and what stands below it, as one reads it."""
    return re.sub("<[^>]*>", "", figure.layout.title.text.replace("<br>", " "))
