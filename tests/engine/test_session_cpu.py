"""A session over the real engine: ended at any moment, it leaves nothing behind; in both homes."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from glmlab.session import Session, attach
from tests.processes import alive, wait_until_gone

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]

SPEC: dict[str, Any] = {
    "study": "live",
    "recipe": "tiny-glm4-moe",
    "workload": {"contexts": [128], "batch_sizes": [1], "new_tokens": 8},
    "space": {"max_num_seqs": [1, 2, 3, 4], "cpu_split_kv": [True, False]},
    "budget": {"trials": 6},
    "confirm": {"rounds": 3},
}


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def until(true: Callable[[], object], timeout_s: float = 200) -> None:
    deadline = time.monotonic() + timeout_s
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.01)


def test_aborted_while_its_engine_starts(url: str) -> None:
    session = Session(SPEC, url)
    session.start()
    until(lambda: session.engine_pids)
    pids = session.engine_pids
    time.sleep(1.0)  # well inside the start, which takes ten times that
    session.abort()
    until(lambda: not session.is_active)
    assert session.status.state == "aborted"
    assert not wait_until_gone(pids)
    assert session.records() == []


def test_aborted_in_a_trial_and_continued(url: str) -> None:
    work = {"contexts": [2000], "batch_sizes": [4], "new_tokens": 2000}  # long enough to be met in the middle
    session = Session({**SPEC, "workload": work, "budget": {"trials": 2}}, url)
    session.start()
    until(lambda: session.status.trial == 0)
    time.sleep(0.5)
    pids = session.engine_pids
    assert pids
    assert os.getpid() not in pids
    session.abort()
    until(lambda: not session.is_active)
    assert session.status.state == "aborted"
    assert not wait_until_gone(pids)
    assert [record.status for record in session.records()] == ["interrupted"]
    assert session.status.done == 0


def test_a_whole_session_paused_and_stopped_and_attached(url: str) -> None:
    session = Session(SPEC, url)
    session.start()
    until(lambda: session.status.trial == 0)
    session.pause()
    until(lambda: session.status.state == "paused")
    pids = session.engine_pids
    assert alive(pids)
    session.enqueue(max_num_seqs=3, cpu_split_kv=False)
    session.resume()
    until(lambda: session.status.done >= 2)
    assert session.records()[1].params == {"max_num_seqs": 3, "cpu_split_kv": False}
    assert session.engine_pids == pids, "one engine, before and after the pause"
    session.stop()
    session.wait()
    assert session.status.state in ("stopped", "finished")
    assert not wait_until_gone(pids)
    again = attach("live", url)
    assert again is session
    again.start()
    summary = again.wait()
    assert summary.verdict is not None
    assert summary.evidence == "measured"


def test_an_engine_in_this_process_is_aborted_at_its_next_step(url: str) -> None:
    work = {"contexts": [2000], "batch_sizes": [4], "new_tokens": 2000}
    session = Session({**SPEC, "workload": work, "home": "kernel"}, url)
    session.start()
    until(lambda: session.status.trial == 0)
    assert session.engine_pids == ()
    time.sleep(0.5)
    session.abort()
    until(lambda: not session.is_active)
    assert session.status.state == "aborted"
    assert [record.status for record in session.records()] == ["interrupted"]
    # What it held is free again: the next engine of this process starts.
    short = Session({**SPEC, "study": "next", "home": "kernel", "budget": {"trials": 2}}, url)
    short.start()
    assert short.wait().trials["complete"] == 2
