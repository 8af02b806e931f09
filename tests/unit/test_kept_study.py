"""The study of plans that was run on two H100 and is kept: what docs/h100-plans.md says of it holds."""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

import pytest
from rich.console import Console

from glmlab import predicted_beside_measured, render
from glmlab.plans.beside_measured import PredictedBesideMeasured
from glmlab.storage import StudyStore
from glmlab.study_spec import StudySpec
from glmlab.summary import summarize
from glmlab.units import format_ms
from tests.studies import ROOT

KEPT = ROOT / "benchmarks" / "results" / "h100-plans.db"
NAME = "h100-plans-glm-4.7"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> StudyStore:
    copy = Path(shutil.copy(KEPT, tmp_path_factory.mktemp("kept")))
    return StudyStore.load(NAME, f"sqlite:///{copy}")


@pytest.fixture(scope="module")
def found(store: StudyStore) -> PredictedBesideMeasured:
    return predicted_beside_measured(store)


def test_it_is_the_study_of_the_file_beside_it(store: StudyStore) -> None:
    spec = StudySpec.load(ROOT / "benchmarks" / "studies" / f"{NAME}.yaml")
    assert spec.base_recipe.fingerprint == store.parsed_spec.base_recipe.fingerprint
    assert spec.effective_workload == store.parsed_spec.effective_workload
    assert spec.space == store.parsed_spec.space


def test_the_best_plan_was_predicted_first(found: PredictedBesideMeasured) -> None:
    ranks = {each.label: (each.measured_rank, each.predicted_rank) for each in found.plans}
    assert ranks == {"TP2": (1, 1), "TP2 + EP": (2, 2), "TP1": (3, 3), "PP2": (4, 4)}


def test_times_without_a_pipeline_are_as_close_as_the_docs_say(found: PredictedBesideMeasured) -> None:
    points = [
        point
        for each in found.plans
        if each.label != "PP2"
        for trial in each.trials
        for point in trial.points
        if point.batch >= 8
    ]
    ratios = [abs(point.ratio - 1) for point in points if point.ratio is not None]
    assert len(ratios) == 24
    assert all(point.is_inside for point in points)
    assert statistics.median(ratios) < 0.015
    assert max(ratios) < 0.08


def test_measured_all_reduces_were_used(found: PredictedBesideMeasured) -> None:
    assert any("all-reduces of 2 ranks as they were measured" in note for note in found.notes)
    assert any("8 of the model's layers" in note for note in found.notes)
    assert any(note.startswith("PP2: vLLM's V1 runner") for note in found.notes)


def test_what_the_objective_sees_otherwise_is_told(found: PredictedBesideMeasured) -> None:
    """Its tokens per second have the first tokens in them, ranks have not."""
    assert any("by the study's objective, tokens_per_s, #17 of TP2 + EP is best" in n for n in found.notes)


def test_empty_steps_of_a_pipeline_are_no_steps_of_its_device_time(found: PredictedBesideMeasured) -> None:
    [pipeline] = (each for each in found.plans if each.label == "PP2")
    assert pipeline.best is not None
    longest = pipeline.best.points[-1]
    assert (longest.context, longest.batch) == (16_384, 32)
    assert longest.device_ms == pytest.approx(21.3, abs=0.5), "half of it before they were left out"


def test_a_trial_has_one_time_per_token_wherever_it_is_shown(store: StudyStore) -> None:
    """Batch 1 and batch 32 differ: a median over all tokens is another number than the mean of points."""
    summary, records = summarize(store), store.records()
    workload = store.parsed_spec.effective_workload
    assert summary.baseline is not None
    told = format_ms(summary.baseline.tpot_ms)
    assert records[0].measurement is not None
    gaps = [gap for point in records[0].measurement.points for gap in point.token_gap_ms]
    assert told != format_ms(statistics.median(gaps))
    assert format_ms(records[0].metrics(workload)["tpot_ms"]) == told
    # In the notebook's table of trials; in the terminal's, and in its result.
    assert summary._repr_html_().count(f">{told}<") == 1
    console = Console(width=200, highlight=False)
    with console.capture() as captured:
        console.print(render.study(summary, records, workload))
    assert captured.get().count(told) == 2
