"""Ticker and Worker: the two kinds of thread that a view needs, one that looks and one that works."""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")
_log = logging.getLogger(__name__)
_LARGEST_SHARE = 0.2  # of the time that ticks may take: the kernel is there for the user


def _logged(error: Exception) -> None:
    _log.error("a tick failed", exc_info=error)


class Ticker:
    """Calls a function again and again in a thread of its own, never twice at once.

    A call that takes long makes the pause after it longer, so that all calls together take at most a fifth
    of the time.

    Parameters
    ----------
    callback : callable
        What to call.
    interval_s : float
        From the start of one call to that of the next, at least.
    on_error : callable, optional
        Gets what a call raised; the next one comes all the same. Logged by default.
    """

    def __init__(
        self,
        callback: Callable[[], object],
        interval_s: float = 0.25,
        *,
        on_error: Callable[[Exception], object] = _logged,
    ) -> None:
        self._callback, self._interval_s, self._on_error = callback, interval_s, on_error
        self._guard = threading.Lock()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def is_running(self) -> bool:
        """Whether calls still come."""
        thread = self._thread
        return thread is not None and thread.is_alive() and not self._ended.is_set()

    def start(self) -> None:
        """Begin, unless it runs already."""
        with self._guard:
            if self.is_running:
                return
            self._ended = threading.Event()
            self._thread = threading.Thread(
                target=self._tick, args=(self._ended,), name="glmlab-ticker", daemon=True
            )
            self._thread.start()

    def stop(self, timeout_s: float = 0.0) -> None:
        """End after the call that may be under way; a callback may stop its own ticker.

        Parameters
        ----------
        timeout_s : float
            How long to wait for that.
        """
        self._ended.set()
        thread = self._thread
        if timeout_s and thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)

    def _tick(self, ended: threading.Event) -> None:
        while not ended.is_set():
            begin = time.perf_counter()
            try:
                self._callback()
            except Exception as error:  # noqa: BLE001 (whatever a view does wrong, the next paint comes)
                self._on_error(error)
            took_s = time.perf_counter() - begin
            ended.wait(max(self._interval_s - took_s, took_s * (1 / _LARGEST_SHARE - 1)))


class Worker:
    """One thread that does what it is given, one thing after another: all of an engine's calls.

    Unlike those of :mod:`concurrent.futures` it does not keep an ending process waiting.

    Parameters
    ----------
    name : str
        Of the thread.
    """

    def __init__(self, name: str) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = False
        self._pending: set[Future[Any]] = set()
        threading.Thread(target=_work_off, args=(self._work,), name=f"glmlab-{name}", daemon=True).start()

    def submit(self, work: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Do something in the background.

        Returns
        -------
        Future
            With its result or what it raised; callbacks run in the worker's thread.
        """
        if self._closed:
            raise RuntimeError("the worker is closed")
        future: Future[_T] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = work(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 (whoever waits for it gets it)
                future.set_exception(error)
            else:
                future.set_result(result)

        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        self._work.put(run)
        return future

    def close(self) -> None:
        """Take no more work; what has not begun is cancelled."""
        self._closed = True
        for future in tuple(self._pending):
            future.cancel()
        self._work.put(None)

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            self.close()


def _work_off(work: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    """The thread of a worker; it holds the queue only, so that a dropped worker ends it."""
    while (run := work.get()) is not None:
        run()
        del run  # or it would live until the next one comes, with all that it holds
