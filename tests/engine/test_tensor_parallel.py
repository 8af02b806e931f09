"""Two tensor-parallel workers: both report, one that dies takes the engine with it, cleanly."""

from __future__ import annotations

import os
import re
import signal

import pytest

from glmlab import Workload
from glmlab.engines.child import ChildEngine
from glmlab.errors import EngineDiedError
from glmlab.recipe import Recipe
from tests.processes import wait_until_gone


def measure_until_it_fails(engine: ChildEngine, workload: Workload) -> None:
    for _ in range(100):
        engine.measure(workload)


def test_both_ranks_prove_what_they_have_and_a_dead_one_ends_it(recipe: Recipe, workload: Workload) -> None:
    engine = ChildEngine(recipe.replace(tensor_parallel=2))
    pids = engine.pids
    try:
        state = engine.state()
        assert state.knobs["tensor_parallel"] == 2
        assert sorted(worker.rank for worker in state.workers) == [0, 1]
        assert len({worker.pid for worker in state.workers}) == 2

        before = engine.measure(workload)
        engine.apply(cpu_split_kv=False, cpu_attn_isa="vec16", max_num_seqs=2)
        after = engine.measure(workload)
        for worker in engine.state().workers:
            assert worker.values == {"cpu_split_kv": False, "cpu_attn_isa": "vec16"}
            assert worker.used == worker.values
        assert before.same_tokens(after) > 0.9
        assert max(after.point(64, 4).step_tokens) == 2
        assert {memory.rank for memory in after.memory} == {0, 1}

        times = engine.all_reduce_times()
        assert {time.path for time in times} == {"vllm"}, "a CPU has one path"
        assert [time.bytes for time in times] == [1 << shift for shift in (10, 12, 14, 16, 18, 20)]
        assert all(time.right and time.ranks == 2 and time.wall_us > 0 for time in times)
        assert all(time.device_us is None for time in times)

        os.kill(state.workers[1].pid, signal.SIGKILL)
        with pytest.raises(EngineDiedError) as death:
            measure_until_it_fails(engine, workload)
        assert "\n" not in str(death.value)
        # vLLM itself says "cancelled"; of what, it knows only if the process is reaped when it looks.
        assert re.search("VllmWorker-1 (was killed by signal 9|died)", str(death.value))
    finally:
        engine.close()
    assert not wait_until_gone(pids)
