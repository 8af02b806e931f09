"""Several runs side by side on one GPU: ``GLMLAB_GPU_LOCK`` names a file that all of them know."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
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
def alone(gpu_lock: IO[str] | None) -> Iterator[None]:
    """The GPU to oneself, for what kernels are timed for: other runs have ended or wait, too."""
    if gpu_lock is None:
        yield
        return
    fcntl.flock(gpu_lock, fcntl.LOCK_EX)
    yield
    fcntl.flock(gpu_lock, fcntl.LOCK_SH)
