"""Study: propose, run, store, repeat; then confirm the best against the baseline."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from glmlab import engines, provenance
from glmlab.confirm import confirm
from glmlab.engine_keeper import EngineKeeper, StartEngine
from glmlab.engines import Engine
from glmlab.engines.replay_start import Replay
from glmlab.errors import KnobError, StudyError
from glmlab.feasibility import blocked
from glmlab.interrupt import StopOnInterrupt
from glmlab.knobs import KnobSpace, Params, params_key
from glmlab.measurement import METRICS
from glmlab.progress import Progress, Silent
from glmlab.recipe import Recipe
from glmlab.replayed_study import check_same_recordings, continue_replay, find_replay, within
from glmlab.search import Past, Search
from glmlab.storage import DEFAULT_URL, Direction, StudyStore, check_writable, study_lock
from glmlab.study_spec import Budget, StudySpec
from glmlab.summary import Summary, baseline_record, best_record, show_values, summarize
from glmlab.trial import TrialRunner
from glmlab.trial_record import TrialRecord

_TWICE = 2  # a point whose trial killed the driver twice is not tried a third time


class Study:
    """A tuning study: one Optuna study in a storage, run by :meth:`run`, any number of times.

    Parameters
    ----------
    spec : StudySpec, str, Path or mapping
        A study file, its path, or its keys and values.
    storage : str
        Optuna storage URL, or ``journal://FILE``.
    start : callable, optional
        Recipe and ceilings -> started engine; by default the engine and home of the study file.
        For a study over recordings a :class:`~glmlab.engines.replay_start.Replay`, e.g. one that
        takes its time.

    Raises
    ------
    InputError
        With one line, before anything is written.
    """

    def __init__(
        self,
        spec: StudySpec | str | Path | Mapping[str, Any],
        storage: str = DEFAULT_URL,
        *,
        start: StartEngine | None = None,
    ) -> None:
        if isinstance(spec, str | Path):
            spec = StudySpec.load(spec)
        elif not isinstance(spec, StudySpec):
            spec = StudySpec.parse(dict(spec))
        if isinstance(start, Replay) != spec.is_replayed and start is not None:
            raise StudyError(
                f"study {spec.study!r}: engine: {spec.engine} and start={start!r} do not go together"
            )
        self.spec = spec
        self.storage = storage
        self._start = start or self._start_real
        self.replay = start if isinstance(start, Replay) else None
        self._store: StudyStore | None = None

    def _start_real(self, recipe: Recipe, ceilings: Mapping[str, int]) -> Engine:
        return engines.start(
            recipe,
            home=self.spec.home,
            ceilings=ceilings,
            start_timeout_s=self.spec.start_timeout_s,
        )

    # ------------------------------------------------------------------ running
    def run(
        self,
        *,
        budget: Budget | None = None,
        progress: Progress | None = None,
        stop: Callable[[], bool] = lambda: False,
    ) -> Summary:
        """Run or continue the study until its budget is spent or every point is measured.

        Parameters
        ----------
        budget : Budget, optional
            In place of the study file's; counts all runs of the study.
        progress : Progress, optional
            Where to show what happens.
        stop : callable
            Asked between trials; true ends the run as a first Ctrl-C does.

        Returns
        -------
        Summary
            What :meth:`summary` gives.

        Raises
        ------
        InputError
            If the study cannot be run as asked; a new study has then written nothing.
        EngineError
            If not even the baseline could be started.
        KeyboardInterrupt
            At a second Ctrl-C; the running trial is stored as interrupted.
        """
        show = progress or Silent()
        if self.spec.is_replayed:
            self._start = self.replay = self.replay or find_replay(self.spec)
            self.spec = within(self.spec, self.replay, show)
        elif reason := blocked(self.spec.base_recipe, self.spec.effective_workload):
            raise StudyError(f"study {self.spec.study!r}: the baseline cannot run: {reason}")
        check_writable(self.storage)
        with study_lock(self.spec.study, self.storage):
            self._store = StudyStore.open(self.spec.study, self.storage)
            if self._store is not None:
                self._check_same(self._store)
                if self.replay is not None:
                    check_same_recordings(self.replay, self._store)
            keeper = EngineKeeper(self._start, self.spec.knob_space.highest(), self.spec.base_recipe)
            wish = StopOnInterrupt(lambda: show.message("stopping after this trial; Ctrl-C again: now"))
            try:
                with wish:
                    _Run(self, keeper, budget or self.spec.budget, show, lambda: wish.wanted or stop()).go()
            finally:
                show.close()
                keeper.close()
        return self.summary()

    def _check_same(self, store: StudyStore) -> None:
        """A study that changed between runs would mix what cannot be compared."""
        stored, now = store.identity, self.spec.identity()
        for key, value in now.items():
            if stored.get(key) == value:
                continue
            if key == "recipe":
                before = Recipe.parse(store.recipe, where="stored recipe")
                changed = ", ".join(before.diff(self.spec.base_recipe)) or "its meaning"
                detail = f"the recipe ({changed})"
            else:
                detail = f"{key} (stored: {stored.get(key)}; now: {value})"
            raise StudyError(
                f"study {self.spec.study!r} in {self.storage}: changed since its first run: {detail};"
                " give the changed study another name"
            )

    # ------------------------------------------------------------------ asking
    @property
    def store(self) -> StudyStore:
        """The stored study.

        Raises
        ------
        StorageError
            If it has not been run yet.
        """
        if self._store is None:
            self._store = StudyStore.load(self.spec.study, self.storage)
        return self._store

    def begin_store(self) -> StudyStore:
        """Create the stored study: the moment from which something is written."""
        directions: list[Direction] = [
            "maximize" if METRICS[name].maximize else "minimize" for name in self.spec.objective
        ]
        self._store = StudyStore.create(self.spec, self.storage, directions=directions)
        return self._store

    def summary(self) -> Summary:
        """Baseline, best, verdict and cost, as far as the study has come."""
        return summarize(self.store)

    def records(self) -> list[TrialRecord]:
        """All trials with their raw samples."""
        return self.store.records()

    def __repr__(self) -> str:
        return f"Study({self.spec.study!r}, storage={self.storage!r})"


class _Run:
    """One run of a study: from where it stands to the end of its budget."""

    def __init__(
        self,
        study: Study,
        keeper: EngineKeeper,
        budget: Budget,
        show: Progress,
        stop: Callable[[], bool],
    ) -> None:
        self._study, self._spec = study, study.spec
        self._keeper, self._budget, self._show, self._stop = keeper, budget, show, stop
        self._workload = self._spec.effective_workload
        self._begin: float | None = keeper.now()
        self._tile_files: list[str] = []  # as the engine names them; the exported bundle holds such files

    def go(self) -> None:
        store = self._study._store
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
        records = self._search(store, runner, baseline, space)
        first = baseline_record(records, space.active(baseline))
        best = best_record(records, self._spec)
        if first is not None and best is not None and not self._stop():
            confirm(store, runner, first, best, show=self._show, stop=self._stop)

    def _first_engine(self) -> tuple[Params, KnobSpace]:
        """Start the baseline's engine and let it judge the space; nothing is stored yet."""
        base = self._spec.base_recipe
        for name in self._spec.knob_space.highest():
            if getattr(base, name) is None:
                raise KnobError(
                    f"space.{name}: the recipe leaves it to vLLM; name its default in the recipe,"
                    " since an engine must start with the highest value of the space"
                )
        self._show.message(f"starting the baseline's engine ({base.name})")
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
        search = Search(
            space,
            baseline,
            maximize=[METRICS[name].maximize for name in self._spec.objective],
            seed=self._spec.seed,
            budget=self._budget.trials,
        )
        first = params_key(space.active(baseline))
        stored = store.records()
        records = [r for r in stored if r.status != "interrupted"]
        # A baseline that came to nothing is told to nobody, so that it is the next to be tried.
        told = [
            r
            for r in records + _interrupted_twice(stored)
            if r.status == "complete" or params_key(r.params) != first
        ]
        for record in sorted(told, key=lambda r: r.number):
            search.tell(past(record))
        known = baseline_record(records, space.active(baseline))
        runner.baseline_measurement = known.measurement if known else None
        total = self._budget.trials
        if search.size is not None:
            total = min(total or search.size, search.size)
        self._show.start(self._spec.study, len(records), total, self._budget.seconds)
        while not self._is_spent(records) and not self._stop():
            # The first trial of a run is charged with what had to happen before it.
            begin, self._begin = self._begin or self._keeper.now(), None
            params = search.next()
            if params is None:
                break
            record = runner.run(store, params, begin)
            records.append(record)
            search.tell(past(record))
            best = best_record(records, self._spec)
            self._show.trial(record, show_values(best, self._spec), self._left_s(records, total))
            if params_key(params) == first and record.status != "complete":
                raise StudyError(
                    f"study {self._spec.study!r}: the baseline {record.status}: {record.reason};"
                    " without it nothing can be compared"
                )
        return records

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
        plans = math.prod(space[name].count for name in space.rebuild)
        return max(plans - len({params_key(space.plan(r.params)) for r in records}), 0)


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
            found = status.get(name)
            if found is None or not found.live:
                why = found.why if found else "it does not know it"
                raise KnobError(f"space.{name}: this engine cannot change it: {why}")
            if not space.rebuild:
                for value in (dimension.low, dimension.high) if dimension.is_range else dimension.values:
                    if not found.allows(value):
                        raise KnobError(f"space.{name} = {value!r}: this engine allows {found.allowed}")
        value = getattr(base, name)
        values[name] = value if value is not None else state.knobs.get(name)
        if values[name] is None:
            raise KnobError(f"space.{name}: vLLM does not say its default; name it in the recipe")
    return values


def grown(space: KnobSpace, baseline: Params) -> KnobSpace:
    """The space with the baseline as one of its points."""
    for name, value in baseline.items():
        space = space.with_value(name, value)
    return space


def past(record: TrialRecord) -> Past:
    """A trial as the search sees it."""
    return Past(record.params, record.values, record.violations)


def _interrupted_twice(records: list[TrialRecord]) -> list[TrialRecord]:
    """Points that took the driver down twice: they count as tried."""
    counts: dict[str, list[TrialRecord]] = {}
    for record in records:
        if record.status == "interrupted" and record.params:
            counts.setdefault(params_key(record.params), []).append(record)
    return [same[-1] for same in counts.values() if len(same) >= _TWICE]


def _spent_s(records: list[TrialRecord]) -> float:
    return sum(record.cost.total_s for record in records)
