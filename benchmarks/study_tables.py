"""The tables of docs/h100-plans.md, from the study that is kept beside it.

    python benchmarks/study_tables.py h100-plans-glm-4.7 benchmarks/results/h100-plans.db

Prints Markdown: time per output token by plan and knob value, kernel families of each plan, what each
change cost, and predictions beside measurements.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from glmlab import predicted_beside_measured
from glmlab.decode.tables import number
from glmlab.errors import InputError
from glmlab.measurement import PointMeasurement, find_metric
from glmlab.plans.measured_plan import MeasuredPoint
from glmlab.plans.space import Plan
from glmlab.storage import StudyStore
from glmlab.trial_record import TrialRecord

Point = TypeVar("Point", PointMeasurement, MeasuredPoint)
FAMILIES = ("attention", "moe", "gemm", "other", "collectives")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("study")
    parser.add_argument("file", type=Path)
    asked = parser.parse_args()
    try:
        store = StudyStore.load(asked.study, f"sqlite:///{asked.file}")
    except InputError as error:
        parser.error(str(error))
    print("\n\n".join(tables(store)))


def tables(store: StudyStore) -> Iterable[str]:
    records = [record for record in store.records() if record.measurement is not None]
    yield "Time per output token, ms: batch, then context"
    workload = store.parsed_spec.effective_workload
    points = sorted((batch, context) for context, batch in workload.points)
    heads = ["plan", "kv_splits", *(f"{batch} x {context:,}" for batch, context in points)]
    plans = list(dict.fromkeys(map(label, records)))
    ordered = sorted(records, key=lambda record: (plans.index(label(record)), record.params["kv_splits"]))
    yield table(heads, [[label(r), str(r.params["kv_splits"]), *tpots(r)] for r in ordered])
    yield "Kernels of a step, ms, each plan with the baseline's live knobs, longest context"
    base = store.baseline or {}
    alike = [record for record in ordered if record.params["kv_splits"] == base.get("kv_splits")]
    yield table(["plan", "batch", *FAMILIES, "step", "wall"], list(family_rows(alike)))
    yield "What a trial cost, s"
    yield table(
        ["plan", "start", "prefill", "live change", "measurement"],
        [cost_row(name, [r for r in records if label(r) == name]) for name in plans],
    )
    found = predicted_beside_measured(store)
    yield "Predicted beside measured, ms per output token, the best trial of each plan"
    rows = [
        [
            each.label,
            f"{point.batch} x {point.context:,}",
            number(point.measured_ms),
            number(point.predicted.value) if point.predicted else "-",
            f"{number(point.predicted.low)} to {number(point.predicted.high)}" if point.predicted else "-",
            f"{point.predicted.value / point.measured_ms:.2f}" if point.predicted else "-",
        ]
        for each in found.plans
        if each.best
        for point in by_batch(each.best.points)
    ]
    yield table(["plan", "point", "measured", "predicted", "range", "predicted / measured"], rows)
    yield found.sentence


def by_batch(points: Iterable[Point]) -> list[Point]:
    return sorted(points, key=lambda point: (point.batch, point.context))


def label(record: TrialRecord) -> str:
    return Plan(**{name: record.params[name] for name in Plan._fields if name in record.params}).label


def tpots(record: TrialRecord) -> list[str]:
    assert record.measurement is not None
    return [number(point.tpot_ms) for point in by_batch(record.measurement.points)]


def family_rows(records: Iterable[TrialRecord]) -> Iterable[list[str]]:
    for record in records:
        assert record.measurement is not None
        longest = max(point.context for point in record.measurement.points)
        for point in by_batch(record.measurement.points):
            if point.context == longest:
                yield [label(record), str(point.batch), *families(point), number(point.tpot_ms)]


def families(point: PointMeasurement) -> list[str]:
    """Each family's share of the kernels that were seen, of the median step."""
    found = point.device_family_ms or {}
    step = find_metric("device_ms").of_point(point) or 0.0
    seen = sum(found.values()) or 1.0
    return [*(f"{found.get(name, 0.0) / seen * step:.2f}" for name in FAMILIES), number(step)]


def cost_row(name: str, records: Sequence[TrialRecord]) -> list[str]:
    started = [record.cost for record in records if not record.cost.is_live]
    live = [record.cost for record in records if record.cost.is_live]
    return [
        name,
        f"{statistics.median(cost.rebuild_s for cost in started):.0f}",
        f"{statistics.median(cost.prefill_s for cost in started):.0f}",
        f"{statistics.median(cost.apply_s for cost in live):.2f}" if live else "-",
        f"{statistics.median(cost.measure_s for cost in live or started):.1f}",
    ]


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
