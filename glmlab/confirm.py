"""Confirm the best against the baseline: measured again, interleaved, each state re-entered."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from glmlab.dimension import same_value
from glmlab.engine_keeper import plan_key
from glmlab.errors import EngineError, InputError
from glmlab.knob_table import KNOBS
from glmlab.knobs import Params
from glmlab.measurement import METRICS, kernel_metric
from glmlab.progress import Progress
from glmlab.stats import Verdict, judge
from glmlab.storage import StudyStore
from glmlab.study_spec import StudySpec
from glmlab.trial import TrialRunner, measurement_cost
from glmlab.trial_record import TrialCost, TrialRecord, Visit

Side = Literal["baseline", "best"]


def confirm(
    store: StudyStore,
    runner: TrialRunner,
    baseline: TrialRecord,
    best: TrialRecord,
    *,
    show: Progress,
    stop: Callable[[], bool],
) -> None:
    """Visit baseline and best in turn and store the verdict; continues where it was interrupted.

    Search results do not count: the best of many was picked for being fast that once.
    """
    spec = runner.spec
    if best.number == baseline.number:
        store.verdict = {"best": best.number, "verdict": _labelled(_no_rival(spec), spec).model_dump()}
        return
    known = store.verdict
    same_plan = plan_key(runner.recipe(best.params)) == plan_key(runner.recipe(baseline.params))
    rounds = spec.confirm.rounds if same_plan else spec.confirm.rebuild_rounds
    if known is not None and known["best"] == best.number and known["verdict"]["rounds"] >= rounds:
        return
    show.message(
        f"confirming #{best.number} against the baseline, {rounds} rounds, interleaved"
        + ("" if same_plan else ", each visit with a new engine")
    )
    for index in range(len(store.visits(best.number)), 2 * rounds):
        if stop():
            return
        show.running(f"confirmation, visit {index + 1} of {2 * rounds}")
        side = _side(index)
        params, other = best.params, baseline.params
        if side == "baseline":
            params, other = other, params
        try:
            if index and side == _side(index - 1):
                runner.leave(other)
            visit = _visit(spec, runner, side, index // 2, params)
        except (EngineError, InputError) as error:
            runner.check_not_aborted()
            show.message(f"confirmation stopped: {error}; run the study again to continue it")
            return
        store.add_visit(best.number, visit)
        show.visit(visit, index + 1, 2 * rounds)
    verdict = _judge(spec, store.visits(best.number), best.params, baseline.params)
    store.verdict = {"best": best.number, "verdict": _labelled(verdict, spec).model_dump()}


def _labelled(verdict: Verdict, spec: StudySpec) -> Verdict:
    """The sentence is quoted without its table: it must say by itself what was not measured."""
    if not spec.is_replayed:
        return verdict
    return verdict.model_copy(update={"reason": f"{verdict.reason} (replayed from a recording)"})


def _side(index: int) -> Side:
    """Baseline first in even rounds, best first in odd ones, so that neither profits from order."""
    first: Side = "baseline" if (index // 2) % 2 == 0 else "best"
    second: Side = "best" if first == "baseline" else "baseline"
    return first if index % 2 == 0 else second


def _visit(spec: StudySpec, runner: TrialRunner, side: Side, number: int, params: Params) -> Visit:
    ready = runner.enter(params)
    measurement = ready.engine.measure(spec.effective_workload)
    cost = TrialCost(rebuild_s=ready.rebuild_s, apply_s=ready.apply_s, **measurement_cost(measurement))
    return Visit(side=side, round=number, measurement=measurement, cost=cost)


def _judge(spec: StudySpec, visits: Sequence[Visit], best: Params, baseline: Params) -> Verdict:
    """Decide on the objective; on device time where only kernels differ and there is a device."""
    metric = spec.objective[0]
    changed = {name for name in {*best, *baseline} if not same_value(best.get(name), baseline.get(name))}
    if metric == "tpot_ms" and all(KNOBS[name].kernel for name in changed):
        metric = kernel_metric(visit.measurement for visit in visits) or metric
    values: dict[str, list[float]] = {"baseline": [], "best": []}
    for visit in sorted(visits, key=lambda v: v.round):
        value = visit.measurement.value(metric, spec.effective_workload)
        if value is not None:
            values[visit.side].append(value)
    return judge(values["baseline"], values["best"], metric=metric, maximize=METRICS[metric].maximize)


def _no_rival(spec: StudySpec) -> Verdict:
    return Verdict(
        outcome="tie",
        ratio=1.0,
        low=None,
        high=None,
        metric=spec.objective[0],
        rounds=0,
        reason="no trial was better than the baseline: keep the default",
    )
