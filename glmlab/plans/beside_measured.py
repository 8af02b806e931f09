"""predicted_beside_measured: what was predicted of each plan of a study, beside what its trials gave.

Like is compared with like: a trial's own recipe is predicted, live knobs included, on the GPU that the study
was measured on, at the context in the middle of its decoding. Both numbers are wall time per output token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

from glmlab.errors import InputError
from glmlab.gpus import Gpu
from glmlab.knobs import params_key
from glmlab.measurement import METRICS
from glmlab.models.rank_twin import TwinName
from glmlab.plans.measured_on import gpu_of_study
from glmlab.plans.measured_plan import MeasuredPlan
from glmlab.plans.study_plans import StudyPlans
from glmlab.storage import DEFAULT_URL, StudyStore
from glmlab.study_spec import StudySpec
from glmlab.trial_record import TrialRecord
from glmlab.workload import Workload


class HasStore(Protocol):
    """A Study or a Session."""

    @property
    def store(self) -> StudyStore: ...


_WORTH_A_LINE = 0.01  # relative difference of two predictions


@dataclass(frozen=True, repr=False)
class PredictedBesideMeasured:
    """What :func:`predicted_beside_measured` found.

    Attributes
    ----------
    study : str
        Its name.
    evidence : str
        What the numbers are that predictions stand beside: ``measured``, ``replayed``, ``simulated``.
    gpu : Gpu or None
        What is predicted for; ``None`` where nothing is.
    missing : str
        Why nothing is predicted, in one line; empty where something is.
    workload : Workload
        The points.
    plans : tuple of MeasuredPlan
        The fastest as measured first, then those that came to nothing.
    notes : tuple of str
        What a reader must know, one line each.
    """

    study: str
    evidence: str
    gpu: Gpu | None
    missing: str
    workload: Workload
    plans: tuple[MeasuredPlan, ...]
    notes: tuple[str, ...] = ()

    @property
    def measured(self) -> tuple[MeasuredPlan, ...]:
        """Plans with a trial that was measured, the fastest first."""
        return tuple(each for each in self.plans if each.trials)

    @property
    def sentence(self) -> str:
        """The result in one sentence."""
        if not self.measured:
            return "no trial was measured yet"
        if self.missing:
            return f"no prediction: {self.missing}"
        ranked = [each for each in self.measured if each.predicted_rank is not None]
        first = self.measured[0]
        if first.predicted_rank is None:
            return f"the {self.evidence} best plan, {first.label}, could not be predicted; {self._inside}"
        if len(ranked) == 1 and first.best is not None and first.best.predicted is not None:
            rates = (
                f"{first.best.predicted.value:,.1f} tokens/s, {self.evidence} {first.best.tokens_per_s:,.1f}"
            )
            return f"{first.label}: predicted {rates}; {self._inside}"
        tables = ""
        if first.rank_by_tables is not None and first.rank_by_tables != first.predicted_rank:
            tables = f" ({ordinal(first.rank_by_tables)} by the packaged all-reduce tables)"
        return (
            f"the {self.evidence} best plan, {first.label}, was predicted {ordinal(first.predicted_rank)}"
            f" of {len(ranked)}{tables}; {self._inside}"
        )

    @property
    def _inside(self) -> str:
        """How many points lie where they were expected."""
        points = [point for each in self.measured for trial in each.trials for point in trial.points]
        told = [point.is_inside for point in points if point.is_inside is not None]
        return f"{sum(told)} of {len(told)} {self.evidence} times lie in the range of their prediction"

    def to_json(self) -> dict[str, Any]:
        """What ``glmlab show STUDY --predicted --json`` prints; ``evidence`` is that of the measured side."""
        return {
            "study": self.study,
            "evidence": self.evidence,
            "gpu": None if self.gpu is None else self.gpu.name,
            "missing": self.missing or None,
            "sentence": self.sentence,
            "contexts": list(self.workload.contexts),
            "batch_sizes": list(self.workload.batch_sizes),
            "plans": [each.to_json() for each in self.plans],
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        return f"PredictedBesideMeasured({self.study}: {self.sentence})"

    def _repr_html_(self) -> str:
        from glmlab.plans.beside_tables import beside_html

        return beside_html(self)


def predicted_beside_measured(
    study: str | StudyStore | HasStore, storage: str = DEFAULT_URL
) -> PredictedBesideMeasured:
    """Each plan of a study: time per output token as predicted, with its range, beside what was measured.

    Parameters
    ----------
    study : str, Study, Session or StudyStore
        Finished or running; a name is looked up in ``storage``.
    storage : str
        Optuna storage URL, or ``journal://FILE``.

    Raises
    ------
    InputError
        If there is no such study, or that is none. Where nothing can be predicted, ``missing`` says why.
    """
    if isinstance(study, str):
        return beside_measured(StudyStore.load(study, storage))
    store = getattr(study, "store", study)
    if not isinstance(store, StudyStore):
        raise InputError(f"study = {study!r}: expected a study's name, a Study, a Session or a StudyStore")
    return beside_measured(store)


def beside_measured(
    store: StudyStore, records: Sequence[TrialRecord] | None = None
) -> PredictedBesideMeasured:
    """The same of a stored study.

    Parameters
    ----------
    store : StudyStore
        The study.
    records : sequence of TrialRecord, optional
        Its trials, where they are at hand already.
    """
    records = store.records() if records is None else records
    spec, gpu = store.parsed_spec, gpu_of_study(store)
    found = StudyPlans(store, spec, records, None if isinstance(gpu, str) else gpu)
    plans = _ranked(found.plans())
    missing = gpu if isinstance(gpu, str) else ""
    refusals = list(dict.fromkeys(found.refused.values()))
    if not missing and plans and not any(each.predicted_rank for each in plans):
        missing = refusals[0] if refusals else ""
    notes = [] if missing else [f"{label}: not predicted, {why}" for label, why in found.refused.items()]
    told = sum(each.predicted_rank is not None for each in plans)
    for line, labels in found.said.items():
        notes.append(line if len(labels) >= told else f"{', '.join(labels)}: {line}")
    return PredictedBesideMeasured(
        study=store.name,
        evidence=found.evidence,
        gpu=None if missing or isinstance(gpu, str) else gpu,
        missing=missing,
        workload=spec.effective_workload,
        plans=plans,
        notes=(*notes, *_by_tables(plans), *_of_objective(spec, records, plans), *_of_twin(spec)),
    )


def _of_objective(
    spec: StudySpec, records: Sequence[TrialRecord], plans: Sequence[MeasuredPlan]
) -> Iterator[str]:
    """Ranks are by decoding alone; a study's objective may see it otherwise."""
    first = next((each for each in plans if each.measured_rank == 1), None)
    rivals = [(r.values[0], r) for r in records if r.status == "complete" and r.is_feasible and r.values]
    if first is None or not rivals or len(spec.objective) > 1 or spec.objective == ("tpot_ms",):
        return
    [name] = spec.objective
    _, best = (max if METRICS[name].maximize else min)(rivals, key=lambda rival: rival[0])
    key = params_key(spec.knob_space.plan(best.params))
    plan = next((each for each in plans if params_key(each.params) == key), None)
    if plan is not None and plan is not first:
        yield (
            f"by the study's objective, {name}, #{best.number} of {plan.label} is best; ranks here go by the"
            " time per output token"
        )


def _by_tables(plans: Sequence[MeasuredPlan]) -> Iterator[str]:
    """What the all-reduces of this machine are worth to a prediction."""
    for each in plans:
        found, tables = (each.best.predicted, each.best.by_tables) if each.best else (None, None)
        if found and tables and abs(found.value / tables.value - 1) >= _WORTH_A_LINE:
            yield (
                f"{each.label}: with all-reduces as measured {found.value:,.1f} tokens/s are predicted, by"
                f" the packaged tables {tables.value:,.1f}"
            )


def _of_twin(spec: StudySpec) -> Iterator[str]:
    twin = TwinName.parse(spec.base_recipe.model)
    if twin is None:
        return
    layers = f"{twin.layers} of the model's layers"
    if twin.tp == 1:
        yield f"both numbers are of {layers}: embedding, head and host weigh more here than in all of them"
    else:
        yield (
            f"the model is a rank twin with {layers}: both numbers are of what one rank computes, without"
            " what ranks say to each other"
        )


def _ranked(plans: Sequence[MeasuredPlan]) -> tuple[MeasuredPlan, ...]:
    """Measured ones by their best trials, the fastest first, then the others, with their ranks."""
    by_measured = sorted((p for p in plans if p.best), key=lambda p: -(p.best.tokens_per_s if p.best else 0))
    predicted = [p for p in by_measured if p.best and p.best.predicted]
    by_predicted = sorted(predicted, key=lambda p: -_value(p, "predicted"))
    by_tables = sorted(predicted, key=lambda p: -_value(p, "by_tables"))
    ranked = [
        replace(
            each,
            measured_rank=place,
            predicted_rank=_place(each, by_predicted),
            rank_by_tables=_place(each, by_tables),
        )
        for place, each in enumerate(by_measured, 1)
    ]
    return (*ranked, *(each for each in plans if not each.best))


def _value(plan: MeasuredPlan, which: str) -> float:
    found = getattr(plan.best, which)
    return 0.0 if found is None else float(found.value)


def _place(plan: MeasuredPlan, order: Sequence[MeasuredPlan]) -> int | None:
    return next((place for place, each in enumerate(order, 1) if each is plan), None)


def ordinal(place: int) -> str:
    """``1st``, ``2nd``, ``3rd``, ``11th``."""
    ends = {1: "st", 2: "nd", 3: "rd"}
    return f"{place}{'th' if place % 100 in (11, 12, 13) else ends.get(place % 10, 'th')}"
