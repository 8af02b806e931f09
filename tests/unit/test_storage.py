"""Storage: real files, real Optuna; several processes where it matters."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import optuna
import pytest

from glmlab.errors import StorageError
from glmlab.knobs import Params
from glmlab.measurement import SCHEMA, Measurement, PointMeasurement
from glmlab.storage import StudyStore, check_writable, study_names
from glmlab.study_lock import study_lock
from glmlab.study_spec import StudySpec
from glmlab.trial_record import TrialCost, TrialRecord, Visit

SPEC = StudySpec.parse(
    {
        "study": "unit",
        "recipe": {"name": "unit", "model": "tiny/glm4-moe", "block_size": 32},
        "space": {
            "cpu_split_kv": [True, False],
            "max_num_seqs": {"low": 1, "high": 16},
            "block_size": [32, 64],
        },
    }
)
POINT: Params = {"cpu_split_kv": False, "max_num_seqs": 7, "block_size": 64}


def a_measurement() -> Measurement:
    return Measurement(
        evidence="simulated",
        points=[
            PointMeasurement(
                context=64, batch=1, wall_step_ms=[1.5, 2.0], step_tokens=[1, 1], token_gap_ms=[2.0],
                ttft_ms=[1.5], cached_tokens=[64], warmup_ms=3.0, warmup_ttft_ms=[1.5],
                warmup_cached_tokens=[0], elapsed_ms=3.5, tokens=[[5, 6]],
            )
        ],
        started_unix_s=1.0,
        duration_s=0.1,
    )  # fmt: skip


def complete(**changes: Any) -> TrialRecord:
    fields: dict[str, Any] = {
        "status": "complete",
        "params": POINT,
        "values": (2.0,),
        "measurement": a_measurement(),
        "cost": TrialCost(apply_s=0.01, measure_s=0.2),
        "violations": {"kv_tokens": -5.0},
        "constraint_values": {"kv_tokens": 205.0},
        "same_tokens": 0.5,
    }
    return TrialRecord(**{**fields, **changes})


@pytest.fixture(params=["sqlite", "journal"])
def url(request, tmp_path):
    return (
        f"sqlite:///{tmp_path}/studies.db"
        if request.param == "sqlite"
        else f"journal://{tmp_path}/studies.log"
    )


@pytest.fixture
def store(url):
    return StudyStore.create(SPEC, url, directions=["minimize"])


def reopened(store: StudyStore) -> StudyStore:
    return StudyStore.load(store.name, store.url)


def one_line(error: pytest.ExceptionInfo[StorageError]) -> str:
    message = str(error.value)
    assert "\n" not in message
    return message


# ------------------------------------------------------------------------------ opening
def test_a_study_that_was_created_can_be_opened_and_says_what_it_is(store):
    again = reopened(store)
    assert again.name == "unit"
    assert again.identity == SPEC.identity()
    assert again.recipe == {"name": "unit", "model": "tiny/glm4-moe", "block_size": 32}
    assert StudySpec.parse(again.spec).identity() == SPEC.identity()
    assert study_names(store.url) == ["unit"]


def test_opening_what_is_not_there_gives_nothing_and_makes_no_file(url, tmp_path):
    assert StudyStore.open("unit", url) is None
    assert list(tmp_path.iterdir()) == []


def test_loading_without_a_storage_says_how_to_get_one(url):
    with pytest.raises(StorageError, match="does not exist; run `glmlab tune` first"):
        StudyStore.load("unit", url)


def test_loading_a_misspelt_study_names_the_nearest(store):
    with pytest.raises(StorageError, match=r"study 'unti': not in .*; did you mean unit"):
        StudyStore.load("unti", store.url)


def test_a_study_of_a_newer_schema_is_refused(store):
    store.optuna_study.set_user_attr("glmlab:schema", SCHEMA + 1)
    with pytest.raises(StorageError) as error:
        reopened(store)
    assert one_line(error).endswith(
        f"has schema {SCHEMA + 1}, this glmlab reads up to {SCHEMA}; upgrade glmlab"
    )


def test_somebody_elses_study_is_refused(tmp_path):
    url = f"sqlite:///{tmp_path}/studies.db"
    optuna.create_study(study_name="theirs", storage=url).ask()
    with pytest.raises(StorageError) as error:
        StudyStore.open("theirs", url)
    assert "was not made by glmlab; choose another name or storage" in one_line(error)


def test_a_study_that_was_killed_in_the_making_can_be_run_again(url, monkeypatch):
    def killed(self, key, value):
        raise SystemExit(9)

    with monkeypatch.context() as patch:
        patch.setattr(StudyStore, "_set", killed)
        with pytest.raises(SystemExit):
            StudyStore.create(SPEC, url, directions=["minimize"])
    store = StudyStore.open("unit", url) or StudyStore.create(SPEC, url, directions=["minimize"])
    assert store.identity == SPEC.identity()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("studies", "is no URL; for example sqlite:///studies.db"),
        ("", "is no URL"),
        ("sqlite://", "is in memory"),
        ("sqlite:///:memory:", "is in memory"),
        ("nosuchdatabase://host/studies", "cannot be used"),
    ],
)
def test_a_url_that_cannot_be_is_refused_in_one_line(url, said):
    with pytest.raises(StorageError) as error:
        StudyStore.open("unit", url)
    assert said in one_line(error)


@pytest.mark.parametrize("scheme", ["sqlite:///", "journal://"])
@pytest.mark.parametrize("place", ["missing/studies", "file/studies"])
def test_a_place_that_cannot_be_written_is_refused_before_anything_is_paid_for(tmp_path, scheme, place):
    (tmp_path / "file").write_text("not a folder", encoding="utf-8")
    with pytest.raises(StorageError) as error:
        check_writable(f"{scheme}{tmp_path}/{place}")
    assert one_line(error).endswith("does not exist; make it first")


@pytest.mark.parametrize("scheme", ["sqlite:///", "journal://"])
def test_a_file_that_is_no_storage_is_refused_in_one_line(tmp_path, scheme):
    (tmp_path / "notes.txt").write_text("dear diary,\nnothing today\n", encoding="utf-8")
    with pytest.raises(StorageError) as error:
        StudyStore.open("unit", f"{scheme}{tmp_path}/notes.txt")
    assert "cannot be used" in one_line(error)


@pytest.mark.parametrize("scheme", ["sqlite:///", "journal://"])
def test_a_folder_is_no_storage(tmp_path, scheme):
    with pytest.raises(StorageError) as error:
        StudyStore.open("unit", f"{scheme}{tmp_path}")
    assert "cannot be used" in one_line(error)


# ------------------------------------------------------------------------------ the lock
HOLDER = """
import sys
from glmlab.study_lock import study_lock

with study_lock(sys.argv[1], sys.argv[2]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def held(url):
    """The lock of study "unit", held by another process that ends when it is killed."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, "unit", url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


def test_a_study_that_another_process_runs_is_refused_in_one_line(url, held):
    with pytest.raises(StorageError) as error, study_lock("unit", url):
        pass
    assert "another run holds it" in one_line(error)


def test_another_study_of_the_same_storage_may_run_meanwhile(url, held):
    with study_lock("other", url):
        pass


def test_a_lock_goes_with_its_process_however_that_ends(url, held):
    held.kill()
    held.wait()
    with study_lock("unit", url):
        pass


def test_a_lock_can_be_taken_again_after_an_error(url):
    with pytest.raises(ValueError, match="inside"), study_lock("unit", url):
        raise ValueError("inside")
    with study_lock("unit", url):
        pass


# ------------------------------------------------------------------------------ trials
def test_a_record_comes_back_as_it_was_stored(store):
    stored = store.finish(store.begin(POINT, SPEC.knob_space), complete())
    assert stored == complete(number=0)
    assert reopened(store).records() == [stored]


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("failed", optuna.trial.TrialState.FAIL),
        ("blocked", optuna.trial.TrialState.PRUNED),
        ("interrupted", optuna.trial.TrialState.FAIL),
    ],
)
def test_what_is_not_complete_is_kept_with_its_reason_for_us_and_for_dashboards(store, status, state):
    record = TrialRecord(status=status, reason="because", log_tail="a\nb", params=POINT)
    store.finish(store.begin(POINT, SPEC.knob_space), record)
    again = reopened(store)
    assert again.records() == [record.model_copy(update={"number": 0})]
    trial = again.optuna_study.trials[0]
    assert (trial.state, trial.user_attrs["reason"], trial.params) == (state, "because", POINT)


def test_a_dashboard_sees_values_parameters_metric_names_and_constraints(store):
    store.finish(store.begin(POINT, SPEC.knob_space), complete())
    study = optuna.load_study(study_name="unit", storage=reopened(store).optuna_study._storage)
    assert study.metric_names == ["tpot_ms"]
    assert (study.best_trial.value, study.best_params) == (2.0, POINT)
    assert study.best_trial.constraints == {"kv_tokens": -5.0}


def test_true_and_one_stay_what_they_were(store):
    point = {"cpu_split_kv": True, "max_num_seqs": 1, "block_size": 32}
    store.finish(store.begin(point, SPEC.knob_space), complete(params=point))
    params = reopened(store).records()[0].params
    assert [type(value) for value in params.values()] == [bool, int, int]


def test_inactive_knobs_are_left_out_of_a_trial(store):
    point = {"cpu_split_kv": True, "block_size": 32}
    store.begin(point, SPEC.knob_space)
    assert store.optuna_study.trials[0].params == point


def test_a_running_trial_is_in_the_storage_before_anything_is_paid_for(store):
    store.begin(POINT, SPEC.knob_space)
    trial = reopened(store).optuna_study.trials[0]
    assert (trial.state, trial.params) == (optuna.trial.TrialState.RUNNING, POINT)
    assert reopened(store).records() == []


def test_what_a_killed_driver_left_running_is_ended_as_interrupted(store):
    store.finish(store.begin(POINT, SPEC.knob_space), complete())
    store.begin(POINT | {"max_num_seqs": 8}, SPEC.knob_space)
    again = reopened(store)
    assert again.end_interrupted() == 1
    assert again.end_interrupted() == 0
    assert [(r.status, r.params["max_num_seqs"]) for r in again.records()] == [
        ("complete", 7),
        ("interrupted", 8),
    ]


def test_a_trial_that_was_only_queued_when_the_driver_was_killed_holds_nobody_up(store):
    store.optuna_study.enqueue_trial(POINT)
    again = reopened(store)
    assert again.end_interrupted() == 1
    trial = again.begin(POINT | {"max_num_seqs": 3}, SPEC.knob_space)
    assert trial.params["max_num_seqs"] == 3


def test_a_trial_that_was_recorded_but_not_ended_keeps_its_result(store):
    trial = store.begin(POINT, SPEC.knob_space)
    trial.set_user_attr("glmlab", complete().model_dump(mode="json"))
    again = reopened(store)
    assert again.end_interrupted() == 1
    assert again.records() == [complete(number=0)]
    assert again.optuna_study.best_value == 2.0


@pytest.mark.parametrize("path", [(), ("cost",), ("measurement",), ("measurement", "points", 0)])
def test_a_record_to_which_a_later_version_of_this_schema_added_something_is_read(store, path):
    body = complete().model_dump(mode="json")
    place = body
    for step in path:
        place = place[step]
    place["added_later"] = 1
    trial = store.begin(POINT, SPEC.knob_space)
    trial.set_user_attr("glmlab", body)
    assert reopened(store).records() == [complete(number=0)]


# ------------------------------------------------------------------------------ study attributes
def test_visits_are_kept_in_order_and_apart_for_each_candidate(store):
    visits = [
        Visit(side=side, round=number, measurement=a_measurement(), cost=TrialCost(measure_s=1.0))
        for number, side in enumerate(("baseline", "best", "best"))
    ]
    for visit in visits:
        store.add_visit(3, visit)
    store.add_visit(5, visits[0])
    again = reopened(store)
    assert (again.visits(3), again.visits(5), again.visits(4)) == (visits, visits[:1], [])


def test_baseline_and_verdict_are_none_until_set_and_then_kept(store):
    assert (store.baseline, store.verdict) == (None, None)
    store.baseline = POINT
    store.verdict = {"best": 0, "verdict": {}}
    again = reopened(store)
    assert (again.baseline, again.verdict) == (POINT, {"best": 0, "verdict": {}})


def test_provenance_grows_only_when_something_changed(store):
    for run in ({"glmlab": "1"}, {"glmlab": "1"}, {"glmlab": "2"}):
        store.add_provenance(run)
    assert reopened(store).provenance == {"runs": [{"glmlab": "1"}, {"glmlab": "2"}]}
