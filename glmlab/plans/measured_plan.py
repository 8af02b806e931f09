"""MeasuredPlan: what trials of a study gave in one plan, and what is predicted of just these recipes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glmlab.decode.prediction import Range
from glmlab.knobs import Params

_DIGITS = 4


@dataclass(frozen=True)
class MeasuredPoint:
    """One (context, batch) point of one trial.

    Attributes
    ----------
    context, batch : int
        Tokens of each prompt, and sequences together.
    weight : float
        Of the context in the workload.
    measured_ms : float
        Wall time per output token, median.
    device_ms : float or None
        Kernel time of a decode step on the rank with most to compute, median; ``None`` where it was not
        measured. A step that waits for the host, and a pipeline, take longer.
    predicted : Range or None
        Milliseconds per output token; with all-reduces as measured, where they were.
    by_tables : Range or None
        The same by the packaged all-reduce tables, as ``glmlab plan`` says it before anything is measured.
    """

    context: int
    batch: int
    weight: float
    measured_ms: float
    device_ms: float | None = None
    predicted: Range | None = None
    by_tables: Range | None = None

    @property
    def ratio(self) -> float | None:
        """Predicted over measured: below 1 the prediction was too short."""
        return None if self.predicted is None else self.predicted.value / self.measured_ms

    @property
    def is_inside(self) -> bool | None:
        """Whether the measured time lies in the predicted range."""
        if self.predicted is None:
            return None
        return self.predicted.low <= self.measured_ms <= self.predicted.high

    def to_json(self) -> dict[str, Any]:
        """Times in milliseconds."""
        return {
            "context": self.context,
            "batch": self.batch,
            "measured_ms": round(self.measured_ms, _DIGITS),
            "device_ms": None if self.device_ms is None else round(self.device_ms, _DIGITS),
            **_range_json("predicted", "ms", self.predicted),
            "predicted_by_tables_ms": None
            if self.by_tables is None
            else round(self.by_tables.value, _DIGITS),
            "ratio": None if self.ratio is None else round(self.ratio, _DIGITS),
            "inside": self.is_inside,
        }


@dataclass(frozen=True)
class MeasuredTrial:
    """One trial of a plan.

    Attributes
    ----------
    number : int
        Of the trial.
    knobs : dict
        Its live knobs.
    is_best, is_default : bool
        Whether it has the shortest time per output token of its plan; whether its live knobs are the
        baseline's.
    points : tuple of MeasuredPoint
        By context, then by batch.
    """

    number: int
    knobs: Params
    is_best: bool
    is_default: bool
    points: tuple[MeasuredPoint, ...]

    @property
    def tokens_per_s(self) -> float:
        """Output tokens a second while decoding, over all points as the workload weighs them."""
        return _rate(self.points, [point.measured_ms for point in self.points])

    @property
    def predicted(self) -> Range | None:
        """The same as predicted, at the worst, the value and the best of all constants."""
        return _rates(self.points, [point.predicted for point in self.points])

    @property
    def by_tables(self) -> Range | None:
        """The same by the packaged all-reduce tables."""
        return _rates(self.points, [point.by_tables for point in self.points])

    @property
    def ratio(self) -> float | None:
        """Predicted over measured time per output token, over all points."""
        return None if self.predicted is None else self.tokens_per_s / self.predicted.value

    @property
    def role(self) -> str:
        """Why it is here, in a word or two."""
        return ", ".join(
            word for word, holds in (("best", self.is_best), ("default", self.is_default)) if holds
        )

    def to_json(self) -> dict[str, Any]:
        """Rates in output tokens a second."""
        return {
            "trial": self.number,
            "best": self.is_best,
            "default": self.is_default,
            "knobs": self.knobs,
            "measured_tokens_per_s": round(self.tokens_per_s, _DIGITS),
            **_range_json("predicted", "tokens_per_s", self.predicted),
            "predicted_by_tables_tokens_per_s": None
            if self.by_tables is None
            else round(self.by_tables.value, _DIGITS),
            "ratio": None if self.ratio is None else round(self.ratio, _DIGITS),
            "points": [point.to_json() for point in self.points],
        }


@dataclass(frozen=True)
class MeasuredPlan:
    """One plan of a study: a rebuild part of its points.

    Attributes
    ----------
    label : str
        Such as ``TP2``; with other rebuild knobs where these differ between plans.
    params : dict
        The rebuild knobs of the study.
    counts : dict
        Trials by status; empty where none was tried yet.
    trials : tuple of MeasuredTrial
        The best one, and that of the baseline's live knobs; empty where none was measured.
    reason : str
        Why the first trial that came to nothing did.
    measured_rank, predicted_rank, rank_by_tables : int or None
        Among the plans that were measured, from 1, by their best trials; None where there is nothing to rank.
    """

    label: str
    params: Params
    counts: dict[str, int]
    trials: tuple[MeasuredTrial, ...] = ()
    reason: str = ""
    measured_rank: int | None = None
    predicted_rank: int | None = None
    rank_by_tables: int | None = None

    @property
    def best(self) -> MeasuredTrial | None:
        """The trial that the plan is ranked by."""
        return next((trial for trial in self.trials if trial.is_best), None)

    @property
    def outcome(self) -> str:
        """``measured``, ``not tried yet``, or how its trials ended: ``failed``, ``blocked``."""
        if self.trials:
            return "measured"
        return " and ".join(self.counts) or "not tried yet"

    def to_json(self) -> dict[str, Any]:
        """Everything, ranks from 1."""
        return {
            "plan": self.label,
            "params": self.params,
            "outcome": self.outcome,
            "trials_by_status": self.counts,
            "reason": self.reason or None,
            "measured_rank": self.measured_rank,
            "predicted_rank": self.predicted_rank,
            "predicted_rank_by_tables": self.rank_by_tables,
            "trials": [trial.to_json() for trial in self.trials],
        }


def _rate(points: Sequence[MeasuredPoint], times_ms: Sequence[float]) -> float:
    tokens = sum(point.weight * point.batch for point in points)
    time_ms = sum(point.weight * ms for point, ms in zip(points, times_ms, strict=True))
    return tokens / time_ms * 1e3 if time_ms else math.inf


def _rates(points: Sequence[MeasuredPoint], times: Sequence[Range | None]) -> Range | None:
    known = [each for each in times if each is not None]
    if len(known) < len(points):
        return None
    high, value, low = (_rate(points, [each[end] for each in known]) for end in range(3))
    return Range(low, value, high)


def _range_json(name: str, unit: str, found: Range | None) -> dict[str, float | None]:
    keys = (f"{name}_{unit}", f"{name}_low_{unit}", f"{name}_high_{unit}")
    ends = (None,) * 3 if found is None else (found.value, found.low, found.high)
    return {key: None if end is None else round(end, _DIGITS) for key, end in zip(keys, ends, strict=True)}
