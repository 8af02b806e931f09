"""A study over recordings: from baseline to verdict, interrupted, resumed, labelled wherever shown."""

from __future__ import annotations

import itertools
import json
import shutil
from typing import Any

import pytest

from glmlab.engines.replay_start import Replay
from glmlab.errors import InputError, StudyError
from glmlab.progress import Lines, Silent
from glmlab.recorded import load_recording
from glmlab.storage import StudyStore
from glmlab.study import Study
from glmlab.study_spec import Budget, StudySpec
from glmlab.summary import summarize
from glmlab.trial_record import TrialRecord
from tests.doubles import scripted_start
from tests.recordings import SPACE, WORKLOAD, bowl, record, replay_spec, with_failures_of, wobble
from tests.studies import RECIPE

BEST: dict[str, Any] = {"cpu_split_kv": False, "max_num_seqs": 8}


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Two plans, recorded with seven visits to each point."""
    folder = tmp_path_factory.mktemp("recorded")
    for size in (32, 64):
        record(folder / f"b{size}.jsonl.gz", recipe={**RECIPE, "block_size": size}, visits=7)
    return folder


@pytest.fixture(autouse=True)
def facts(recorded, tmp_path, monkeypatch):
    """A folder with both, in place of the packaged ones."""
    folder = tmp_path / "facts"
    shutil.copytree(recorded, folder)
    monkeypatch.setattr("glmlab.recorded.data_folders", lambda kind: (folder,))
    return folder


def study_of(url: str, **changes: Any) -> Any:
    return Study(replay_spec(**changes), url)


def measured(study: Any) -> list[Any]:
    """What each trial and visit was given, in the order in which it was."""
    store = study.store
    trials = [r.measurement for r in study.records() if r.measurement]
    visits = [v.measurement for r in study.records() for v in store.visits(r.number)]
    return [(m.notes[0], m.points) for m in trials + visits]


class Interrupt(Silent):
    """Ends the driver when the n-th trial is done."""

    def __init__(self, nth: int) -> None:
        self.left = nth

    def trial(self, record: TrialRecord, best: str, left_s: float | None) -> None:
        self.left -= 1
        if not self.left:
            raise SystemExit(9)


# ------------------------------------------------------------------------------ from baseline to verdict
def test_it_finds_the_best_recorded_point_and_confirms_it_with_visits_of_its_own(url):
    study = study_of(url)
    summary = study.run()
    assert summary.trials == {"complete": 6, "failed": 0, "blocked": 0}
    assert summary.best.params == BEST
    assert (summary.verdict.outcome, summary.verdict.rounds) == ("win", 6)
    assert summary.verdict.low < summary.verdict.ratio < summary.verdict.high
    expected = load_recording("b32")
    for side, point in (("best", BEST), ("baseline", {"cpu_split_kv": True, "max_num_seqs": 16})):
        given = [
            v.measurement.points[0].token_gap_ms
            for v in study.store.visits(summary.best.trial)
            if v.side == side
        ]
        recorded = [v.measurement.points[0].token_gap_ms for v in expected.visits_of(point)]
        assert given == recorded[1:]  # the first was the search's


def test_rebuild_knobs_are_served_by_recordings_of_their_plans(url):
    study = study_of(url, space={**SPACE, "block_size": [32, 64, 128]})
    summary = study.run()
    assert summary.trials == {"complete": 12, "failed": 0, "blocked": 6}
    assert summary.best.params == {**BEST, "block_size": 64}
    blocked = [r for r in study.records() if r.status == "blocked"]
    assert {r.params["block_size"] for r in blocked} == {128}
    assert all("b64 has block_size = 64, not 128" in r.reason for r in blocked)
    assert {r.evidence for r in study.records()} == {"replayed"}
    assert any("recorded in one engine" in note for note in summary.notes)
    rebuilt = [r for r in study.records() if r.status == "complete" and not r.cost.is_live]
    assert [r.cost.rebuild_s for r in rebuilt] == pytest.approx([30.0, 30.0], abs=0.1)
    assert all(seconds >= 0 for r in study.records() for seconds in r.cost.model_dump().values())
    # Each visit of the confirmation starts an engine anew, and still none is given twice.
    visits = study.store.visits(summary.best.trial)
    assert sorted(round(v.cost.rebuild_s) for v in visits) == [30, 30, 40, 40, 40, 40]
    notes = [v.measurement.notes for v in visits]
    assert len({lines[0] for lines in notes}) == len(notes) == 6
    assert not any("no new sample" in line for lines in notes for line in lines)


def test_costs_come_out_as_recorded_and_glmlabs_own_stays_real(url):
    study = study_of(url)
    summary = study.run()
    recorded = load_recording("b32")
    first, *live = study.records()
    assert first.cost.rebuild_s == pytest.approx(30.0, abs=1)
    assert first.cost.prefill_s == pytest.approx(recorded.visits[0].measurement.prefill_ms / 1e3)
    for record_ in live:
        assert record_.cost.is_live
        assert record_.cost.prefill_s == 0
        visit = recorded.visits_of(record_.params)[0]
        assert record_.cost.apply_s == visit.apply_s
        steps = sum(p.elapsed_ms for p in visit.measurement.points) / 1e3
        assert record_.cost.measure_s > steps
    assert all(0 < record_.cost.overhead_s < 25 for record_ in study.records())
    cost = summary.cost_s
    assert cost.rebuild == pytest.approx(30.0, abs=1)
    assert cost.restart_trial == pytest.approx(30.0 + first.cost.prefill_s + live[0].cost.measure_s, rel=0.1)
    assert cost.times_cheaper == pytest.approx(cost.restart_trial / cost.live_trial)


def test_seconds_of_the_budget_are_recorded_seconds(url):
    study = study_of(url)
    study.run(budget=Budget(seconds=31.0))
    assert len(study.records()) < 6
    assert sum(r.cost.total_s for r in study.records()) >= 31


def test_it_needs_no_machine_that_could_run_the_recipe(url, tmp_path):
    elsewhere = {**RECIPE, "model": "not-here/glm", "cpu_threads": 4096}
    record(tmp_path / "elsewhere.jsonl", recipe=elsewhere, visits=4)
    study = study_of(url, recipe=elsewhere, recording=str(tmp_path / "elsewhere.jsonl"))
    assert study.run().trials == {"complete": 6, "failed": 0, "blocked": 0}


def test_a_prefill_that_is_known_in_part_only_is_noted_in_the_summary(url):
    part = {**WORKLOAD.model_dump(mode="json"), "contexts": [256]}
    summary = study_of(url, workload=part).run()
    assert (
        sum("the prefill was recorded with 128 prompt tokens in the cache" in n for n in summary.notes) == 1
    )


def test_a_recorded_failure_is_a_failed_trial_that_costs_what_it_did(url, tmp_path):
    script = scripted_start(
        bowl,
        drift=wobble,
        apply_fails=lambda knobs: "no room for graphs" if knobs.get("max_num_seqs") == 8 else None,
    )
    path = tmp_path / "failing.jsonl"
    record(path, script, visits=4)
    with_failures_of(path, 7.0)
    study = study_of(url, recording=str(path))
    summary = study.run()
    assert summary.trials == {"complete": 4, "failed": 2, "blocked": 0}
    failed = [r for r in study.records() if r.status == "failed"]
    assert all("no room for graphs" in r.reason for r in failed)
    assert {r.evidence for r in failed} == {"replayed"}
    assert [r.cost.total_s for r in failed] == pytest.approx([7.0, 7.0], abs=3.0)
    assert all(r.cost.apply_s >= 7.0 for r in failed)
    assert summary.verdict.outcome == "win"


def test_the_order_of_visits_comes_from_the_seed(tmp_path):
    def run(name: str, seed: int) -> Any:
        study = study_of(f"journal://{tmp_path}/{name}.log", seed=seed)
        study.run()
        return study.records()[0].notes

    assert run("a", 1) == run("b", 1) != run("c", 2)


# ------------------------------------------------------------------------------ interrupted and resumed
@pytest.mark.parametrize("space", [SPACE, {**SPACE, "block_size": [32, 64]}], ids=["live", "two plans"])
@pytest.mark.parametrize("nth", [1, 3, 6])
def test_a_resumed_study_is_given_what_an_uninterrupted_one_is(tmp_path, space, nth):
    whole = study_of(f"journal://{tmp_path}/whole.log", space=space)
    whole.run()
    url = f"journal://{tmp_path}/torn.log"
    with pytest.raises(SystemExit):
        study_of(url, space=space).run(progress=Interrupt(nth))
    torn = study_of(url, space=space)
    torn.run()
    assert [note for note, _ in measured(torn)] == [note for note, _ in measured(whole)]
    assert torn.summary().verdict.ratio == whole.summary().verdict.ratio


@pytest.mark.parametrize("asked", [9, 11, 13])
def test_a_confirmation_that_is_stopped_goes_on_with_the_visits_that_are_left(tmp_path, asked):
    whole = study_of(f"journal://{tmp_path}/whole.log")
    whole.run()
    url = f"journal://{tmp_path}/torn.log"
    calls = itertools.count(1)
    first = study_of(url)
    first.run(stop=lambda: next(calls) > asked)
    assert first.summary().verdict is None
    assert first.store.visits(first.summary().best.trial)
    torn = study_of(url)
    torn.run()
    assert [note for note, _ in measured(torn)] == [note for note, _ in measured(whole)]


def test_the_same_object_can_be_run_again(url):
    study = study_of(url)
    study.run(budget=Budget(trials=1))
    study.run()
    notes = [note for note, _ in measured(study)]
    assert sum("visit 1 of 7" in note for note in notes) == 6


def test_a_finished_study_is_shown_without_its_recording(url, facts):
    study_of(url).run()
    for file in facts.iterdir():
        file.unlink()
    summary: Any = summarize(StudyStore.load("again", url))
    assert summary.verdict.outcome == "win"


def test_a_recording_that_changed_between_runs_is_refused(url, facts):
    study_of(url).run(budget=Budget(trials=2))
    (facts / "b32.jsonl.gz").unlink()
    record(facts / "b32.jsonl.gz", visits=7, seed=1)
    with pytest.raises(StudyError, match=r"recording b32 changed since its first run \(fingerprint "):
        study_of(url).run()


def test_a_study_of_the_real_engine_is_not_continued_as_a_replay(url):
    study_of(url).run(budget=Budget(trials=2))
    assert StudyStore.load("again", url).identity["engine"] == "replay"
    with pytest.raises(
        StudyError, match=r"changed since its first run: engine \(stored: replay; now: vllm\)"
    ):
        Study(replay_spec(engine="vllm"), url, start=scripted_start()).run()


# ------------------------------------------------------------------------------ what is refused
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"max_num_batched_tokens": [512, 1024]}}, "recording b32 did not move it"),
        ({"space": {"max_num_seqs": [4, 5]}}, "space.max_num_seqs = 5: this engine allows 4, 8, 16"),
        (
            {"recipe": {**RECIPE, "max_model_len": 2048}},
            "no recording is of this plan: b32 has max_model_len",
        ),
        ({"recipe": {**RECIPE, "max_num_seqs": 5}}, "max_num_seqs = 5"),
        ({"recording": "b33"}, "recording = 'b33': no such recording or file; did you mean b32"),
        ({"recording": ["b32", "b64"]}, "recording b64: is of another plan: it has block_size = 64, not 32"),
        (
            {"workload": {"contexts": [128], "new_tokens": 4}},
            "workload.contexts: 128 is not in recording b32",
        ),
        ({"objective": "ttft_ms"}, "workload.cold_prefill = True: recording b32 was made with False"),
    ],
)
def test_what_was_not_recorded_is_refused_before_anything_is_written(url, tmp_path, changes, message):
    with pytest.raises(InputError) as error:
        study_of(url, **changes).run()
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "studies.log").exists()


@pytest.mark.parametrize(("visits", "rounds"), [(4, 3), (6, 5)])
def test_no_more_rounds_than_there_are_visits_to_confirm_with(url, facts, visits, rounds, capsys):
    record(facts.parent / "few.jsonl", visits=visits)
    summary = study_of(url, recording=str(facts.parent / "few.jsonl")).run(progress=Lines())
    assert summary.verdict.rounds == rounds
    assert f"{visits} visits to a point: at most {rounds} rounds" in capsys.readouterr().err


@pytest.mark.parametrize(("visits", "again"), [(3, 2), (4, 0)])
def test_a_visit_of_the_search_that_confirms_too_is_noted(url, facts, visits, again):
    record(facts.parent / "few.jsonl", visits=visits)
    summary = study_of(url, recording=str(facts.parent / "few.jsonl")).run()
    assert summary.verdict.rounds == 3
    noted = [note for note in summary.notes if "had been given out before" in note]
    expected = f"{again} of 6 confirming visits had been given out before: too few were recorded"
    assert noted == ([expected] if again else [])


def test_too_few_visits_to_decide_anything_are_refused(url, facts, tmp_path):
    record(facts.parent / "few.jsonl", visits=2)
    with pytest.raises(StudyError, match=r"recording few has a point with 2 visits; .* record 4 or more"):
        study_of(url, recording=str(facts.parent / "few.jsonl")).run()
    assert not (tmp_path / "studies.log").exists()


def test_points_that_the_study_does_not_go_to_need_no_visits(url, facts):
    """Rounds of a recording that was stopped: points of its last round have a visit more than others."""
    path = facts.parent / "uneven.jsonl"
    record(path, visits=4)
    lines = path.read_text().splitlines()
    first = [line for line in lines if json.loads(line).get("knobs", {}).get("max_num_seqs") == 4]
    kept = [line for line in lines if line not in first[2:]]
    bodies = [json.loads(line) for line in kept]
    for order, body in enumerate(bodies[1:]):
        body["order"] = order
    counts: dict[str, int] = {}
    for body in bodies[1:]:
        key = json.dumps(body["knobs"])
        body["visit"] = counts[key] = counts.get(key, -1) + 1
    path.write_text("".join(f"{json.dumps(body)}\n" for body in bodies))
    with pytest.raises(StudyError, match=r"recording uneven has a point with \d visits"):
        study_of(url, recording=str(path)).run()
    space = {**SPACE, "max_num_seqs": [8, 16]}
    summary = study_of(url, recording=str(path), space=space).run()
    assert summary.trials == {"complete": 4, "failed": 0, "blocked": 0}
    assert summary.verdict.rounds == 3


def test_recording_belongs_to_replay():
    with pytest.raises(StudyError, match="recording: only engine: replay reads one, this is engine: vllm"):
        StudySpec.parse(replay_spec(engine="vllm", recording="b32"))
    with pytest.raises(StudyError, match=r"engine = 'replays'"):
        StudySpec.parse(replay_spec(engine="replays"))


def test_a_replay_is_not_passed_off_as_a_real_engine(url):
    with pytest.raises(StudyError, match="engine: vllm and start="):
        Study(replay_spec(engine="vllm"), url, start=Replay([load_recording("b32")]))
    assert (
        Study(replay_spec(), url, start=Replay([load_recording("b32")], speed=1e6)).run().evidence
        == "replayed"
    )


def test_a_recording_beside_the_study_file_is_found_from_anywhere(tmp_path, url, monkeypatch):
    record(tmp_path / "mine.jsonl.gz", visits=4)
    (tmp_path / "study.yaml").write_text(json.dumps(replay_spec(recording="mine.jsonl.gz")), encoding="utf-8")
    monkeypatch.chdir("/")
    assert Study(tmp_path / "study.yaml", url).run().origins[0].startswith("mine, recorded on")
