"""StudyPlans: the trials of a study by their plans, each predicted as it was run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from glmlab.all_reduce_time import AllReduceTime, all_reduce_plan
from glmlab.decode.prediction import Prediction
from glmlab.dimension import same_value
from glmlab.errors import InputError
from glmlab.gpus import Gpu
from glmlab.knobs import Params, in_words, params_key
from glmlab.measurement import PointMeasurement, find_metric
from glmlab.plans.measured_plan import MeasuredPlan, MeasuredPoint, MeasuredTrial
from glmlab.plans.space import Plan
from glmlab.predictor import predict
from glmlab.recipe import Recipe
from glmlab.storage import StudyStore
from glmlab.study_spec import StudySpec
from glmlab.trial_record import TrialRecord


class StudyPlans:
    """Reads a study plan by plan.

    Parameters
    ----------
    store : StudyStore
        The study.
    spec : StudySpec
        Its study file.
    records : sequence of TrialRecord
        Its trials.
    gpu : Gpu or None
        What to predict for; ``None`` to predict nothing.

    Attributes
    ----------
    evidence : str
        Of the trials that have numbers.
    said : dict
        What predictions say of themselves -> the plans that it is said of; filled by :meth:`plans`.
    refused : dict
        Plan -> why it cannot be predicted, likewise.
    """

    def __init__(
        self, store: StudyStore, spec: StudySpec, records: Sequence[TrialRecord], gpu: Gpu | None
    ) -> None:
        self._spec, self._gpu = spec, gpu
        self._records = [r for r in records if r.status != "interrupted"]
        self._baseline = store.baseline or {}
        self._all_reduce_times = store.all_reduce_times
        self._workload = spec.effective_workload
        kinds = dict.fromkeys(record.evidence for record in self._records if record.measurement)
        self.evidence = ", ".join(kinds) or spec.evidence
        self.said: dict[str, list[str]] = {}
        self.refused: dict[str, str] = {}

    def plans(self) -> list[MeasuredPlan]:
        """Those that were tried, in the order of their first trials, then the listed ones that were not."""
        space = self._spec.knob_space
        groups: dict[str, list[TrialRecord]] = {}
        for record in self._records:
            groups.setdefault(params_key(space.plan(record.params)), []).append(record)
        tried = [space.plan(records[0].params) for records in groups.values()]
        untried = [
            dict(plan)
            for plan in space.plans
            if not any(all(same_value(each.get(name), plan[name]) for name in plan) for each in tried)
        ]
        every = [*tried, *untried]
        told = differing(every)
        found = [
            self._plan(plan_label(self._spec, params, self._baseline, told), params, records)
            for params, records in zip(tried, groups.values(), strict=True)
        ]
        return found + [
            MeasuredPlan(plan_label(self._spec, params, self._baseline, told), params, {})
            for params in untried
        ]

    def _plan(self, label: str, params: Params, records: Sequence[TrialRecord]) -> MeasuredPlan:
        counts: dict[str, int] = dict(Counter(str(record.status) for record in records))
        reason = next((record.reason for record in records if record.status != "complete"), "")
        return MeasuredPlan(label, params, counts, self._trials(label, records), reason)

    def _trials(self, label: str, records: Sequence[TrialRecord]) -> tuple[MeasuredTrial, ...]:
        """The best, and the one with the baseline's live knobs where that is another."""
        complete = [r for r in records if r.status == "complete" and r.measurement is not None]
        # Where all break a constraint, their times are still worth a look.
        allowed = [record for record in complete if record.is_feasible] or complete
        if not allowed:
            return ()
        best = min(allowed, key=self._tpot_ms)
        chosen = [best, *(r for r in complete if self._is_default(r) and r is not best)]
        return tuple(self._trial(label, record, record is best) for record in chosen)

    def _tpot_ms(self, record: TrialRecord) -> float:
        assert record.measurement is not None
        return record.measurement.value("tpot_ms", self._workload) or 0.0

    def _is_default(self, record: TrialRecord) -> bool:
        live = [name for name in self._spec.knob_space.live if name in record.params]
        return all(same_value(record.params[name], self._baseline.get(name)) for name in live)

    def _trial(self, label: str, record: TrialRecord, is_best: bool) -> MeasuredTrial:
        assert record.measurement is not None
        predicted, by_tables = self._predictions(label, record.params)
        points = (self._point(point, predicted, by_tables) for point in record.measurement.points)
        live = {n: v for n, v in record.params.items() if n in self._spec.knob_space.live}
        return MeasuredTrial(record.number, live, is_best, self._is_default(record), tuple(points))

    def _point(
        self, point: PointMeasurement, predicted: Prediction | None, by_tables: Prediction | None
    ) -> MeasuredPoint:
        at = (self._middle(point.context), point.batch)
        return MeasuredPoint(
            context=point.context,
            batch=point.batch,
            weight=self._workload.weight(point.context),
            measured_ms=point.tpot_ms,
            device_ms=find_metric("device_ms").of_point(point),
            predicted=predicted.point(*at).tpot if predicted else None,
            by_tables=by_tables.point(*at).tpot if by_tables else None,
        )

    def _middle(self, context: int) -> int:
        """Tokens of a sequence in the middle of its decoding, all of which the measured median is of."""
        return context + self._workload.new_tokens // 2

    def _predictions(self, label: str, params: Params) -> tuple[Prediction | None, Prediction | None]:
        """With all-reduces as this study measured them, and by the packaged tables."""
        if self._gpu is None:
            return None, None
        try:
            recipe = self._spec.recipe_at(params, self._baseline)
            times = self._all_reduce_times.get(all_reduce_plan(recipe), [])
            found = self._predict(recipe, self._gpu, times)
            measured = found.setup.measured
            is_used = measured is not None and recipe.tensor_parallel in measured.us
            by_tables = self._predict(recipe, self._gpu, None) if is_used else found
        except Exception as error:  # noqa: BLE001  what a prediction says of one plan costs no report
            known = isinstance(error, InputError)
            self.refused[label] = str(error) if known else f"{type(error).__name__}: {error}"
            return None, None
        for note in found.notes:
            if label not in self.said.setdefault(note, []):
                self.said[note].append(label)
        return found, by_tables

    def _predict(self, recipe: Recipe, gpu: Gpu, times: Sequence[AllReduceTime] | None) -> Prediction:
        return predict(
            recipe,
            gpu,
            points=[(self._middle(context), batch) for context, batch in self._workload.points],
            all_reduce=times,
            together=True,
        )


def differing(plans: Sequence[Params]) -> tuple[str, ...]:
    """Knobs that not all plans have alike."""
    names = dict.fromkeys(name for plan in plans for name in plan)
    return tuple(name for name in names if len({repr(plan.get(name)) for plan in plans}) > 1)


def plan_label(spec: StudySpec, params: Params, baseline: Params, told: Sequence[str]) -> str:
    """How a plan spreads the model, and what else makes it another plan of its study.

    Parameters
    ----------
    spec : StudySpec
        The study.
    params, baseline : dict
        Of the plan; of all knobs.
    told : sequence of str
        As :func:`differing` has them.
    """
    others = {name: params[name] for name in told if name in params and name not in Plan._fields}
    try:
        recipe = spec.recipe_at(params, baseline)
    except InputError:
        return in_words(params, "=")
    spread = Plan(**{name: getattr(recipe, name) for name in Plan._fields}).label
    return ", ".join(part for part in (spread, in_words(others, "=")) if part)
