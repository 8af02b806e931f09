"""StudyRun: the loop of one run: propose, try, store, repeat; then confirm."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING

from glmlab import provenance
from glmlab.confirm import confirm
from glmlab.engine_keeper import EngineKeeper
from glmlab.engines import Engine
from glmlab.engines.live_knobs import check_dimension
from glmlab.errors import KnobError, StudyError
from glmlab.knobs import KnobSpace, Params, in_words, params_key
from glmlab.measurement import METRICS
from glmlab.plans.try_order import predicted_order
from glmlab.progress import Progress
from glmlab.recipe import Recipe
from glmlab.replayed_study import continue_replay
from glmlab.search import Past, Search
from glmlab.steering import Steering
from glmlab.storage import StudyStore
from glmlab.study_spec import Budget
from glmlab.summary import baseline_record, best_record, show_values
from glmlab.trial import TrialRunner
from glmlab.trial_record import BY_USER, TrialRecord

if TYPE_CHECKING:
    from glmlab.study import Study

_TWICE = 2  # a point whose trial killed the driver twice is not tried a third time


class StudyRun:
    """One run of a study: from where it stands to the end of its budget.

    Parameters
    ----------
    study : Study
        Locked by the caller.
    keeper : EngineKeeper
        Without an engine yet; the caller closes it.
    budget : Budget
        Of this run, as it was asked for.
    show : Progress
        Where to show what happens.
    stop : callable
        Asked between trials and visits; true ends the run.
    steer : Steering
        Wishes, and the budget in force.
    """

    def __init__(
        self,
        study: Study,
        keeper: EngineKeeper,
        *,
        budget: Budget,
        show: Progress,
        stop: Callable[[], bool],
        steer: Steering,
    ) -> None:
        self._study, self._spec = study, study.spec
        self._keeper, self._asked, self._show, self._stop = keeper, budget, show, stop
        self._steer = steer
        self._workload = self._spec.effective_workload
        self._begin: float | None = keeper.now()
        self._tile_files: list[str] = []  # as the engine names them; the exported bundle holds such files

    @property
    def _budget(self) -> Budget:
        """Asked for anew each time: it may grow while the study runs."""
        return self._steer.budget(self._asked)

    def go(self) -> None:
        store = self._study.stored
        if store is None or store.baseline is None:
            baseline, space = self._first_engine()
            store = store or self._study.begin_store()
            store.baseline = baseline
        else:
            baseline, space = store.baseline, grown(self._spec.knob_space, store.baseline)
        replay = self._study.replay
        facts = {"moe_tile_files": self._tile_files} if self._tile_files else {}
        store.add_provenance(provenance.of_run() | facts | ({"replayed": replay.facts()} if replay else {}))
        if ended := store.end_interrupted():
            self._show.message(f"{ended} interrupted trial(s) of a former run will be tried again")
        for note in self._spec.notes:
            self._show.message(f"note: {note}")
        runner = TrialRunner(self._spec, self._workload, self._keeper, baseline, space)
        if replay is not None:
            continue_replay(replay, store, runner, baseline)
        while True:
            budget = self._budget
            records = self._search(store, runner, baseline, space)
            first = baseline_record(records, space.active(baseline))
            best = best_record(records, self._spec)
            if first is None or best is None or self._stop():
                return
            confirm(store, runner, first, best, show=self._show, stop=self._stop)
            if self._stop() or not (self._steer.has_wish() or self._budget != budget):
                return  # else somebody asked for more while the best was confirmed

    def _first_engine(self) -> tuple[Params, KnobSpace]:
        """Start the baseline's engine and let it judge the space; nothing is stored yet."""
        base = self._spec.base_recipe
        self._spec.knob_space.check_highest(base)
        self._show.message(f"starting the baseline's engine ({base.name})")
        self._show.running("the start of the baseline's engine")
        ready = self._keeper.ready(base, {})
        baseline = resolve_baseline(self._spec.knob_space, base, ready.engine)
        self._tile_files = ready.engine.state().moe_tile_files
        if self._study.replay is not None:
            self._study.replay.check(base.replace(**baseline), self._workload)
        self._keeper.adopt(base.replace(**baseline), unbilled_s=ready.rebuild_s)
        return baseline, grown(self._spec.knob_space, baseline)

    def _search(
        self, store: StudyStore, runner: TrialRunner, baseline: Params, space: KnobSpace
    ) -> list[TrialRecord]:
        order = predicted_order(store, self._spec, space, baseline)
        search = Search(
            space,
            baseline,
            maximize=[METRICS[name].maximize for name in self._spec.objective],
            seed=self._spec.seed,
            budget=self._budget.trials,
            predicted_ms=order.tpot_ms if order is not None else None,
        )
        if order is not None and search.is_listed:
            self._show.message(order.sentence)
        first = params_key(space.active(baseline))
        stored = store.records()
        number = 1 + max((record.number for record in stored), default=-1)
        records = [r for r in stored if r.status != "interrupted"]
        # A baseline that came to nothing is told to nobody, so that it is the next to be tried.
        deadly = _interrupted_twice(stored)
        for record in deadly:
            self._show.message(f"{in_words(record.params)}: ended its run twice, so it is not tried again")
        told = [r for r in records + deadly if r.status == "complete" or params_key(r.params) != first]
        for record in sorted(told, key=lambda r: r.number):
            search.tell(past(record))
        known = baseline_record(records, space.active(baseline))
        for record in filter(None, [known, *records]):
            if record.measurement is not None:
                runner.remember(record.params, record.measurement)
        self._show.start(self._spec.study, len(records), self._total(search), self._budget.seconds)
        while (not self._is_spent(records) or self._steer.has_wish()) and not self._stops():
            # The first trial of a run is charged with what had to happen before it.
            begin, self._begin = self._begin or self._keeper.now(), None
            wish = self._wish(search, space, baseline)
            # A wish that was tried already does not spend more than the budget.
            params = wish or (None if self._is_spent(records) else search.next())
            if params is None:
                break
            self._show.running("trial", number)
            try:
                record = runner.run(store, params, begin)
            except BaseException:
                if wish is not None:
                    self._steer.give_back(wish)
                raise
            number = record.number + 1
            records.append(record)
            search.tell(past(record))
            best = best_record(records, self._spec)
            left_s = self._left_s(records, self._total(search))
            self._show.trial(record, show_values(best, self._spec), left_s)
            if params_key(params) == first and record.status != "complete":
                raise StudyError(
                    f"study {self._spec.study!r}: the baseline {record.status}: {record.reason};"
                    " without it nothing can be compared"
                )
        return records

    def _stops(self) -> bool:
        """Whether the run ends here; a pause is not charged to the trial that comes next."""
        asked = self._keeper.now()
        stops = self._stop()
        if self._begin is not None:
            self._begin += self._keeper.now() - asked
        return stops

    def _total(self, search: Search) -> int | None:
        """Trials that there can be: what the budget allows, or all points where those are fewer."""
        total = self._budget.trials
        return total if search.size is None else min(total or search.size, search.size)

    def _wish(self, search: Search, space: KnobSpace, baseline: Params) -> Params | None:
        """The next point that was asked for and not tried yet; the baseline comes before all wishes."""
        while search.knows(baseline) and (wish := self._steer.wish()) is not None:
            params = space.active({**baseline, **wish})
            if not search.knows(params):
                return params
            self._show.message(f"{in_words(params)}: was tried already")
        return None

    def _is_spent(self, records: list[TrialRecord]) -> bool:
        budget = self._budget
        if budget.trials is not None and len(records) >= budget.trials:
            return True
        return budget.seconds is not None and _spent_s(records) >= budget.seconds

    def _left_s(self, records: list[TrialRecord], total: int | None) -> float | None:
        """Seconds left: live trials and rebuilds each at their mean so far, and the time budget."""
        if self._study.replay is not None:
            return None  # its seconds are the recorded ones, nobody waits for them
        bounds = []
        if total is not None:
            left = max(total - len(records), 0)
            live = [r.cost.total_s for r in records if r.cost.is_live]
            rebuilt = [r.cost.total_s for r in records if not r.cost.is_live]
            per_live = statistics.fmean(live) if live else statistics.fmean(rebuilt)
            per_rebuild = statistics.fmean(rebuilt) if rebuilt else per_live
            rebuilds = min(self._plans_left(records), left)
            bounds.append((left - rebuilds) * per_live + rebuilds * per_rebuild)
        if self._budget.seconds is not None:
            bounds.append(max(self._budget.seconds - _spent_s(records), 0.0))
        return min(bounds, default=None)

    def _plans_left(self, records: list[TrialRecord]) -> int:
        """Plans of the space that have not been started yet."""
        space = self._spec.knob_space
        return max(space.plan_count - len({params_key(space.plan(r.params)) for r in records}), 0)


def resolve_baseline(space: KnobSpace, base: Recipe, engine: Engine) -> Params:
    """The baseline's values: the recipe's, and where it leaves one to vLLM, what vLLM chose.

    Raises
    ------
    KnobError
        If this engine cannot change a live knob of the space, or take one of its values.
    """
    status, state = engine.knobs(), engine.state()
    values: Params = {}
    for dimension in space:
        name = dimension.name
        if dimension.knob.reach == "live":
            # Among several plans another engine may allow other values: the trial finds out.
            check_dimension(dimension, status.get(name), values=not space.rebuild)
        value = getattr(base, name)
        values[name] = value if value is not None else state.knobs.get(name)
        if values[name] is None:
            raise KnobError(f"space.{name}: vLLM does not say its default; name it in the recipe")
    return values


def grown(space: KnobSpace, baseline: Params) -> KnobSpace:
    """The space with the baseline as one of its points."""
    return space.with_point(baseline)


def past(record: TrialRecord) -> Past:
    """A trial as the search sees it."""
    return Past(record.params, record.values, record.violations)


def _interrupted_twice(records: list[TrialRecord]) -> list[TrialRecord]:
    """Points that took the driver down twice: they count as tried. A user's abort is not their doing."""
    counts: dict[str, list[TrialRecord]] = {}
    for record in records:
        if record.status == "interrupted" and record.params and record.reason != BY_USER:
            counts.setdefault(params_key(record.params), []).append(record)
    return [same[-1] for same in counts.values() if len(same) >= _TWICE]


def _spent_s(records: list[TrialRecord]) -> float:
    return sum(record.cost.total_s for record in records)
