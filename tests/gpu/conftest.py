"""Several runs side by side on one GPU: ``GLMLAB_GPU_LOCK`` names a file that all of them know."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import pytest


@pytest.fixture(scope="session", autouse=True)
def gpu_lock() -> Iterator[IO[str] | None]:
    """Shared with the other runs, from before the first engine starts."""
    path = os.environ.get("GLMLAB_GPU_LOCK")
    if not path:
        yield None
        return
    with Path(path).open("a", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield lock


@pytest.fixture
def alone(gpu_lock: IO[str] | None) -> Callable[[], AbstractContextManager[None]]:
    """``with alone():`` has the GPU to itself, for timing kernels: other runs have ended, or wait too."""

    @contextlib.contextmanager
    def meanwhile() -> Iterator[None]:
        if gpu_lock is None:
            yield
            return
        fcntl.flock(gpu_lock, fcntl.LOCK_EX)
        yield
        fcntl.flock(gpu_lock, fcntl.LOCK_SH)

    return meanwhile
