"""Stacks of processes that are asked where they are."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from glmlab.engines.stacks import Stack, collect_stacks
from glmlab.live.stack_dump import STACKS_VARIABLE

STUCK = """
import threading, time
from glmlab.live.stack_dump import answer_with_stacks
answer_with_stacks()
answer_with_stacks()
threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
def waits_for_ever():
    print("ready", flush=True)
    time.sleep(60)
waits_for_ever()
"""


@pytest.fixture
def stuck(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(
        [sys.executable, "-c", STUCK],
        env={**os.environ, STACKS_VARIABLE: str(tmp_path)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    yield process
    process.kill()
    process.wait()


def test_a_process_says_where_its_main_thread_is(stuck: subprocess.Popen[bytes], tmp_path: Path) -> None:
    for _ in range(2):  # each time anew
        (stack,) = collect_stacks([stuck.pid], tmp_path)
        assert stack.frames[0].startswith("waits_for_ever (<string>:")
        assert stack.where == f"in {stack.frames[0]}"
    assert stuck.poll() is None


def test_one_that_is_stopped_does_not_answer(stuck: subprocess.Popen[bytes], tmp_path: Path) -> None:
    os.kill(stuck.pid, 19)
    begin = time.monotonic()
    (stack,) = collect_stacks([stuck.pid], tmp_path)
    assert stack.where == "does not answer"
    assert time.monotonic() - begin < 30


def test_one_without_a_handler_is_not_asked(tmp_path: Path) -> None:
    """The signal would end it."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as process:
        assert collect_stacks([process.pid, 2**22 + 1], tmp_path) == []
        assert process.poll() is None
        process.kill()


def test_a_worker_that_waits_for_work_is_not_taken_for_the_one_that_hangs() -> None:
    idle = Stack(
        1, "W0", ("poll (poll.py:1)", "dequeue (shm.py:2)", "worker_busy_loop (m.py:3)", "main (m.py:4)")
    )
    busy = Stack(2, "W1", ("all_reduce (nccl.py:1)", "execute_model (r.py:2)", "worker_busy_loop (m.py:3)"))
    assert idle.where == "waits for its next call"
    assert busy.where == "in all_reduce (nccl.py:1)"
    assert str(busy).splitlines()[1] == "  from execute_model (r.py:2)"


def test_one_that_cannot_write_its_file_runs_all_the_same(tmp_path: Path) -> None:
    """A folder that is gone, a full disk: nobody asks it then."""
    code = (
        "from glmlab.live.stack_dump import answer_with_stacks as a; a(); a(); import os, signal;"
        "assert signal.getsignal(signal.SIGUSR1) == signal.SIG_DFL"
    )
    environment = {**os.environ, STACKS_VARIABLE: str(tmp_path / "gone")}
    assert subprocess.run([sys.executable, "-c", code], env=environment, check=False).returncode == 0


def test_its_file_is_there_only_when_it_would_answer(tmp_path: Path) -> None:
    code = (
        "import faulthandler, os; from glmlab.live import stack_dump as s\n"
        "folder = os.environ[s.STACKS_VARIABLE]\n"
        "def register(*_, **__): assert not os.path.exists(f'{folder}/{os.getpid()}.txt')\n"
        "faulthandler.register = register\n"
        "s.answer_with_stacks(); print(*os.listdir(folder), os.getpid())"
    )
    environment = {**os.environ, STACKS_VARIABLE: str(tmp_path)}
    said = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    name, pid = said.stdout.split()
    assert name == f"{pid}.txt"
