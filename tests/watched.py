"""What tests of widgets need: trials that wait for the test, clicks, and patience instead of sleep."""

from __future__ import annotations

import html
import re
import threading
import time
from collections.abc import Callable
from typing import Any

from tests.doubles import Knobs


class Gate:
    """A latency that lets measurements through one by one, so that a test knows what is under way."""

    def __init__(self, latency: Callable[[Knobs], Any]) -> None:
        self._latency = latency
        self._through = threading.Semaphore(0)
        self.waiting = 0

    def __call__(self, knobs: Knobs) -> float:
        self.waiting += 1
        try:
            assert self._through.acquire(timeout=120)
        finally:
            self.waiting -= 1
        return float(self._latency(knobs))

    def open(self, count: int = 1) -> None:
        self._through.release(count)


def until(true: Callable[[], object], what: str = "it") -> None:
    """Wait until something holds; how long that takes is the machine's business."""
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline, f"{what} did not come to that"
        time.sleep(0.005)


def words(widget: Any) -> str:
    """What a widget of HTML says, without its tags."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", widget.value)).split())


def threads(name: str = "glmlab") -> list[str]:
    """glmlab's own threads that are alive."""
    return sorted(thread.name for thread in threading.enumerate() if thread.name.startswith(name))
