"""EngineHandle: what another thread may do to the engine of a run: see its processes, end it."""

from __future__ import annotations

from collections.abc import Callable
from threading import Event, RLock

from glmlab.errors import AbortedError


class EngineHandle:
    """A hand on whichever engine a run has at the moment, be it starting, measuring or idle.

    The engine takes hold of it when it has something that can be ended, and lets go when it is closed.
    Once ended, it stays so: an engine that comes later is ended too.
    """

    def __init__(self) -> None:
        self._lock = (
            RLock()
        )  # an engine that is dropped lets go in whichever thread collects it, this one too
        self._ended = Event()
        self._kill: Callable[[], None] | None = None
        self._pids: Callable[[], tuple[int, ...]] = tuple

    # ------------------------------------------------------------------ the engine's side
    def hold(self, kill: Callable[[], None], pids: Callable[[], tuple[int, ...]] = tuple) -> None:
        """Say how this engine is ended from another thread, and which processes it has.

        Parameters
        ----------
        kill : callable
            Returns once the engine's memory is given back, or once it is certain to be soon.
        pids : callable
            Its processes now.
        """
        with self._lock:
            self._kill, self._pids = kill, pids
            ended = self._ended.is_set()
        if ended:
            kill()

    def let_go(self) -> None:
        """Forget the engine: it is closed."""
        with self._lock:
            self._kill, self._pids = None, tuple

    def check(self) -> None:
        """Raise :class:`AbortedError` if the run was ended."""
        if self._ended.is_set():
            raise AbortedError("the run was aborted; what was measured before is stored")

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond the end.

        Raises
        ------
        AbortedError
            If the run was ended, before or meanwhile.
        """
        self._ended.wait(seconds)
        self.check()

    # ------------------------------------------------------------------ the other thread's side
    @property
    def is_ended(self) -> bool:
        """Whether :meth:`end` was called."""
        return self._ended.is_set()

    @property
    def pids(self) -> tuple[int, ...]:
        """Processes of the engine; none where it lives in this one, or there is none."""
        with self._lock:
            pids = self._pids
        return pids()

    def end(self) -> None:
        """End the engine, now; from any thread, any number of times."""
        self._ended.set()
        with self._lock:
            kill = self._kill
        if kill is not None:
            kill()
