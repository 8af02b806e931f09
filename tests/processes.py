"""Are processes gone? Zombies count as gone: they hold nothing."""

from __future__ import annotations

import contextlib
import time

import psutil


def alive(pids: tuple[int, ...]) -> list[int]:
    """Those of some processes that still run."""
    running = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                running.append(pid)
    return running


def wait_until_gone(pids: tuple[int, ...], seconds: float = 20) -> list[int]:
    deadline = time.monotonic() + seconds
    while (left := alive(pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left
