"""Who may end a child engine, and from where; the child is a stand-in."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Lock, RLock, Thread

import pytest

from glmlab.engines.child import ChildEngine
from glmlab.engines.handle import EngineHandle
from glmlab.engines.protocol import Channel


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[ChildEngine]:
    made = ChildEngine.__new__(ChildEngine)
    code = "import time; time.sleep(60)"
    made._process = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
    made._group, made._driver = made._process.pid, os.getpid()
    made._channel = Channel(socket.socketpair()[0])
    made._end, made._busy, made._killing = "", Lock(), RLock()
    made._handle, made.log_path = EngineHandle(), tmp_path / "engine.log"
    yield made
    made.kill()


def test_a_fork_of_the_driver_does_not_end_its_engine(engine: ChildEngine) -> None:
    fork = os.fork()
    if not fork:
        engine.kill("was dropped")
        os._exit(0)
    os.waitpid(fork, 0)
    assert engine._process.poll() is None
    engine.kill()
    assert engine._process.returncode is not None


def test_one_that_is_collected_while_a_hand_is_laid_on_another_does_not_hold_it(engine: ChildEngine) -> None:
    """Python may collect it in any line, those under the handle's own lock too."""

    def collected() -> None:
        with engine._handle._lock:
            engine.kill("was dropped without being closed")

    thread = Thread(target=collected, daemon=True)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
