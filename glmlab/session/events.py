"""What happened in a session, in order; each view reads on from where it was."""

from __future__ import annotations

import logging
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import dropwhile
from typing import Literal

from glmlab.errors import GlmlabError

EventKind = Literal["state", "message", "trial", "visit", "error"]

_log = logging.getLogger(__name__)
_KEPT = 20_000  # events; a study of 5,000 trials has half as many


@dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes
    ----------
    serial : int
        From 0, without gaps.
    unix_s : float
        When.
    kind : {"state", "message", "trial", "visit", "error"}
        Of what kind.
    text : str
        In words; a traceback is the only text with several lines.
    trial : int or None
        Number of the trial that it is about.
    """

    serial: int
    unix_s: float
    kind: EventKind
    text: str
    trial: int | None = None


class EventLog:
    """Events of one session; may be written and read from any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._events: deque[Event] = deque(maxlen=_KEPT)
        self._next = 0
        self._watchers: list[weakref.WeakMethod[Callable[[], object]]] = []

    def add(self, kind: EventKind, text: str, trial: int | None = None) -> None:
        """Append an event."""
        with self._guard:
            self._events.append(Event(self._next, time.time(), kind, text, trial))
            self._next += 1
            watchers = list(self._watchers) if kind == "state" else []
        for reference in watchers:
            if (watcher := reference()) is not None:
                try:
                    watcher()
                except Exception:  # noqa: BLE001 (a view's own affair: what happened has happened)
                    _log.exception("a view could not be told")

    def watch(self, watcher: Callable[[], object]) -> None:
        """Call a bound method, held weakly, after each change of state, in whichever thread makes it.

        It must return at once and take no lock that is held while a session is asked something.
        """
        with self._guard:
            self._watchers = [known for known in self._watchers if known() not in (None, watcher)]
            self._watchers.append(weakref.WeakMethod(watcher))

    def add_error(self, error: BaseException) -> None:
        """Append what went wrong: an engine's failure with the end of its log, a bug with its traceback."""
        text = "".join(traceback.format_exception(error))
        if isinstance(error, GlmlabError):
            text = f"{error}\n{getattr(error, 'log_tail', '')}"
        self.add("error", text.rstrip())

    def since(self, serial: int) -> tuple[tuple[Event, ...], int]:
        """Events from a serial number on, and the number to ask with next time.

        Of a very long session the oldest events are gone.
        """
        with self._guard:
            if serial >= self._next:
                return (), self._next
            return tuple(dropwhile(lambda event: event.serial < serial, self._events)), self._next
