"""What ships in data/recorded: readable, labelled, and good for a study without a GPU."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

from glmlab import Study
from glmlab.data_folders import data_folders
from glmlab.engines.replay import ReplayEngine
from glmlab.recorded import list_recordings, load_recording


@pytest.mark.parametrize("name", list_recordings())
def test_a_packaged_recording_says_where_it_comes_from(name: str) -> None:
    recording = load_recording(name)
    header = recording.header
    assert header.name == name
    assert header.gpus[0].name.startswith("NVIDIA")
    assert header.gpus[0].driver
    assert header.triton
    assert header.state.versions["vllm"]
    assert any("twin" in note for note in header.notes)
    # One that was cut off in its first round says so; no verdict can come of it.
    cut_off = any("one visit each" in note for note in header.notes)
    assert recording.fewest_visits >= (1 if cut_off else 2)
    assert all(visit.measurement.evidence == "measured" for visit in recording.visits)


@pytest.mark.parametrize("name", list_recordings())
def test_a_packaged_recording_can_be_replayed_by_its_name(name: str) -> None:
    """Some began after others, with live knobs that were moved by then."""
    with ReplayEngine(name) as engine:
        recording = engine.recording
        engine.apply(**next(point for point in recording.points if not recording.failure_of(point)))
        assert engine.measure(recording.header.workload).evidence == "replayed"


def test_there_are_some() -> None:
    assert len(list_recordings()) >= 3


@pytest.mark.parametrize("name", ["h100-glm-4.7-tp4-splits", "h100-glm-5.1-reap-160-tp4-splits"])
def test_device_time_repeats_between_visits_of_a_point(name: str) -> None:
    """The figure that decides between kernels: visits of one point differ by a percent or so."""
    recording = load_recording(name)
    spreads = []
    for point in recording.points:
        for context, batch in recording.header.workload.points:
            times = [
                statistics.median(visit.measurement.point(context, batch).device_step_ms or [])
                for visit in recording.visits_of(point)
            ]
            spreads.append(max(times) / min(times) - 1)
    assert statistics.median(spreads) < 0.01
    assert sorted(spreads)[int(0.9 * len(spreads))] < 0.03


def test_the_packaged_study_over_a_recording_comes_to_its_verdict(tmp_path: Path) -> None:
    file = next(
        path for folder in data_folders("studies") if (path := folder / "replay-kv-splits.yaml").is_file()
    )
    summary = Study(file, f"sqlite:///{tmp_path / 'study.db'}").run()
    assert summary.evidence == "replayed"
    assert summary.baseline is not None
    assert summary.baseline.params == {"kv_splits": 16}
    assert summary.best is not None
    assert summary.best.params == {"kv_splits": 256}
    assert summary.verdict is not None
    assert summary.verdict.outcome == "win"
    assert summary.verdict.high is not None
    assert summary.verdict.high < 0.6
    assert "replayed" in summary.verdict.reason
