"""What of an engine's log is worth a place in a message."""

from __future__ import annotations

from pathlib import Path

import pytest

from glmlab.engines.engine_log import problem_line, worker_death

WATCHDOG = (
    "[rank0]:[E1125 03:20:18.088035772 ProcessGroupNCCL.cpp:2119] [PG ID 8 PG GUID 25(pp_broadcast) Rank 0]"
    " Process group watchdog thread terminated with exception: CUDA error: operation not supported on"
    " global/shared address space"
)
DEAD = (
    "(MainProcess pid=1060) ERROR 11-25 03:20:18 [multiproc_executor.py:315] Worker proc VllmWorker-0 died"
    " unexpectedly (exit code: {code}), shutting down executor."
)
CANCELLED = 'Traceback (most recent call last):\n    raise RuntimeError("cancelled")\nRuntimeError: cancelled'


def log(folder: Path, *lines: str) -> Path:
    path = folder / "engine.log"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (
            [WATCHDOG, DEAD.format(code=None), CANCELLED],
            "VllmWorker-0 died: CUDA error: operation not supported on global/shared address space",
        ),
        ([DEAD.format(code=-9), CANCELLED], "VllmWorker-0 was killed by signal 9"),
        # What the survivor says afterwards is no cause, nor is what went before a kill.
        ([DEAD.format(code=1), "NCCL error: remote process exited"], "VllmWorker-0 died with exit code 1"),
        (["CUDA error: invalid argument", DEAD.format(code=-9)], "VllmWorker-0 was killed by signal 9"),
        (["CUDA error: long ago", *["..."] * 60, DEAD.format(code=1)], "VllmWorker-0 died with exit code 1"),
        (["CUDA out of memory, trying less", DEAD.format(code=1)], "VllmWorker-0 died with exit code 1"),
        ([CANCELLED], ""),
        # An error of the device that nobody died of is another story.
        (["CUDA error: invalid argument"], ""),
    ],
)
def test_who_died_and_of_what(tmp_path: Path, lines: list[str], expected: str) -> None:
    assert worker_death(log(tmp_path, *lines)) == expected


def test_the_first_to_die_is_told_with_the_first_cause(tmp_path: Path) -> None:
    second = DEAD.format(code=1).replace("VllmWorker-0", "VllmWorker-1")
    found = worker_death(log(tmp_path, WATCHDOG, DEAD.format(code=None), "NCCL error: remote exit", second))
    assert found.startswith("VllmWorker-0 died: CUDA error")


def test_an_engine_before_it_in_the_same_log_died_its_own_death(tmp_path: Path) -> None:
    path = log(tmp_path, DEAD.format(code=1))
    begin = path.stat().st_size
    with path.open("a", encoding="utf-8") as more:
        more.write(CANCELLED + "\n")
    assert worker_death(path) != ""
    assert worker_death(path, begin) == ""


def test_a_log_that_is_gone_tells_nothing(tmp_path: Path) -> None:
    gone = tmp_path / "none.log"
    assert (worker_death(gone), problem_line(gone)) == ("", "")
