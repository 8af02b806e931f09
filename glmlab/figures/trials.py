"""Trials as charts see them: the baseline among them, the best of each value, their knobs in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from glmlab.dimension import Value, same_value
from glmlab.errors import KnobError
from glmlab.knobs import Params
from glmlab.knobs import word as spelled
from glmlab.measurement import METRICS
from glmlab.names import did_you_mean
from glmlab.study_spec import StudySpec
from glmlab.summary import baseline_record, best_record
from glmlab.trial_record import TrialRecord

INACTIVE = "not active"


def complete(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Trials that have numbers."""
    return [r for r in records if r.status == "complete" and r.measurement is not None and r.values]


def evidence_of(records: Sequence[TrialRecord], spec: StudySpec) -> str:
    """What the numbers are; where they are of several kinds, all of these."""
    found = dict.fromkeys(r.evidence for r in records if r.status == "complete")
    return ", ".join(found) or spec.evidence


def find_baseline(
    records: Sequence[TrialRecord], spec: StudySpec, baseline: Mapping[str, Value] | None
) -> TrialRecord | None:
    """The baseline's trial.

    Without its values it is the first complete trial that agrees with the recipe wherever that names a
    value: a search tries the baseline before all others.
    """
    if baseline is not None:
        return baseline_record(records, spec.knob_space.active(baseline))
    named = {d.name: getattr(spec.base_recipe, d.name) for d in spec.knob_space}
    for record in records:
        if record.status == "complete" and all(
            named[name] is None or same_value(value, named[name])
            for name, value in record.params.items()
            if name in named
        ):
            return record
    return None


def chart_knob(spec: StudySpec, knob: str | None) -> str:
    """The knob of a chart, checked or chosen: KV splits, else the first that is live, else the first.

    Raises
    ------
    KnobError
        For a knob that the study does not move.
    """
    space = spec.knob_space
    if knob is None:
        return "kv_splits" if "kv_splits" in space else next(iter([*space.live, *space.rebuild]))
    if knob not in space:
        known = [d.name for d in space]
        raise KnobError(f"knob = {knob!r}: study {spec.study!r} does not move it{did_you_mean(knob, known)}")
    return knob


def best_of_each_value(
    records: Sequence[TrialRecord], spec: StudySpec, knob: str
) -> dict[Value, tuple[TrialRecord, int]]:
    """Value of a knob -> its best trial, and how many there are; values in the order of the space.

    A trial that breaks a constraint stands for its value only where no other does.
    """
    groups: dict[Value, list[TrialRecord]] = {}
    for record in complete(records):
        groups.setdefault(record.params.get(knob), []).append(record)
    return {
        value: (_best(groups[value], spec), len(groups[value]))
        for value in ordered_values(spec, knob, [*groups])
    }


def _best(records: Sequence[TrialRecord], spec: StudySpec) -> TrialRecord:
    found = best_record(records, spec)
    if found is not None:
        return found
    sign = -1 if METRICS[spec.objective[0]].maximize else 1
    return min(records, key=lambda r: sign * r.values[0] if r.values else 0.0)


def ordered_values(spec: StudySpec, knob: str, values: Sequence[Value]) -> list[Value]:
    """Numbers by size, other values as the space lists them, what is not active last."""
    listed = [*spec.knob_space[knob].values]

    def rank(value: Value) -> tuple[int, float]:
        if value is None:
            return 2, 0.0
        if isinstance(value, int | float) and not isinstance(value, bool):
            return 0, float(value)
        places = [index for index, known in enumerate(listed) if same_value(known, value)]
        return 1, float(places[0] if places else len(listed))

    return sorted(values, key=rank)


def word(value: Value) -> str:
    """A knob's value as a study file writes it."""
    return INACTIVE if value is None else spelled(value)


def knob_columns(points: Sequence[Params], names: Sequence[str]) -> dict[str, list[Value]]:
    """One column for each knob; empty where it was not active."""
    return {name: [params.get(name) for params in points] for name in names}
