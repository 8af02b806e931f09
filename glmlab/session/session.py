"""Session: a study that runs in the background.

One thread owns the study and its engine. Every method may be called from any thread and returns at once, but
for ``wait`` and ``close``; what happens is kept as events, of which each view reads on from where it was.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import deque
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from typing import Any, Self

from glmlab.engine_keeper import StartEngine
from glmlab.errors import AbortedError, GlmlabError, SessionError
from glmlab.knobs import Params
from glmlab.knobs import in_words as params_in_words
from glmlab.session.events import Event, EventLog
from glmlab.session.extension import Extension
from glmlab.session.found import Found
from glmlab.session.progress import SessionProgress
from glmlab.session.registry import claim, forget
from glmlab.session.state import Action, SessionState, SessionStatus, actions, in_words
from glmlab.session.wheel import Wheel
from glmlab.session.wishes import checked_wish
from glmlab.storage import DEFAULT_URL, StudyStore
from glmlab.storage_url import shown
from glmlab.study import Study
from glmlab.study_lock import is_held
from glmlab.study_run import grown
from glmlab.study_spec import Budget, StudySpec
from glmlab.summary import Summary
from glmlab.trial_record import TrialRecord, Visit

Turn = Callable[[Wheel], None]

_log = logging.getLogger(__name__)
_LEAST_ROUNDS = 3  # fewer give no interval
_CLOSE_S = 15.0  # within it a killed engine is gone, whatever it did


class Session:
    """A study with a thread of its own, and a wheel.

    Parameters
    ----------
    study : Study, StudySpec, str, Path or mapping
        What :class:`~glmlab.study.Study` takes, or one.
    storage : str
        Optuna storage URL, or ``journal://FILE``.
    start : callable, optional
        As of :class:`~glmlab.study.Study`.

    Raises
    ------
    SessionError
        If the study runs in this process already: :func:`glmlab.attach` gives its session.
    InputError
        As :class:`~glmlab.study.Study` raises it; nothing is written.
    """

    def __init__(
        self,
        study: Study | StudySpec | str | Path | Mapping[str, Any],
        storage: str = DEFAULT_URL,
        *,
        start: StartEngine | None = None,
    ) -> None:
        if isinstance(study, Study):
            if start is not None or storage not in (DEFAULT_URL, study.storage):
                raise SessionError("a Study has its storage and its engine: give it alone")
            self.study = study
        else:
            self.study = Study(study, storage, start=start)
        self._guard = threading.RLock()
        self._events = EventLog()
        self._wishes: deque[Params] = deque()
        self._extension = Extension()
        self._wheel: Wheel | None = None
        self._thread: threading.Thread | None = None
        self._budget: Budget | None = None  # of the run under way, where it is not the study's
        self._state = SessionState.NEW
        self._error: BaseException | None = None
        self._progress = SessionProgress(self._events)
        self._found = Found(self.study, self._progress)
        claim(self)
        self.refresh()

    # ------------------------------------------------------------------ steering
    def start(self, budget: Budget | None = None) -> None:
        """Begin the study, or continue it where it was, in the background.

        Parameters
        ----------
        budget : Budget, optional
            In place of the study's own; what :meth:`extend` adds comes on top.

        Raises
        ------
        SessionError
            If it runs already, here or in another process.
        """
        with self._guard:
            self._check("start")
            claim(self)
            if is_held(self.name, self.storage):
                self._set(SessionState.ELSEWHERE)
                raise SessionError(
                    f"study {self.name!r} in {shown(self.storage)}: another process runs it; wait for it or"
                    " stop it"
                )
            self._error, self._budget = None, budget
            self._wheel = wheel = Wheel(self._wishes, self._extension.of, self._paused)
            name = f"glmlab-session-{self.name}"
            thread = threading.Thread(target=self._run, args=(wheel, budget), name=name, daemon=True)
            self._set(SessionState.RUNNING)
            try:
                thread.start()
            except RuntimeError as error:  # no thread is to be had
                self._error = error
                self._set(SessionState.FAILED)
                raise
            self._thread = thread

    def pause(self) -> None:
        """Wait after the trial under way, with the engine kept."""
        self._turn("pause", SessionState.PAUSING, Wheel.pause)

    def resume(self) -> None:
        """Go on."""
        self._turn("resume", SessionState.RUNNING, Wheel.resume)

    def stop(self) -> None:
        """End after the trial under way; :meth:`start` continues."""
        self._turn("stop", SessionState.STOPPING, Wheel.stop)

    def abort(self) -> None:
        """End the engine now; the trial under way will be tried again.

        A child engine is killed, whatever it does. One in this process ends at its next step: not while
        it starts or captures graphs.
        """
        self._turn("abort", SessionState.ABORTING).abort()

    def enqueue(self, **knobs: Any) -> Params:
        """Try this point next; knobs that are not named stay at the baseline's values.

        Returns
        -------
        dict
            The whole point, as far as the baseline is known.

        Raises
        ------
        KnobError
            For a knob or a value that is not in the space, or a point that was tried.
        """
        with self._guard:
            self._check("enqueue")
            point = checked_wish(self.spec.knob_space, self.baseline, self._progress.records, knobs)
            self._wishes.append(point)
            self._events.add("message", f"next: {params_in_words(point)}")
            return point

    def extend(self, *, trials: int = 0, seconds: float = 0.0) -> None:
        """Add to the budget, running or not.

        Raises
        ------
        SessionError
            For less than nothing, or a kind of budget that the study has not.
        """
        with self._guard:
            self._check("extend")
            added = self._extension.add(self._budget or self.spec.budget, trials=trials, seconds=seconds)
            self._progress.total = self._total()
            if added:
                self._events.add("message", f"budget extended by {added}")

    def confirm(self, rounds: int) -> None:
        """Confirm the best with so many rounds in all; those that were made before count.

        Raises
        ------
        SessionError
            If it runs, or for fewer rounds than 3.
        """
        with self._guard:
            self._check("start")
            if type(rounds) is not int or rounds < _LEAST_ROUNDS:
                raise SessionError(f"rounds = {rounds!r}: expected a whole number, 3 or more")
            self.study.spec = self.spec.with_confirm(rounds)
            self.start()

    def wait(self, timeout_s: float | None = None) -> Summary:
        """Wait for the end of the run, and raise what it raised; a Ctrl-C here does not end the study.

        Raises
        ------
        SessionError
            If it has not ended in time, or there is nothing to wait for.
        """
        thread = self._thread
        try:
            if thread is not None:
                thread.join(timeout_s)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("the study goes on in the background; session.stop() ends it") from None
        if thread is not None and thread.is_alive():
            raise SessionError(f"study {self.name!r}: still {self._text().lower()} after {timeout_s} s")
        if self._error is not None:
            raise self._error
        found = self.summary()
        if found is None:
            raise SessionError(f"study {self.name!r}: has no trial yet; session.start() begins it")
        return found

    def close(self) -> None:
        """Abort what runs, and wait until its engine is gone."""
        with contextlib.suppress(SessionError):
            self.abort()
        if self._thread not in (None, threading.current_thread()):
            self._thread.join(_CLOSE_S)
        if not self.is_active:  # what still runs must be found
            forget(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ------------------------------------------------------------------ looking
    @property
    def name(self) -> str:
        return self.study.spec.study

    @property
    def spec(self) -> StudySpec:
        return self.study.spec

    @property
    def storage(self) -> str:
        return self.study.storage

    @property
    def status(self) -> SessionStatus:
        """Where it stands now; cheap."""
        with self._guard:
            return SessionStatus.of(self._state, self._progress, text=self._text(), error=self._why())

    @property
    def engine_pids(self) -> tuple[int, ...]:
        """Processes of the engine; none in a replay, or where it is in this process."""
        wheel = self._wheel
        return wheel.handle.pids if wheel is not None and self.is_active else ()

    @property
    def state(self) -> SessionState:
        """Where it stands now; waits for nobody."""
        return self._state

    @property
    def is_active(self) -> bool:
        """Whether the study runs here and now."""
        return self._state.is_active

    @property
    def baseline(self) -> Params | None:
        """The baseline's values; ``None`` until an engine has said what they are."""
        return self._found.baseline

    @property
    def store(self) -> StudyStore:
        """The stored study.

        Raises
        ------
        StorageError
            If it has not been run yet.
        """
        return self.study.store

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call a bound method, held weakly, after each change of state; see :meth:`EventLog.watch`."""
        self._events.watch(watcher)

    def events(self, since: int = 0) -> tuple[tuple[Event, ...], int]:
        """Events after a cursor, and the new cursor."""
        return self._events.since(since)

    def records(self) -> list[TrialRecord]:
        """Trials so far, from memory."""
        return list(self._progress.records)

    def visits(self) -> list[Visit]:
        """Visits that confirm the present best, in order."""
        return self._found.visits()

    def summary(self) -> Summary | None:
        """Baseline, best, verdict and cost so far; ``None`` before there is a stored study."""
        return self._found.summary(self._state)

    def refresh(self) -> None:
        """Read the stored study anew, unless it runs here.

        Raises
        ------
        StorageError
            If the storage is gone.
        """
        thread = self._thread
        if self._state.is_active:
            return
        stored = self._found.read()  # without the lock: a storage may take its time
        is_elsewhere = stored is not None and is_held(self.name, self.storage)
        with self._guard:
            if self._thread is not thread:
                return  # it was started meanwhile, and knows better
            self._found.take(stored)
            self._progress.total = self._total()
            state = SessionState.ELSEWHERE if is_elsewhere else self._state
            if not is_elsewhere and state in (SessionState.ELSEWHERE, SessionState.NEW):
                state = SessionState.FINISHED if self._found.is_complete else SessionState.NEW
            if state is not self._state:
                self._set(state)

    # ------------------------------------------------------------------ the thread
    def _run(self, wheel: Wheel, budget: Budget | None) -> None:
        error: BaseException | None = None
        end = SessionState.FINISHED
        try:
            self.study.run(budget=budget, progress=self._progress, steering=wheel)
            if self._state is SessionState.STOPPING:
                end = SessionState.STOPPED
        except AbortedError:
            end = SessionState.ABORTED
        except BaseException as raised:  # noqa: BLE001 (the thread's end: the user gets it, whatever it is)
            error, end = raised, SessionState.FAILED
        if wheel.handle.is_ended:
            error, end = None, SessionState.ABORTED
        if error is not None:
            self._events.add_error(error)
            if not isinstance(error, GlmlabError):
                _log.error("study %s failed", self.name, exc_info=error)
        if end in (SessionState.ABORTED, SessionState.FAILED):
            # The trial that was cut off is to be tried again; a storage that is gone leaves what was heard.
            with contextlib.suppress(Exception):
                self._found.take(self._found.read())
        with self._guard:
            self._error, self._budget = error, None
            self._progress.end()
            self._set(end)

    def _paused(self) -> None:
        with self._guard:
            self._progress.end_of_trial()
            if self._state is SessionState.PAUSING:
                self._set(SessionState.PAUSED)

    def _total(self) -> int | None:
        space = self.spec.knob_space
        return self._extension.total(self._budget or self.spec.budget, grown(space, self.baseline or {}))

    def _check(self, action: Action) -> None:
        """Refuse what cannot be done now."""
        if action not in actions(self._state):
            raise SessionError(f"study {self.name!r}: cannot {action} now: {self._text().lower()}")

    def _turn(self, action: Action, state: SessionState, turn: Turn | None = None) -> Wheel:
        """Say and turn as one; the wheel's own lock is taken after this one is given back."""
        with self._guard:
            self._check(action)
            wheel = self._wheel
            assert wheel is not None  # whatever runs has one
            self._set(state)
            if turn is not None:
                turn(wheel)
        wheel.tell()
        return wheel

    def _set(self, state: SessionState) -> None:
        self._state = state
        self._events.add("state", self._text())

    def _why(self) -> str:
        return "" if self._error is None else " ".join(str(self._error).split())

    def _text(self) -> str:
        return in_words(self._state, doing=self._progress.doing, done=self._progress.done, error=self._why())

    def _repr_html_(self) -> str:
        return f"<p>{escape(f'study {self.name} in {shown(self.storage)}: {self.status.text}')}</p>"

    def __repr__(self) -> str:
        return f"Session({self.name!r}, storage={shown(self.storage)!r}, {self._state.value})"
