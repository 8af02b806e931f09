"""A study that is interrupted, changed, continued, asked; only the engine is a double."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from glmlab.errors import InputError, StudyError
from glmlab.progress import Lines
from glmlab.recipe import Recipe
from glmlab.study import Study
from glmlab.study_spec import Budget
from tests.doubles import scripted_start
from tests.studies import LIVE, RECIPE, ROOT, SAMPLED, TWO_PLANS, bowl, proposals, run, spec, split_helps


# ------------------------------------------------------------------------------ interruption and resume
@pytest.mark.parametrize("space", [TWO_PLANS, SAMPLED], ids=["listed", "sampled"])
@pytest.mark.parametrize("nth", [1, 2, 4])
def test_a_resumed_study_proposes_what_an_uninterrupted_one_does(tmp_path, space, nth):
    budget = Budget(trials=10)
    whole = run(f"journal://{tmp_path}/whole.log", scripted_start(bowl), space=space, budget=budget)
    url = f"journal://{tmp_path}/torn.log"
    with pytest.raises(SystemExit):
        run(url, scripted_start(bowl, measure_fails={nth: SystemExit(9)}), space=space, budget=budget)
    torn = run(url, scripted_start(bowl), space=space, budget=budget)
    assert proposals(torn) == proposals(whole)
    assert [r.status for r in torn.records()].count("interrupted") == 1
    assert torn.summary().best.params == whole.summary().best.params


KILLED = """
import os, sys
from glmlab.study import Study
from tests.doubles import scripted_start
from tests.studies import TWO_PLANS, spec

script = scripted_start(lambda knobs: os._exit(9) if len(script.measured) == 3 else 10.0)
Study(spec(TWO_PLANS), sys.argv[1], start=script).run()
"""


def test_a_killed_driver_loses_only_the_trial_that_was_running(tmp_path):
    url = f"sqlite:///{tmp_path}/studies.db"
    killed = subprocess.run([sys.executable, "-c", KILLED, url], cwd=ROOT, check=False)
    assert killed.returncode == 9
    script = scripted_start()
    study = run(url, script)
    assert [r.status for r in study.records()] == [
        "complete",
        "complete",
        "interrupted",
        "complete",
        "complete",
    ]
    assert len(script.measured) == 2
    interrupted, again = study.records()[2:4]
    assert interrupted.params == again.params


def test_a_point_that_ended_the_driver_twice_is_not_tried_a_third_time(url):
    tries = []

    def deadly(knobs):
        if not knobs["cpu_split_kv"] and knobs["block_size"] == 32:
            tries.append(knobs)
            raise SystemExit(9)
        return 10.0

    for _ in range(2):
        with pytest.raises(SystemExit):
            run(url, scripted_start(deadly))
    study = run(url, scripted_start(deadly))
    assert len(tries) == 2
    assert study.summary().trials == {"complete": 3, "failed": 0, "blocked": 0}


def test_stop_ends_after_the_current_trial_and_leaves_the_verdict_open(url):
    script = scripted_start(split_helps)
    study = run(url, script, stop=lambda: len(script.measured) >= 2)
    assert len(study.records()) == 2
    assert study.summary().verdict is None
    assert "run the study again" in study.summary().headline
    assert run(url, scripted_start(split_helps)).summary().verdict.outcome == "win"


def test_the_first_ctrl_c_lets_the_trial_finish(url):
    def latency(knobs):
        if len(script.measured) == 2:
            signal.raise_signal(signal.SIGINT)
        return 10.0

    script = scripted_start(latency)
    study = run(url, script)
    assert [r.status for r in study.records()] == ["complete", "complete"]


def test_the_second_ctrl_c_stores_the_trial_as_interrupted_and_gives_everything_back(url):
    before = signal.getsignal(signal.SIGINT)  # a job in the background has it ignored

    def latency(knobs):
        if len(script.measured) == 2:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return 10.0

    script = scripted_start(latency)
    study = Study(spec(), url, start=script)
    with pytest.raises(KeyboardInterrupt):
        study.run()
    assert [r.status for r in study.records()] == ["complete", "interrupted"]
    assert script.running == 0
    assert signal.getsignal(signal.SIGINT) is before
    assert len(proposals(run(url, scripted_start()))) == 4  # neither locked nor lost


def test_a_run_tells_that_interrupted_trials_are_tried_again(url, capsys):
    with pytest.raises(SystemExit):
        run(url, scripted_start(measure_fails={2: SystemExit(9)}))
    # As a kill leaves it: running for ever.
    study = Study(spec(), url)
    study.store.begin({"cpu_split_kv": False, "block_size": 32}, study.spec.knob_space)
    Study(spec(), url, start=scripted_start()).run(progress=Lines())
    assert "1 interrupted trial(s) of a former run will be tried again" in capsys.readouterr().err


# ------------------------------------------------------------------------------ changes between runs
@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"space": {**TWO_PLANS, "block_size": [32, 64, 128]}}, "space"),
        ({"recipe": {**RECIPE, "max_num_seqs": 4}}, "recipe (max_num_seqs)"),
        ({"workload": {"contexts": [64], "new_tokens": 5}}, "workload"),
        ({"objective": "tpot_p90_ms"}, "objective"),
        ({"constraints": {"kv_tokens": ">= 1"}}, "constraints"),
        ({"seed": 1}, "seed"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_study_that_changed_between_runs_is_refused_in_one_line(url, change, named):
    run(url, scripted_start(), budget=Budget(trials=2))
    script = scripted_start()
    with pytest.raises(StudyError) as error:
        run(url, script, **change)
    message = str(error.value)
    assert named in message
    assert message.endswith("give the changed study another name")
    assert "\n" not in message
    assert script.starts == []


@pytest.mark.parametrize(
    "change",
    [
        {"budget": {"trials": 3}},
        {"home": "kernel"},
        {"confirm": {"rounds": 4}},
        {"recipe": {**RECIPE, "name": "other", "notes": "another name is no other configuration"}},
        {"space": dict(reversed(TWO_PLANS.items()))},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_does_not_change_the_numbers_may_change_between_runs(url, change):
    run(url, scripted_start(), budget=Budget(trials=2))
    study = Study(spec(**change), url, start=scripted_start())
    study.run()
    assert len(study.records()) >= 3


# ------------------------------------------------------------------------------ asking
def test_a_study_that_has_not_run_says_how_to_run_it(url):
    with pytest.raises(InputError, match="run `glmlab tune` first"):
        Study(spec(), url).summary()


def test_the_summary_has_the_shape_that_the_command_line_promises(url):
    body = run(url, scripted_start(split_helps), space=LIVE).summary().to_json()
    assert {"study", "storage", "evidence", "trials", "baseline", "best", "verdict", "cost_s"} <= set(body)
    assert body["evidence"] == "simulated"
    assert {"params", "tpot_ms"} <= set(body["best"])
    assert {"outcome", "ratio", "low", "high"} <= set(body["verdict"])
    assert {"rebuild", "apply", "measure", "overhead", "restart_estimate"} <= set(body["cost_s"])


def test_the_records_keep_raw_samples_and_what_they_were_measured_with(url):
    study = run(url, scripted_start(split_helps), space=LIVE)
    record = study.records()[1]
    assert record.measurement.points[0].token_gap_ms == [8 - 0.032] * 3
    assert record.same_tokens == 1.0
    expected = study.spec.base_recipe.replace(cpu_split_kv=False).fingerprint
    assert record.recipe_fingerprint == expected
    assert study.store.provenance["runs"][0]["glmlab"]


def test_a_study_file_finds_its_recipe_beside_it_from_anywhere(tmp_path, url, monkeypatch):
    Recipe.parse(RECIPE).save(tmp_path / "mine.yaml")
    (tmp_path / "study.yaml").write_text(
        "study: unit\nrecipe: mine.yaml\nspace: {cpu_split_kv: [true, false]}\n", encoding="utf-8"
    )
    monkeypatch.chdir("/")
    study = Study(tmp_path / "study.yaml", url, start=scripted_start())
    study.run()
    assert Study(tmp_path / "study.yaml", url).summary().trials["complete"] == 2
