"""Summary: what a study found, in the shape that the CLI prints and notebooks show."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from html import escape
from typing import Any

from pydantic import BaseModel, ConfigDict, PrivateAttr

from glmlab.engines.replayed_visit import AGAIN_NOTE, PREFILL_NOTE
from glmlab.html_table import html_table
from glmlab.knobs import Params, in_words, params_key, word
from glmlab.measurement import METRICS, Evidence, find_metric
from glmlab.stats import Verdict
from glmlab.storage import StudyStore
from glmlab.storage_url import shown
from glmlab.study_spec import StudySpec
from glmlab.trial_record import TrialRecord, Visit
from glmlab.units import format_duration, format_ms
from glmlab.workload import Workload

_BUSY_PERCENT = 10


class Cost(BaseModel):
    """Where the seconds of all trials went, and what restarts would have cost.

    Attributes
    ----------
    rebuild, apply, prefill, measure, overhead : float
        Sums over all trials.
    confirm : float
        All visits of the confirmation.
    live_trial : float or None
        Median cost of a trial that needed no new engine.
    live_overhead : float or None
        Median of glmlab's own share of it.
    restart_trial : float or None
        What the same trial costs with a restart of the same engine: median start, prefill and
        measurement, all taken from this study.
    restart_estimate : float or None
        The same trials with a restart each.
    times_cheaper : float or None
        ``restart_trial / live_trial``.
    """

    model_config = ConfigDict(frozen=True)

    rebuild: float
    apply: float
    prefill: float
    measure: float
    overhead: float
    confirm: float
    live_trial: float | None
    live_overhead: float | None
    restart_trial: float | None
    restart_estimate: float | None
    times_cheaper: float | None


class Point(BaseModel):
    """One trial as a summary shows it."""

    model_config = ConfigDict(frozen=True)

    trial: int
    params: Params
    tpot_ms: float
    values: dict[str, float]


class Summary(BaseModel):
    """What a study found.

    Attributes
    ----------
    verdict : Verdict or None
        ``None`` until the confirmation has run.
    origins : list of str
        The recordings that replayed numbers come from; empty where they were measured.
    """

    model_config = ConfigDict(frozen=True)

    study: str
    storage: str
    evidence: Evidence
    trials: dict[str, int]
    baseline: Point | None
    best: Point | None
    verdict: Verdict | None
    cost_s: Cost
    notes: list[str] = []
    origins: list[str] = []

    _rows: list[tuple[str, ...]] = PrivateAttr(default=[])  # trials, for a notebook; not in the JSON

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values, floats rounded to what they mean."""
        rounded: dict[str, Any] = _rounded(self.model_dump(mode="json"))
        return rounded

    @property
    def headline(self) -> str:
        """The result in one sentence."""
        if self.verdict is None:
            return "not confirmed yet: run the study again to finish it"
        if self.verdict.outcome == "win" and self.best is not None:
            knobs = ", ".join(
                f"{name} = {word(value)}"
                for name, value in self.best.params.items()
                if self.baseline is None or self.baseline.params.get(name) != value
            )
            return f"{knobs}: {self.verdict.reason}"
        return self.verdict.reason

    def _repr_html_(self) -> str:
        points = [
            (
                label,
                f"#{point.trial}",
                *(_quantity(name, value) for name, value in point.values.items()),
                in_words(point.params),
            )
            for label, point in (("baseline", self.baseline), ("best", self.best))
            if point is not None
        ]
        objectives = list(self.baseline.values) if self.baseline else []
        cost = self.cost_s
        counts = [f"{count} {status}" for status, count in self.trials.items() if count]
        lines = [f"trials: {', '.join(counts) or 'none'}; evidence: {self.evidence}"]
        if cost.times_cheaper is not None and cost.live_trial is not None and cost.restart_trial is not None:
            live, restart = format_duration(cost.live_trial), format_duration(cost.restart_trial)
            lines.append(
                f"a live trial {took(self.evidence)} {live}, with a restart it takes {restart}:"
                f" {cost.times_cheaper:.0f} times cheaper"
            )
        lines += [f"note: {note}" for note in self.notes]
        return (
            f"<p><b>study {escape(self.study)}: {escape(self.headline)}</b></p>"
            + html_table([("", "trial", *objectives, "knobs"), *points])
            + f"<p>{'<br>'.join(map(escape, lines))}</p>"
            + (html_table(self._rows) if self._rows else "")
        )


def summarize(store: StudyStore, records: Sequence[TrialRecord] | None = None) -> Summary:
    """Read a stored study and sum it up; needs no engine.

    Parameters
    ----------
    store : StudyStore
        The study.
    records : sequence of TrialRecord, optional
        Its trials, where they are at hand already.
    """
    spec = store.parsed_spec
    records = store.records() if records is None else records
    counts = {"complete": 0, "failed": 0, "blocked": 0}
    for record in records:
        if record.status in counts:
            counts[record.status] += 1
    baseline = baseline_record(records, spec.knob_space.active(store.baseline or {}))
    best = best_record(records, spec)
    stored = store.verdict
    verdict = None
    if stored is not None and best is not None and stored["best"] == best.number:
        verdict = Verdict.model_validate(stored["verdict"])
    workload = spec.effective_workload
    origins = _origins(store)
    visits = store.visits(best.number) if best else []
    found = Summary(
        study=store.name,
        storage=shown(store.url),
        evidence=baseline.evidence if baseline else spec.evidence,
        trials=counts,
        baseline=_point(baseline, spec, workload),
        best=_point(best, spec, workload),
        verdict=verdict,
        cost_s=cost(store, records, best),
        notes=[f"replayed: {origin}; nothing was measured here" for origin in origins]
        + spec.notes
        + _short_prefill(records)
        + _given_again(visits)
        + _noise(visits),
        origins=origins,
    )
    found._rows = _trial_rows(records, workload) if records else []
    return found


def _given_again(visits: Sequence[Visit]) -> list[str]:
    """Say so if too few visits were recorded to keep the search and the confirmation apart."""
    count = sum(AGAIN_NOTE in visit.measurement.notes for visit in visits)
    if not count:
        return []
    return [f"{count} of {len(visits)} confirming visits had been given out before: too few were recorded"]


def _short_prefill(records: Sequence[TrialRecord]) -> list[str]:
    """Say so if the prefill, and with it a restart, is known for less than the whole prompts."""
    notes = [note for record in records for note in record.notes if note.startswith(PREFILL_NOTE)]
    return notes[:1]


def _origins(store: StudyStore) -> list[str]:
    found = [each["origin"] for run in store.provenance["runs"] for each in run.get("replayed", [])]
    return list(dict.fromkeys(found))


def _noise(visits: Sequence[Visit]) -> list[str]:
    """Say so if something else was using the machine while the verdict was measured."""
    busiest = max((v.measurement.noise.other_cpu_percent for v in visits if v.measurement.noise), default=0)
    if busiest <= _BUSY_PERCENT:
        return []
    return [f"other processes used up to {busiest:.0f} % of the CPU while this was confirmed"]


def best_record(records: Sequence[TrialRecord], spec: StudySpec) -> TrialRecord | None:
    """The feasible trial with the best first objective; the earlier one where two are equal."""
    maximize = METRICS[spec.objective[0]].maximize
    best: TrialRecord | None = None
    for record in records:
        if not record.is_feasible or not record.values:
            continue
        if best is None or not best.values or _beats(record.values[0], best.values[0], maximize):
            best = record
    return best


def baseline_record(records: Sequence[TrialRecord], params: Params) -> TrialRecord | None:
    """The complete trial of the baseline's values."""
    wanted = params_key(params)
    return next((r for r in records if r.status == "complete" and params_key(r.params) == wanted), None)


def _beats(value: float, other: float, maximize: bool) -> bool:
    return value > other if maximize else value < other


def show_values(record: TrialRecord | None, spec: StudySpec) -> str:
    """A trial's values with their units, for a progress bar."""
    if record is None or not record.values:
        return "none yet"
    values = ", ".join(
        f"{name.removesuffix('_ms')} {_quantity(name, value)}"
        for name, value in zip(spec.objective, record.values, strict=True)
    )
    return f"{values} (replayed)" if record.evidence == "replayed" else values


def cost(store: StudyStore, records: Sequence[TrialRecord], best: TrialRecord | None) -> Cost:
    """Sum up what trials cost and compare a live one with a restart."""
    complete = [r for r in records if r.status == "complete"]
    live = [r.cost for r in complete if r.cost.is_live and r.number != 0]
    visits = store.visits(best.number) if best else []
    restart, live_trial = restart_seconds(records), None
    if live:
        live_trial = statistics.median(c.total_s for c in live)
    return Cost(
        rebuild=sum(r.cost.rebuild_s for r in records),
        apply=sum(r.cost.apply_s for r in records),
        prefill=sum(r.cost.prefill_s for r in records),
        measure=sum(r.cost.measure_s for r in records),
        overhead=sum(r.cost.overhead_s for r in records),
        confirm=sum(v.cost.total_s for v in visits),
        live_trial=live_trial,
        live_overhead=statistics.median(c.overhead_s for c in live) if live else None,
        restart_trial=restart,
        restart_estimate=restart * len(complete) if restart is not None else None,
        times_cheaper=restart / live_trial if restart and live_trial else None,
    )


def restart_seconds(records: Sequence[TrialRecord]) -> float | None:
    """A trial with a restart: median start, prefill and measurement; ``None`` before any start."""
    costs = [record.cost for record in records if record.status == "complete"]
    starts = [cost.rebuild_s for cost in costs if not cost.is_live]
    if not starts:
        return None
    prefills = [cost.prefill_s for cost in costs if cost.prefill_s > 0]
    prefill = statistics.median(prefills) if prefills else 0.0
    return statistics.median(starts) + prefill + statistics.median(cost.measure_s for cost in costs)


def _point(record: TrialRecord | None, spec: StudySpec, workload: Workload) -> Point | None:
    if record is None or record.measurement is None or not record.values:
        return None
    return Point(
        trial=record.number,
        params=record.params,
        tpot_ms=record.measurement.value("tpot_ms", workload) or 0.0,
        values=dict(zip(spec.objective, record.values, strict=True)),
    )


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value


def _quantity(metric: str, value: float) -> str:
    """A metric's value with its unit, never in exponent form."""
    digits = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return f"{digits} {find_metric(metric).unit}"


def took(evidence: Evidence) -> str:
    """How a duration of the engine is introduced: a replayed one was taken elsewhere."""
    return "took, as recorded," if evidence == "replayed" else "took"


def _trial_rows(records: Sequence[TrialRecord], workload: Workload) -> list[tuple[str, ...]]:
    """Every trial: what was set, what came out, what it cost."""
    knobs = list(dict.fromkeys(name for record in records for name in record.params))
    rows: list[tuple[str, ...]] = [
        ("trial", *knobs, "time per token", "tokens per s", "same tokens", "engine", "took")
    ]
    for record in records:
        came: tuple[str, ...] = (record.status, record.reason, "")
        if measured := record.metrics(workload):
            came = (
                format_ms(measured["tpot_ms"]),
                f"{measured['tokens_per_s']:.0f}",
                "" if record.same_tokens is None else f"{record.same_tokens:.0%}",
            )
        rows.append(
            (
                f"#{record.number}",
                *(word(record.params[name]) if name in record.params else "" for name in knobs),
                *came,
                "kept" if record.cost.is_live else "new",
                format_duration(record.cost.total_s),
            )
        )
    return rows
