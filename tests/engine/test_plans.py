"""A study over plans: tensor and pipeline parallel engines one after another, live knobs inside each."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from glmlab.progress import Silent
from glmlab.study import Study
from glmlab.trial_record import TrialRecord

pytestmark = [pytest.mark.engine, pytest.mark.timeout(600)]

SPEC = {
    "study": "plans",
    "recipe": "tiny-glm4-moe",
    "workload": {"contexts": [64], "batch_sizes": [1, 2], "new_tokens": 6},
    "space": {"tensor_parallel": [1, 2], "pipeline_parallel": [1, 2], "cpu_split_kv": [True, False]},
    "budget": {"trials": 8},
}


class Watch(Silent):
    """Keeps the records of trials as they end."""

    def __init__(self) -> None:
        self.trials: list[TrialRecord] = []

    def trial(self, record: TrialRecord, best: str, left_s: float | None) -> None:
        self.trials.append(record)


def engines() -> list[int]:
    """Processes below this one that an engine has."""
    return [
        child.pid
        for child in psutil.Process().children(recursive=True)
        if child.status() != psutil.STATUS_ZOMBIE and "VLLM" in " ".join(child.cmdline())
    ]


def test_a_study_over_plans_leaves_nothing_behind(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'studies.db'}"
    watch = Watch()
    study = Study(SPEC, url)
    # Six of eight trials: three plans, two live values in each; the verdict is another test's.
    study.run(progress=watch, stop=lambda: len(watch.trials) >= 6)
    assert engines() == []
    records = study.records()
    assert [record.reason for record in records if record.status != "complete"] == []
    plans = [(record.params["tensor_parallel"], record.params["pipeline_parallel"]) for record in records]
    assert len(set(plans)) == 3
    assert plans[0] == (1, 1)
    # Each plan is started once; its second value is had live.
    assert [record.cost.is_live for record in records] == [False, True] * 3
    assert all(record.same_tokens is not None and record.same_tokens > 0.5 for record in records)
    # What an all-reduce costs is kept for the plans that have one.
    times = study.store.all_reduce_times
    assert set(times) == {"tensor_parallel=2"}
    assert all(time.right for time in times["tensor_parallel=2"])
