"""History: what each trial gave, the best so far, and the baseline with its spread."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from glmlab.dimension import Value
from glmlab.figures.chart import ChartData
from glmlab.figures.quantity import (
    Spread,
    whole_spread,
)
from glmlab.figures.trials import evidence_of, find_baseline, knob_columns
from glmlab.knobs import Params
from glmlab.measurement import find_metric
from glmlab.study_spec import StudySpec
from glmlab.trial_record import Status, TrialRecord


@dataclass(frozen=True, kw_only=True)
class HistoryData(ChartData):
    """One row for each trial, in the order of their numbers.

    Attributes
    ----------
    metric : str
        What is shown: the study's first objective.
    spread : tuple
        Value of each trial over the whole workload, with p10 and p90 of its samples; ``None`` where it has
        none.
    best : tuple of float or None
        The best value that kept all constraints, up to this trial.
    reason : tuple of str
        Why a trial has no value, or which constraint it breaks.
    baseline : Spread or None
        The baseline's own value.
    """

    metric: str
    trial: tuple[int, ...]
    status: tuple[Status, ...]
    params: tuple[Params, ...]
    spread: tuple[Spread | None, ...]
    best: tuple[float | None, ...]
    feasible: tuple[bool, ...]
    reason: tuple[str, ...]
    is_live: tuple[bool, ...]
    cost_s: tuple[float, ...]
    baseline: Spread | None
    baseline_trial: int | None
    knobs: tuple[str, ...]

    def columns(self) -> Mapping[str, Sequence[Any]]:
        metric, spread = self.metric, self.spread
        base = self.baseline.value if self.baseline else None
        return {
            "trial": self.trial,
            "status": self.status,
            **knob_columns(self.params, self.knobs),
            metric: [s and s.value for s in spread],
            f"{metric}_p10": [s and s.low for s in spread],
            f"{metric}_p90": [s and s.high for s in spread],
            "ratio_to_baseline": [s.value / base if s and base else None for s in spread],
            f"best_so_far_{metric}": self.best,
            "keeps_constraints": [ok if s else None for s, ok in zip(spread, self.feasible, strict=True)],
            "engine_kept": self.is_live,
            "cost_s": self.cost_s,
            "reason": self.reason,
            "evidence": [self.evidence] * len(self.trial),
        }


def history_data(
    records: Sequence[TrialRecord],
    spec: StudySpec,
    baseline: Mapping[str, Value] | None = None,
) -> HistoryData:
    """Read the history off a study's records.

    Parameters
    ----------
    records : sequence of TrialRecord
        In the order of their numbers; may still grow.
    spec : StudySpec
        The study.
    baseline : mapping, optional
        The baseline's values, as the store has them; else found among the records.
    """
    metric, workload = spec.objective[0], spec.effective_workload
    maximize = find_metric(metric).maximize
    spreads: list[Spread | None] = []
    best: list[float | None] = []
    top: float | None = None
    for record in records:
        spread = None
        if record.status == "complete" and record.values:
            found = record.measurement and whole_spread(record.measurement, metric, workload)
            spread = found or Spread(record.values[0])
            better = top is None or (spread.value > top if maximize else spread.value < top)
            if record.is_feasible and better:
                top = spread.value
        spreads.append(spread)
        best.append(top)
    first = find_baseline(records, spec, baseline)
    at = next((i for i, record in enumerate(records) if record is first), None)
    return HistoryData(
        title=f"Trials of {spec.study}: {metric}",
        evidence=evidence_of(records, spec),
        missing="" if records else "No trial has finished yet: each appears here as soon as it has.",
        metric=metric,
        trial=tuple(r.number for r in records),
        status=tuple(r.status for r in records),
        params=tuple(r.params for r in records),
        spread=tuple(spreads),
        best=tuple(best),
        feasible=tuple(r.is_feasible for r in records),
        reason=tuple(_reason(r) for r in records),
        is_live=tuple(r.cost.is_live for r in records),
        cost_s=tuple(r.cost.total_s for r in records),
        baseline=None if at is None else spreads[at],
        baseline_trial=None if first is None else first.number,
        knobs=tuple(dimension.name for dimension in spec.knob_space),
    )


def _reason(record: TrialRecord) -> str:
    if record.status == "complete" and not record.is_feasible:
        broken = [
            f"{name} = {record.constraint_values.get(name, float('nan')):,.6g}"
            for name, violation in record.violations.items()
            if violation > 0
        ]
        return f"breaks a constraint: {', '.join(broken)}"
    return record.reason
