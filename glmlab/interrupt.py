"""Ctrl-C: once to stop after the current trial, twice to stop at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Self


class StopOnInterrupt:
    """Context that turns the first SIGINT into a wish and the second into KeyboardInterrupt.

    Parameters
    ----------
    on_first : callable
        Called at the first, to tell the user.
    """

    def __init__(self, on_first: Callable[[], None]) -> None:
        self._on_first = on_first
        self._former: Any = None
        self.wanted = False

    def __enter__(self) -> Self:
        # Signals reach the main thread only; elsewhere the owner of the thread has its own ways.
        if threading.current_thread() is threading.main_thread():
            self._former = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        if self._former is not None:
            signal.signal(signal.SIGINT, self._former)

    def _handle(self, _number: int, _frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True
        self._on_first()
