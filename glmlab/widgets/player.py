"""Player: one engine and its calls in the background, for whoever shows it. No widget is touched here."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from concurrent.futures import CancelledError
from dataclasses import dataclass, replace
from pathlib import Path
from threading import RLock
from typing import Any, Literal, Protocol
from weakref import ReferenceType, ref

import psutil

from glmlab.engines.base import ApplyReport, Engine, EngineKnobs, KnobStatus
from glmlab.engines.handle import EngineHandle
from glmlab.errors import AbortedError, EngineDiedError, EngineError, GraphsLostError, InputError
from glmlab.measurement import Measurement
from glmlab.recipe import Recipe
from glmlab.ticker import Worker
from glmlab.widgets.engine_places import log_path_for, start_engine
from glmlab.workload import Workload

State = Literal["none", "starting", "ready", "applying", "measuring", "closing", "died"]
RUNNING: tuple[State, ...] = ("starting", "ready", "applying", "measuring", "closing")


class StartEngine(Protocol):
    """Starts an engine; :func:`glmlab.widgets.engine_places.start_engine` unless a test says otherwise."""

    def __call__(self, recipe: Recipe, place: str, log_path: Path | None, handle: EngineHandle) -> Engine: ...


@dataclass(frozen=True)
class PlayStatus:
    """Where a player is.

    Attributes
    ----------
    text : str
        The same in words.
    since_s : float
        When this state began, on :func:`time.monotonic`.
    """

    state: State
    text: str
    since_s: float
    recipe: Recipe | None = None
    place: str = ""
    log_path: Path | None = None
    knobs: Mapping[str, KnobStatus] | None = None
    start_s: float = 0.0
    evidence: str = ""
    pids: tuple[int, ...] = ()


@dataclass(frozen=True)
class Round:
    """One measurement of one state of the engine, and what brought it there.

    Attributes
    ----------
    number : int
        From 1, over the engines of one player.
    values : dict
        Every live knob in force.
    report : ApplyReport or None
        Of the change before it; None for a measurement without one.
    same_tokens : float or None
        Share of greedy tokens equal to the round before; None where they have no point in common.
    """

    number: int
    recipe: Recipe
    values: dict[str, Any]
    report: ApplyReport | None
    workload: Workload
    measurement: Measurement
    same_tokens: float | None


class Player:
    """Starts an engine, changes it, measures it and ends it, each call in one background thread.

    All methods but :meth:`wait_idle` return at once. One player of a process has an engine at a time: where
    another one starts, this one's is ended, since nobody may see its controls any more.

    Parameters
    ----------
    on_change : callable
        Called after the status changed, from any thread.
    on_round : callable
        Gets each new :class:`Round`, in the background thread.
    on_error : callable
        Gets what a call raised, in the background thread. The engine may still serve: the status says so.
    start : callable, optional
        Starts an engine.
    """

    _holder: ReferenceType[Player] | None = None
    _holders = RLock()

    def __init__(
        self,
        on_change: Callable[[], None],
        on_round: Callable[[Round], None],
        on_error: Callable[[BaseException], None],
        start: StartEngine = start_engine,
    ) -> None:
        self._on_change, self._on_round, self._on_error = on_change, on_round, on_error
        self._start_engine = start
        self._worker, self._ender = Worker("play"), Worker("play-end")
        self._guard = RLock()
        self._engine: Engine | None = None
        self._handle = EngineHandle()
        self._status = PlayStatus("none", "No engine runs.", time.monotonic())
        self.rounds: list[Round] = []

    @property
    def status(self) -> PlayStatus:
        return self._status

    # ------------------------------------------------------------------ what can be asked for
    def start(self, recipe: Recipe, place: str, workload: Workload) -> None:
        """Start an engine and measure the state that it starts with.

        Raises
        ------
        InputError
            If this player has one.
        """
        with self._guard:
            if self._status.state in RUNNING:
                raise InputError("an engine runs here already; close it first")
            former = self._become_holder()
            self._handle = EngineHandle()
            path = log_path_for(recipe, place)
            self._set("starting", f"Starting an engine for {recipe.name}.", recipe, place, path)
            self._worker.submit(self._do, self._start, recipe, place, path, workload, former)

    def apply(self, knobs: Mapping[str, Any], workload: Workload) -> None:
        """Change live knobs, then measure; a change of nothing measures again.

        Raises
        ------
        InputError
            If no engine is ready for it.
        """
        with self._guard:
            if self._status.state != "ready":
                raise InputError(f"the engine cannot be changed now: {self._status.text}")
            self._set("applying" if knobs else "measuring", "Changing the engine." if knobs else "Measuring.")
            self._worker.submit(self._do, self._change, dict(knobs), workload)

    def close(self, why: str = "The engine is closed; its memory is free again.") -> None:
        """End the engine, whatever it does: a busy child is killed, a kernel's engine ends at its next step.

        Asked again while it closes, a child is killed.
        """
        with self._guard:
            state = self._status.state
            if state not in RUNNING:
                return
            self._set("closing", "Closing the engine.")
            if state == "ready":
                self._worker.submit(self._do, self._close, why)
            else:
                # The call that is under way fails with AbortedError, and that ends it.
                self._ender.submit(self._handle.end)

    def look(self) -> None:
        """See whether an idle engine still lives; one that is gone is asked, and so found dead."""
        with self._guard:
            status = self._status
            if status.state == "ready" and status.pids and not _lives(status.pids[0]):
                self._set("measuring", "The engine does not answer.")
                self._worker.submit(self._do, self._ask)

    # ------------------------------------------------------------------ in the background
    def _do(self, work: Callable[..., None], *args: Any) -> None:
        """Run one call; whatever it raises, the status says afterwards what can be done."""
        try:
            try:
                work(*args)
            except (AbortedError, EngineDiedError, GraphsLostError):
                raise
            except Exception as error:  # noqa: BLE001 (a thread's error is nobody's; it is shown)
                if self._engine is None:
                    self._drop(
                        "died" if isinstance(error, EngineError) else "none", "The engine did not start."
                    )
                else:
                    self._ready("That was not done; the engine still serves, with what stands below.")
                self._on_error(error)
        except AbortedError:
            self._drop("none", "The engine was ended; its memory is free again.")
        except (EngineDiedError, GraphsLostError) as error:
            self._drop("died", "The engine is gone. Start again.")
            self._on_error(error)

    def _start(
        self, recipe: Recipe, place: str, path: Path | None, workload: Workload, former: Player | None
    ) -> None:
        if former is not None:
            former.close("Closed, since another Play of this kernel started an engine.")
            former.wait_idle()
        engine = self._start_engine(recipe, place, path, self._handle)
        self._engine = engine
        self._ready(
            "The engine serves.", start_s=engine.started.seconds, evidence=engine.evidence, pids=engine.pids
        )
        self._measured(None, workload)

    def _change(self, knobs: dict[str, Any], workload: Workload) -> None:
        engine = self._alive()
        report = engine.apply(**knobs) if knobs else None
        self._measured(report, workload)

    def _measured(self, report: ApplyReport | None, workload: Workload) -> None:
        self._set("measuring", "Measuring.", knobs=EngineKnobs(self._alive().knobs()))
        measurement = self._alive().measure(workload)
        knobs = self._alive().knobs()
        values = {name: status.value for name, status in knobs.items() if status.value is not None}
        former = self.rounds[-1] if self.rounds else None
        same = None
        if former is not None and _common(former.measurement, measurement):
            same = measurement.same_tokens(former.measurement)
        recipe = self._alive().recipe
        this = Round(len(self.rounds) + 1, recipe, values, report, workload, measurement, same)
        self.rounds.append(this)
        self._on_round(this)
        self._ready("The engine serves.")

    def _ask(self) -> None:
        self._alive().state()
        self._ready("The engine serves.")

    def _close(self, why: str) -> None:
        self._alive().close()
        self._drop("none", why)

    def _alive(self) -> Engine:
        self._handle.check()
        if self._engine is None:
            raise EngineDiedError("the engine is gone")
        return self._engine

    def _ready(self, text: str, **changes: Any) -> None:
        """Say that it serves, and with what; unless somebody wants it closed meanwhile."""
        knobs = EngineKnobs(self._alive().knobs())
        with self._guard:
            if self._status.state == "closing":
                raise AbortedError("closed")
            self._set("ready", text, knobs=knobs, **changes)

    def _drop(self, state: State, text: str) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
        with self._guard:
            self._status = replace(self._status, knobs=None, pids=())
            self._set(state, text)

    # ------------------------------------------------------------------ status
    def _set(
        self,
        state: State,
        text: str,
        recipe: Recipe | None = None,
        place: str | None = None,
        log_path: Path | None = None,
        **changes: Any,
    ) -> None:
        with self._guard:
            if self._status.state == "closing" and state in ("applying", "measuring"):
                return  # what is under way ends soon
            if recipe is not None:
                changes |= {"recipe": recipe, "place": place, "log_path": log_path}
            begun = time.monotonic() if state != self._status.state else self._status.since_s
            self._status = replace(self._status, state=state, text=text, since_s=begun, **changes)
        self._on_change()

    def wait_idle(self, timeout_s: float = 60.0) -> None:
        """Return once no call is under way: with an engine that is ready, or without one.

        Parameters
        ----------
        timeout_s : float
            Until then at most; for other threads than the player's own.
        """
        with contextlib.suppress(RuntimeError, CancelledError):  # it has ended for good
            self._worker.submit(lambda: None).result(timeout_s)

    def end(self) -> None:
        """End the engine and take no more calls."""
        self.close()
        for worker in (self._ender, self._worker):
            with contextlib.suppress(RuntimeError):  # it has ended already
                worker.submit(worker.close)

    def _become_holder(self) -> Player | None:
        """Be the one player that has an engine; the one before, if it has one."""
        with Player._holders:
            former = Player._holder() if Player._holder is not None else None
            Player._holder = ref(self)
        return None if former is self else former


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _common(one: Measurement, other: Measurement) -> bool:
    points = {(point.context, point.batch) for point in one.points}
    return any((point.context, point.batch) in points for point in other.points)
