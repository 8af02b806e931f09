"""The two kinds of thread that views use."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Callable

import pytest

from glmlab.ticker import Ticker, Worker


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.002)


def glmlab_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("glmlab-t")]


def test_a_ticker_calls_until_it_is_stopped() -> None:
    calls: list[str] = []
    ticker = Ticker(lambda: calls.append(threading.current_thread().name), 0.001)
    ticker.start()
    ticker.start()
    until(lambda: len(calls) > 5)
    assert ticker.is_running
    ticker.stop(10)
    count = len(calls)
    time.sleep(0.05)
    assert len(calls) == count
    assert set(calls) == {"glmlab-ticker"}
    assert not ticker.is_running


def test_a_ticker_starts_again_and_never_twice_at_once() -> None:
    inside, most, calls = 0, 0, 0

    def call() -> None:
        nonlocal inside, most, calls
        inside += 1
        most = max(most, inside)
        time.sleep(0.005)
        inside -= 1
        calls += 1

    ticker = Ticker(call, 0.001)
    for _ in range(5):
        ticker.start()
        until(lambda seen=calls: calls > seen)  # type: ignore[misc]
        ticker.stop(10)
    assert most == 1


def test_a_slow_callback_makes_longer_pauses() -> None:
    spans: list[tuple[float, float]] = []

    def call() -> None:
        begin = time.perf_counter()
        time.sleep(0.02)
        spans.append((begin, time.perf_counter()))

    ticker = Ticker(call, 0.001)
    ticker.start()
    until(lambda: len(spans) > 5)
    ticker.stop(10)
    busy = sum(end - begin for begin, end in spans[:-1])
    whole = spans[-1][0] - spans[0][0]
    assert busy / whole < 0.25


def test_an_error_does_not_end_a_ticker(caplog: pytest.LogCaptureFixture) -> None:
    told: list[Exception] = []

    def broken() -> None:
        raise ValueError("no paint")

    ticker = Ticker(broken, 0.001, on_error=told.append)
    ticker.start()
    until(lambda: len(told) > 2)
    ticker.stop(10)
    with caplog.at_level(logging.ERROR):
        quiet = Ticker(broken, 0.001)
        quiet.start()
        until(lambda: "no paint" in caplog.text)
        quiet.stop(10)


def test_a_callback_may_stop_its_own_ticker() -> None:
    calls: list[int] = []

    def once() -> None:
        calls.append(1)
        ticker.stop(10)

    ticker = Ticker(once, 0.001)
    ticker.start()
    until(lambda: not ticker.is_running)
    time.sleep(0.02)
    assert calls == [1]


def test_a_worker_does_one_thing_after_another() -> None:
    worker, order = Worker("test"), []  # type: ignore[var-annotated]
    futures = [worker.submit(order.append, index) for index in range(20)]
    assert worker.submit(sum, [1, 2]).result(10) == 3
    assert [future.result(10) for future in futures] == [None] * 20
    assert order == list(range(20))
    worker.close()


def test_a_worker_hands_back_what_was_raised_and_goes_on() -> None:
    worker = Worker("test")
    with pytest.raises(ZeroDivisionError):
        worker.submit(lambda: 1 / 0).result(10)
    assert worker.submit(lambda: 1).result(10) == 1
    worker.close()


def test_closing_a_worker_cancels_what_has_not_begun() -> None:
    worker, begun, go = Worker("test"), threading.Event(), threading.Event()

    def wait() -> bool:
        begun.set()
        return go.wait(10)

    first = worker.submit(wait)
    assert begun.wait(10)
    second = worker.submit(lambda: 2)
    worker.close()
    go.set()
    assert first.result(10) is True
    assert second.cancelled()
    with pytest.raises(RuntimeError, match="closed"):
        worker.submit(lambda: 3)


def test_a_dropped_worker_ends_its_thread_and_holds_nothing() -> None:
    class Heavy:
        pass

    heavy, worker = Heavy(), Worker("test-dropped")
    seen = weakref.ref(heavy)
    worker.submit(id, heavy).result(10)
    del heavy
    until(lambda: gc.collect() >= 0 and seen() is None)
    del worker
    until(lambda: "glmlab-test-dropped" not in glmlab_threads())
