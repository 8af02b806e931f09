"""Painter: one thread for all that is drawn of a session, at most four times a second.

It looks whether something happened and lets each part paint what changed of it. It ends by itself after the
session has, when its parts are gone, or when it is closed; whoever starts a session wakes its painters.
"""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Callable

from glmlab.errors import GlmlabError
from glmlab.session import Session, SessionState
from glmlab.ticker import Ticker

INTERVAL_S = 0.25
_LOOK_S = 5.0  # between two looks at a study that another process runs
# What may still change without anybody clicking here: a cell may start a new session.
_WATCHED = {SessionState.NEW, SessionState.ELSEWHERE}

_alive: weakref.WeakSet[Painter] = weakref.WeakSet()


class Painter:
    """Paints the parts of one display.

    Parameters
    ----------
    on_error : callable
        Gets what a part raised, once for each text; other parts are painted all the same.
    """

    def __init__(self, on_error: Callable[[Exception], object]) -> None:
        self._parts: list[weakref.WeakMethod[Callable[[], object]]] = []
        # Weak like the parts: a display that nobody has is not kept by its own thread.
        self._on_error: weakref.WeakMethod[Callable[[Exception], object]] = weakref.WeakMethod(on_error)
        self._session: Session | None = None
        self._guard = threading.Lock()
        self._is_closed = self._is_woken = False
        self._looked_s = 0.0
        self._told = ""
        me = weakref.ref(self)
        self._ticker = Ticker(lambda: _tick(me), INTERVAL_S)
        _alive.add(self)

    def add(self, part: Callable[[], object]) -> None:
        """Paint this too: a bound method, held weakly, which paints what changed since its last call."""
        self._parts.append(weakref.WeakMethod(part))

    @property
    def session(self) -> Session | None:
        """Whose state is painted."""
        return self._session

    @session.setter
    def session(self, session: Session | None) -> None:
        self._session = session
        self._told = ""
        if session is not None:
            session.watch(self.wake)  # a cell, too, may start it again
        self.wake()

    @property
    def is_running(self) -> bool:
        """Whether its thread is there."""
        return self._ticker.is_running

    def wake(self) -> bool:
        """Paint soon, in its own thread, and go on as long as the session does; whether it will."""
        with self._guard:
            if self._session is None or self._is_closed:
                return False
            self._is_woken = True
            self._ticker.start()
            return True

    def close(self) -> None:
        """Paint no more."""
        with self._guard:
            self._is_closed = True
            self._ticker.stop()

    def paint(self) -> None:
        """Paint every part once, in the calling thread."""
        for reference in self._parts:
            part = reference()
            if part is None:
                continue
            try:
                part()
            except Exception as error:  # noqa: BLE001 (shown where the user looks; the next paint comes)
                self._tell(error)

    def _tell(self, error: Exception) -> None:
        show = self._on_error()
        if show is not None and self._told != str(error):
            self._told = str(error)
            show(error)

    def _ended(self) -> bool:
        """Whether nothing more can happen; asked before a paint, so that the last one shows the end."""
        if self._session is None or all(part() is None for part in self._parts):
            return True
        state = self._session.state  # without its lock, which may be held by whoever wakes us
        return not state.is_active and state not in _WATCHED

    def _look(self) -> None:
        """Read what another process has done meanwhile."""
        session = self._session
        now = time.monotonic()
        if session is None or session.state is not SessionState.ELSEWHERE:
            return
        if now - self._looked_s >= _LOOK_S:
            self._looked_s = now
            try:
                session.refresh()
            except GlmlabError as error:
                self._tell(error)

    def _tick(self) -> None:
        with self._guard:
            self._is_woken = False
        self._look()
        ended = self._ended()
        self.paint()
        if ended:
            with self._guard:
                # Somebody may have started it again in the meantime, or changed what was painted already.
                if self._ended() and not self._is_woken:
                    self._ticker.stop()

    def __del__(self) -> None:
        self._ticker.stop()


def _tick(painter: weakref.ref[Painter]) -> None:
    found = painter()
    if found is not None:
        found._tick()


def wake(session: Session) -> None:
    """Wake all painters of a session: it has been started."""
    for painter in tuple(_alive):
        if painter.session is session:
            painter.wake()
