"""Study: propose, run, store, repeat; then confirm the best against the baseline."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from glmlab import engines
from glmlab.engine_keeper import EngineKeeper, StartEngine
from glmlab.engines import Engine, EngineHandle
from glmlab.engines.replay_start import Replay
from glmlab.errors import StudyError
from glmlab.feasibility import blocked
from glmlab.interrupt import StopOnInterrupt
from glmlab.measurement import METRICS
from glmlab.progress import Progress, Silent
from glmlab.recipe import Recipe
from glmlab.replayed_study import check_same_recordings, find_replay, within
from glmlab.steering import Steering
from glmlab.storage import DEFAULT_URL, Direction, StudyStore, check_writable
from glmlab.storage_url import shown
from glmlab.study_lock import study_lock
from glmlab.study_run import StudyRun
from glmlab.study_spec import Budget, StudySpec
from glmlab.summary import Summary, summarize
from glmlab.trial_record import TrialRecord


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
        self._handle: EngineHandle | None = None

    def _start_real(self, recipe: Recipe, ceilings: Mapping[str, int]) -> Engine:
        return engines.start(
            recipe,
            home=self.spec.home,
            ceilings=ceilings,
            start_timeout_s=self.spec.start_timeout_s,
            handle=self._handle,
        )

    # ------------------------------------------------------------------ running
    def run(
        self,
        *,
        budget: Budget | None = None,
        progress: Progress | None = None,
        stop: Callable[[], bool] = lambda: False,
        steering: Steering | None = None,
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
        steering : Steering, optional
            In place of ``stop``: pauses, wishes and a budget that grows; and a hand on the engine.

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
        AbortedError
            If the engine was ended through ``steering.handle``; likewise.
        KeyboardInterrupt
            At a second Ctrl-C; the running trial is stored as interrupted.
        """
        show, steer = progress or Silent(), steering or Steering(stop)
        self._handle = steer.handle
        if self.spec.is_replayed:
            self._start = self.replay = self.replay or find_replay(self.spec)
            self.spec = within(self.spec, self.replay, show)
            self.replay.handle = steer.handle
        elif reason := blocked(self.spec.base_recipe, self.spec.effective_workload):
            raise StudyError(f"study {self.spec.study!r}: the baseline cannot run: {reason}")
        check_writable(self.storage)
        with study_lock(self.spec.study, self.storage):
            self._store = StudyStore.open(self.spec.study, self.storage)
            if self._store is not None:
                self._check_same(self._store)
                if self.replay is not None:
                    check_same_recordings(self.replay, self._store)
            keeper = EngineKeeper(
                self._start, self.spec.knob_space.highest(), self.spec.base_recipe, steer.handle
            )
            wish = StopOnInterrupt(lambda: show.message("stopping after this trial; Ctrl-C again: now"))
            try:
                with wish:
                    StudyRun(
                        self,
                        keeper,
                        budget=budget or self.spec.budget,
                        show=show,
                        stop=lambda: wish.wanted or steer.stops(),
                        steer=steer,
                    ).go()
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
                f"study {self.spec.study!r} in {shown(self.storage)}: changed since its first run: {detail};"
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

    @property
    def stored(self) -> StudyStore | None:
        """The stored study, where this object has opened or made it."""
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
        return f"Study({self.spec.study!r}, storage={shown(self.storage)!r})"
