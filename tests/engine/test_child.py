"""The child home: same results as the kernel home, and whatever happens, nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glmlab import Workload, start
from glmlab.engines.child import ChildEngine
from glmlab.engines.vllm_engine import VllmEngine
from glmlab.errors import EngineDiedError, EngineError, EngineStartError, KnobError
from glmlab.recipe import Recipe
from tests.processes import alive, wait_until_gone


@pytest.fixture(scope="module")
def engine(recipe: Recipe) -> Iterator[ChildEngine]:
    with ChildEngine(recipe) as running:
        yield running
        pids = running.pids
    assert not alive(pids)
    running.close()  # a second time does nothing
    with pytest.raises(EngineError, match="the engine is closed"):
        running.state()


def test_it_does_what_the_kernel_home_does(engine: ChildEngine, recipe: Recipe, workload: Workload) -> None:
    report = engine.apply(cpu_split_kv=False, max_num_seqs=3)
    assert report.changed == {"cpu_split_kv": (True, False), "max_num_seqs": (8, 3)}
    theirs, their_knobs = engine.measure(workload), engine.knobs()
    with VllmEngine(recipe) as kernel:
        kernel.apply(cpu_split_kv=False, max_num_seqs=3)
        ours, our_knobs = kernel.measure(workload), kernel.knobs()
    assert theirs.same_tokens(ours) == 1
    assert their_knobs == our_knobs
    assert [p.step_tokens for p in theirs.points] == [p.step_tokens for p in ours.points]


def test_its_pid_is_not_ours_and_its_state_comes_from_it(engine: ChildEngine) -> None:
    state = engine.state()
    assert engine.pid != os.getpid()
    assert state.workers[0].pid == engine.pid
    assert state.versions["device"] == "cpu"


def test_errors_come_back_as_what_they_are(engine: ChildEngine) -> None:
    with pytest.raises(KnobError, match="block_size: needs a new engine"):
        engine.apply(block_size=64)
    with pytest.raises(EngineError, match="max_model_len"):
        engine.measure(Workload(contexts=(5000,)))
    assert engine.state().kv_tokens > 0


def test_a_killed_child_is_reported_with_its_signal_and_log(recipe: Recipe) -> None:
    engine = ChildEngine(recipe)
    pids = engine.pids
    os.kill(engine.pid, signal.SIGKILL)
    with pytest.raises(EngineDiedError, match=r"died by SIGKILL during 'state'.*log: ") as death:
        engine.state()
    assert "\n" not in str(death.value)
    assert death.value.log_tail
    assert not wait_until_gone(pids)
    engine.close()


def test_a_hung_child_is_found_out_and_killed(recipe: Recipe) -> None:
    engine = ChildEngine(recipe)
    engine._beat_timeout_s = 3  # from here on: on a busy machine a start may hold its breath for as long
    pids = engine.pids
    os.kill(engine.pid, signal.SIGSTOP)
    with pytest.raises(EngineDiedError, match="no sign of life for 3 s and was killed"):
        engine.state()
    assert not wait_until_gone(pids)


def test_a_start_that_takes_too_long_is_ended(recipe: Recipe) -> None:
    with pytest.raises(EngineStartError, match=r"start: .*did not finish 'start' within 1 s"):
        ChildEngine(recipe, start_timeout_s=1)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"engine_args": {"no_such_argument": 1}}, "engine_args.no_such_argument"),
        ({"attention_backend": "NO_SUCH"}, "NO_SUCH"),
        ({"block_size": 7}, "7"),
    ],
)
def test_what_vllm_refuses_comes_back_in_one_line(recipe: Recipe, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(Exception, match=says) as refusal:
        start(recipe.replace(**changes), home="child")
    assert type(refusal.value).__name__ in {"EngineStartError", "RecipeError"}
    assert "\n" not in str(refusal.value)


def test_what_vllm_silently_changes_is_no_start(recipe: Recipe) -> None:
    """CPU MLA forces blocks of 16; an engine that runs something else than asked is no answer."""
    asked = recipe.replace(model="tiny/glm4-moe-lite", prefix_caching=False, block_size=32)
    with pytest.raises(EngineStartError, match="block_size: the recipe asks for 32, but vLLM runs 16"):
        start(asked, home="child")


def test_a_driver_that_is_killed_takes_its_child_along(tmp_path: Path) -> None:
    script = tmp_path / "driver.py"
    script.write_text(
        "import glmlab, time\n"
        "engine = glmlab.start('tiny-glm4-moe')\n"
        "print(*engine.pids, flush=True)\n"
        "time.sleep(600)\n"
    )
    driver = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    try:
        assert driver.stdout is not None
        pids = tuple(int(pid) for pid in driver.stdout.readline().split())
        assert pids
        assert alive(pids)
    finally:
        driver.kill()
        driver.wait()
    assert not wait_until_gone(pids)


def test_a_dropped_engine_leaves_nothing(recipe: Recipe) -> None:
    engine = ChildEngine(recipe)
    pids = engine.pids
    del engine
    assert not wait_until_gone(pids)
