"""Ranks that hang: noticed, named with where each of them is, and killed."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from glmlab import Workload
from glmlab.engines.child import ChildEngine
from glmlab.errors import EngineDiedError
from glmlab.recipe import Recipe
from tests.processes import wait_until_gone

pytestmark = [pytest.mark.engine, pytest.mark.timeout(300)]


def test_a_rank_that_hangs_is_named(recipe: Recipe, workload: Workload, tmp_path: Path) -> None:
    log = tmp_path / "engine.log"
    engine = ChildEngine(recipe.replace(tensor_parallel=2), step_timeout_s=5, log_path=log)
    pids = engine.pids
    try:
        engine.measure(workload)
        stopped = engine.state().workers[1].pid
        os.kill(stopped, signal.SIGSTOP)
        begin = time.monotonic()
        with pytest.raises(EngineDiedError) as death:
            engine.measure(workload)
        assert time.monotonic() - begin < 120
    finally:
        engine.close()
    message = str(death.value)
    assert "\n" not in message
    assert "did not finish a step within 5 s and was killed" in message
    assert "VLLM::Worker_TP1 does not answer" in message
    assert "VLLM::Worker_TP0 waits for its next call" in message
    assert "engine in " in message, "who waits for the rank says where"
    assert f"(process {stopped}) does not answer" in death.value.log_tail
    assert "glmlab: the engine did not finish a step" in log.read_text()
    assert not wait_until_gone(pids)
    assert not log.with_suffix(".stacks").exists()
