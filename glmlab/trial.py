"""Run one point: judge it, bring the engine there, measure, store."""

from __future__ import annotations

from typing import Any

from glmlab.all_reduce_time import all_reduce_plan
from glmlab.engine_keeper import EngineKeeper, Ready, plan_key
from glmlab.engines import Engine
from glmlab.engines.base import TimesAllReduce
from glmlab.errors import AbortedError, EngineDiedError, EngineError, EngineStartError, InputError
from glmlab.feasibility import blocked
from glmlab.knobs import KnobSpace, Params
from glmlab.measurement import Measurement
from glmlab.recipe import Recipe
from glmlab.storage import StudyStore
from glmlab.study_spec import StudySpec
from glmlab.trial_record import BY_USER, Status, TrialCost, TrialRecord
from glmlab.workload import Workload


class TrialRunner:
    """Runs the points of one study.

    Parameters
    ----------
    spec : StudySpec
        The study.
    workload : Workload
        What is measured.
    keeper : EngineKeeper
        Holds the engine.
    baseline : dict
        Resolved values of all knobs of the space.
    space : KnobSpace
        With the baseline in it.
    """

    def __init__(
        self,
        spec: StudySpec,
        workload: Workload,
        keeper: EngineKeeper,
        baseline: Params,
        space: KnobSpace,
    ) -> None:
        self.spec, self._workload, self._keeper = spec, workload, keeper
        self._baseline, self._space = baseline, space
        self._dead_plans: dict[str, str] = {}
        self._references: dict[str, Measurement] = {}

    def recipe(self, params: Params) -> Recipe:
        """The recipe of a point."""
        return self.spec.recipe_at(params, self._baseline)

    def remember(self, params: Params, measurement: Measurement) -> None:
        """Take a measurement as the one whose tokens others are compared with, unless there is one.

        To be called in the order of the trials: the baseline's comes first.
        """
        self._references.setdefault(self._reference_key(params), measurement)

    def _reference_key(self, params: Params) -> str:
        """Made-up weights are drawn rank by rank: shared out otherwise, it is another model."""
        recipe = self.recipe(params)
        shares = (recipe.tensor_parallel, recipe.pipeline_parallel, recipe.expert_parallel)
        return "" if recipe.weights == "auto" else repr(shares)

    def enter(self, params: Params) -> Ready:
        """Bring an engine into the state of a point."""
        values = {**self._baseline, **params}
        live = {name: values[name] for name in self._space.live}
        return self._keeper.ready(self.recipe(params), live)

    def check_not_aborted(self) -> None:
        """Raise :class:`AbortedError` where the engine was ended from outside."""
        self._keeper.handle.check()

    def leave(self, other: Params) -> None:
        """Leave the present state, so that entering it again is a visit of its own.

        A live state is left for ``other``; where that needs another engine, this one is closed.
        """
        if self._keeper.is_live(self.recipe(other)):
            self.enter(other)
        else:
            self._keeper.close()

    def run(self, store: StudyStore, params: Params, begin: float) -> TrialRecord:
        """Run a point as a trial of the store.

        Parameters
        ----------
        store : StudyStore
            Has the trial as running before anything is paid for.
        params : dict
            Active knobs.
        begin : float
            ``EngineKeeper.now()`` when the trial began to cost, proposing included.

        Returns
        -------
        TrialRecord
            As it was stored. A failure is a record too; only bugs and interrupts raise.
        """
        trial = store.begin(params, self._space)
        try:
            record = self._record(params, store)
        except BaseException as error:
            by_user = isinstance(error, AbortedError | KeyboardInterrupt)
            interrupted = TrialRecord(
                status="interrupted",
                reason=BY_USER if by_user else f"stopped by {type(error).__name__}, an error of glmlab",
                params=params,
                evidence=self.spec.evidence,
            )
            store.finish(trial, interrupted)
            raise
        # What follows is the trial's own cost too, but it can only be stored before it happens;
        # the seconds of the last write are carried over from the trial before.
        storing = self._keeper.now()
        record = self._with_overhead(record, storing - begin + self._storing_s)
        record = store.finish(trial, record)
        self._storing_s = self._keeper.now() - storing
        return record

    _storing_s = 0.0

    def _with_overhead(self, record: TrialRecord, wall_s: float) -> TrialRecord:
        cost = record.cost
        paid = cost.rebuild_s + cost.apply_s + cost.prefill_s + cost.measure_s
        return record.model_copy(
            update={"cost": cost.model_copy(update={"overhead_s": max(wall_s - paid, 0.0)})}
        )

    def _record(self, params: Params, store: StudyStore) -> TrialRecord:
        try:
            recipe = self.recipe(params)
            plan = plan_key(recipe)
            # A replayed engine ran elsewhere: its recording says what it could, not this machine.
            reason = None if self.spec.is_replayed else blocked(recipe, self._workload)
            reason = reason or self._dead_plans.get(plan)
        except InputError as error:
            recipe, plan, reason = None, "", str(error)
        if recipe is None or reason:
            return TrialRecord(
                status="blocked", reason=reason or "", params=params, evidence=self.spec.evidence
            )
        common: dict[str, Any] = {
            "params": params,
            "recipe_fingerprint": recipe.fingerprint,
            "evidence": self.spec.evidence,
        }
        cost: dict[str, float] = {}
        engine_begin = self._keeper.now()
        is_live = self._keeper.is_live(recipe)
        try:
            ready = self.enter(params)
            cost = {"rebuild_s": ready.rebuild_s, "apply_s": ready.apply_s}
            if ready.rebuild_s and recipe.tensor_parallel > 1:
                _keep_all_reduce_times(ready.engine, recipe, store)
            measurement = ready.engine.measure(self._workload)
        except (EngineError, InputError) as error:
            self._keeper.handle.check()  # who was ended from outside has not failed
            if isinstance(error, EngineStartError):
                self._dead_plans[plan] = f"the engine of this plan did not start: {error}"
            self._keeper.close_if_broken()
            lost = self._keeper.now() - engine_begin - sum(cost.values())
            where = "measure_s" if cost else "apply_s" if is_live else "rebuild_s"
            cost[where] = cost.get(where, 0.0) + lost
            status: Status = "blocked" if isinstance(error, InputError) else "failed"
            return TrialRecord(
                status=status,
                reason=str(error),
                log_tail=getattr(error, "log_tail", "") if _died(error) else "",
                cost=TrialCost(**cost),
                **common,
            )
        return self._complete(ready, measurement, cost, common)

    def _complete(
        self, ready: Ready, measurement: Measurement, cost: dict[str, float], common: dict[str, Any]
    ) -> TrialRecord:
        values = [measurement.value(name, self._workload) for name in self.spec.objective]
        missing = [n for n, v in zip(self.spec.objective, values, strict=True) if v is None]
        if missing:
            return TrialRecord(
                status="failed",
                reason=f"{missing[0]}: this engine does not measure it",
                cost=TrialCost(**cost),
                measurement=measurement,
                **common,
            )
        kv_tokens = ready.engine.state().kv_tokens
        found, violations = {}, {}
        for bound in self.spec.bounds:
            value = (
                float(kv_tokens)
                if bound.name == "kv_tokens"
                else measurement.value(bound.name, self._workload)
            )
            if value is not None:
                found[bound.name] = value
                violations[bound.name] = bound.violation(value)
        self.remember(common["params"], measurement)
        reference = self._references[self._reference_key(common["params"])]
        return TrialRecord(
            status="complete",
            values=tuple(value for value in values if value is not None),
            constraint_values=found,
            violations=violations,
            measurement=measurement,
            same_tokens=measurement.same_tokens(reference),
            cost=TrialCost(**cost, **measurement_cost(measurement)),
            kv_tokens=kv_tokens,
            notes=ready.notes + measurement.notes,
            **{**common, "evidence": measurement.evidence},
        )


def measurement_cost(measurement: Measurement) -> dict[str, float]:
    """Seconds that an engine spent in a measurement, prompts that it had to compute apart."""
    passes_s = sum(p.warmup_ms + p.elapsed_ms + p.device_pass_ms for p in measurement.points) / 1e3
    prefill_s = measurement.prefill_ms / 1e3
    return {"prefill_s": prefill_s, "measure_s": passes_s - prefill_s}


def _keep_all_reduce_times(engine: Engine, recipe: Recipe, store: StudyStore) -> None:
    """Once for each plan: what its ranks pay to add up their parts."""
    plan = all_reduce_plan(recipe)
    if isinstance(engine, TimesAllReduce) and plan not in store.all_reduce_times:
        store.add_all_reduce_times(plan, [])  # a probe that hangs costs this trial, not every one of the plan
        store.add_all_reduce_times(plan, engine.all_reduce_times())


def _died(error: Exception) -> bool:
    return isinstance(error, EngineStartError | EngineDiedError)
