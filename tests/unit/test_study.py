"""The loop of a study, with real storage and real search; only the engine is a double."""

from __future__ import annotations

import contextlib

import pytest

from glmlab.engines import Engine
from glmlab.engines.base import KnobStatus
from glmlab.errors import EngineDiedError, EngineStartError, KnobError, MeasureError, StudyError
from glmlab.knobs import params_key
from glmlab.recipe import Recipe
from glmlab.study_spec import Budget
from tests.doubles import ScriptedEngine, scripted_start
from tests.studies import LIVE, RECIPE, SAMPLED, bowl, proposals, run, split_helps


# ------------------------------------------------------------------------------ the double itself
def test_the_double_keeps_the_contract_of_an_engine():
    with ScriptedEngine(Recipe.parse(RECIPE)) as engine:
        assert isinstance(engine, Engine)
        assert engine.evidence == "simulated"
        assert engine.apply(cpu_split_kv=False).changed == {"cpu_split_kv": (True, False)}
        assert engine.state().knobs["cpu_split_kv"] is False
    with pytest.raises(EngineDiedError):
        engine.state()


# ------------------------------------------------------------------------------ what is tried
def test_the_baseline_is_measured_first_and_resolved_to_what_the_engine_chose(url):
    open_recipe = {k: v for k, v in RECIPE.items() if k not in {"block_size", "cpu_split_kv"}}
    script = scripted_start(chosen={"block_size": 64, "cpu_split_kv": False})
    study = run(url, script, recipe=open_recipe)
    assert study.records()[0].params == {"cpu_split_kv": False, "block_size": 64}
    assert study.store.baseline == {"cpu_split_kv": False, "block_size": 64}


def test_a_baseline_outside_the_listed_values_becomes_a_point_of_the_space(url):
    study = run(url, scripted_start(), space={"block_size": [64, 96]})
    assert study.records()[0].params == {"block_size": 32}
    assert {r.params["block_size"] for r in study.records()} == {32, 64, 96}


def test_a_baseline_outside_a_range_is_refused_before_anything_is_stored(url, tmp_path):
    script = scripted_start()
    with pytest.raises(KnobError, match=r"space\.block_size: the recipe's own value 32 lies outside"):
        run(url, script, space={"block_size": {"low": 64, "high": 96, "step": 16}})
    assert script.running == 0
    assert not (tmp_path / "studies.log").exists()


def test_the_engine_that_resolved_the_baseline_also_runs_it(url):
    script = scripted_start()
    run(url, script, space=LIVE)
    assert len(script.starts) == 1
    assert script.running == 0


def test_the_first_start_is_charged_to_the_baseline_and_live_trials_cost_no_rebuild(url):
    costs = [r.cost for r in run(url, scripted_start()).records()]
    assert costs[0].rebuild_s > 0
    assert sum(cost.is_live for cost in costs) == 2
    assert [cost.is_live for cost in costs] == [False, True, False, True]


def test_every_point_is_measured_once_plan_by_plan(url):
    script = scripted_start()
    study = run(url, script)
    searched = script.points("cpu_split_kv", "block_size")[:4]
    assert len(set(searched)) == 4
    assert [block for _, block in searched] == [32, 32, 64, 64]
    assert study.summary().trials == {"complete": 4, "failed": 0, "blocked": 0}


def test_no_point_of_a_sampled_space_is_measured_twice(url):
    points = [
        params_key(p)
        for p in proposals(run(url, scripted_start(bowl), space=SAMPLED, budget=Budget(trials=25)))
    ]
    assert len(points) == len(set(points)) == 25


def test_limits_start_at_the_highest_of_the_space_and_are_lowered_live(url):
    script = scripted_start()
    space = {"max_num_batched_tokens": [256, 1024, 4096]}
    study = run(url, script, space=space)
    assert script.ceilings == [{"max_num_batched_tokens": 4096}]
    assert study.records()[0].params == {"max_num_batched_tokens": 1024}
    assert study.summary().trials["complete"] == 3


def test_a_limit_that_the_recipe_leaves_open_is_refused_before_an_engine_starts(url):
    script = scripted_start()
    recipe = {k: v for k, v in RECIPE.items() if k != "max_num_batched_tokens"}
    with pytest.raises(KnobError, match=r"space\.max_num_batched_tokens: .* name its default in the recipe"):
        run(url, script, recipe=recipe, space={"max_num_batched_tokens": [256, 512]})
    assert script.starts == []


@pytest.mark.parametrize(("objective", "cold"), [("tpot_ms", False), (["tpot_ms", "ttft_ms"], True)])
def test_prompts_are_prefilled_anew_exactly_where_the_objective_needs_it(url, objective, cold):
    script = scripted_start()
    run(url, script, space=LIVE, objective=objective)
    assert {w.cold_prefill for w in script.workloads} == {cold}


# ------------------------------------------------------------------------------ budget
@pytest.mark.parametrize("trials", [1, 3])
def test_a_budget_of_trials_ends_the_search(url, trials):
    assert len(run(url, scripted_start(), budget=Budget(trials=trials)).records()) == trials


def test_a_budget_of_time_ends_after_the_trial_that_spends_it(url):
    slow = scripted_start(lambda knobs: 1000.0)  # 4 + 4 tokens: some 8 s a trial, on paper
    study = run(url, slow, space=SAMPLED, budget=Budget(seconds=30))
    spent = [r.cost.total_s for r in study.records()]
    assert sum(spent[:-1]) < 30 <= sum(spent)


def test_an_extended_budget_continues_as_if_it_had_been_given_at_once(tmp_path):
    at_once = run(
        f"journal://{tmp_path}/a.log", scripted_start(bowl), space=SAMPLED, budget=Budget(trials=12)
    )
    url = f"journal://{tmp_path}/b.log"
    run(url, scripted_start(bowl), space=SAMPLED, budget=Budget(trials=7))
    extended = run(url, scripted_start(bowl), space=SAMPLED, budget=Budget(trials=12))
    assert proposals(extended) == proposals(at_once)


def test_a_finished_study_is_not_paid_for_again(url):
    run(url, scripted_start(split_helps))
    again = scripted_start(split_helps)
    study = run(url, again)
    assert again.starts == []
    assert study.summary().verdict.outcome == "win"


# ------------------------------------------------------------------------------ failures
def test_a_plan_that_does_not_start_blocks_its_other_points_at_no_cost(url):
    script = scripted_start(start_fails=lambda r: "no memory" if r.block_size == 64 else None)
    study = run(url, script)
    failed, blocked = (r for r in study.records() if r.status != "complete")
    assert (failed.status, blocked.status) == ("failed", "blocked")
    assert failed.reason == "no memory"
    assert failed.log_tail == "the last line of the log"
    assert "did not start: no memory" in blocked.reason
    assert (blocked.cost.rebuild_s, blocked.cost.apply_s, blocked.cost.measure_s) == (0, 0, 0)
    assert [r.block_size for r in script.starts] == [32, 64]


def test_a_dead_engine_is_replaced_and_its_log_is_kept(url):
    script = scripted_start(measure_fails={2: EngineDiedError("worker gone", log_tail="segfault")})
    study = run(url, script)
    failed = study.records()[1]
    assert (failed.status, failed.reason, failed.log_tail) == ("failed", "worker gone", "segfault")
    assert study.summary().trials == {"complete": 3, "failed": 1, "blocked": 0}
    assert len(script.starts) == script.closes
    assert script.running == 0


def test_an_engine_that_still_answers_after_a_failed_measurement_is_kept(url):
    space = {"cpu_split_kv": [True, False], "max_num_seqs": [8, 16]}
    script = scripted_start(measure_fails={2: MeasureError("does not fit")})
    study = run(url, script, space=space)
    assert [r.status for r in study.records()] == ["complete", "failed", "complete", "complete"]
    assert len(script.starts) == 1


def test_what_cannot_run_is_blocked_with_its_reason_and_never_started(url):
    script = scripted_start()
    study = run(url, script, space={"tensor_parallel": [1, 3]})
    blocked = study.records()[1]
    assert blocked.status == "blocked"
    assert blocked.reason.startswith("tensor_parallel = 3: does not divide")
    assert [r.tensor_parallel for r in script.starts] == [1]


def test_what_the_engine_refuses_is_blocked_in_its_own_words(url):
    refuse = scripted_start(
        apply_fails=lambda k: "cpu_split_kv = False: not here" if not k["cpu_split_kv"] else None
    )
    records = run(url, refuse, space=LIVE).records()
    assert [(r.status, r.reason) for r in records] == [
        ("complete", ""),
        ("blocked", "cpu_split_kv = False: not here"),
    ]


def test_a_metric_that_the_engine_lacks_ends_the_study_at_its_baseline(url):
    with pytest.raises(StudyError, match="the baseline failed: device_ms: this engine does not measure it"):
        run(url, scripted_start(), objective="device_ms")


@pytest.mark.parametrize(
    "former",
    [
        [MeasureError("too large")],
        [SystemExit(9), MeasureError("too large")],
        [SystemExit(9), SystemExit(9)],
    ],
    ids=["failed", "interrupted, then failed", "interrupted twice"],
)
def test_no_other_point_is_measured_until_there_is_a_baseline(url, former):
    for error in former:
        with pytest.raises((StudyError, SystemExit)):
            run(url, scripted_start(measure_fails={1: error}))
    healthy = scripted_start(split_helps)
    with contextlib.suppress(StudyError):  # to refuse is as good as to measure it again
        run(url, healthy)
    assert healthy.points("cpu_split_kv", "block_size")[:1] in ([], [(True, 32)])


def test_a_baseline_that_fails_when_it_is_tried_again_ends_the_study_too(url):
    with pytest.raises(SystemExit):
        run(url, scripted_start(measure_fails={1: SystemExit(9)}))
    with pytest.raises(StudyError, match="the baseline failed: too large"):
        run(url, scripted_start(measure_fails={1: MeasureError("too large")}))


def test_a_baseline_that_does_not_start_is_an_error_and_writes_nothing(url, tmp_path):
    with pytest.raises(EngineStartError, match="no GPU"):
        run(url, scripted_start(start_fails=lambda recipe: "no GPU"))
    assert not (tmp_path / "studies.log").exists()


@pytest.mark.parametrize("scheme", ["journal", "sqlite"])
@pytest.mark.parametrize(
    ("status", "message"),
    [
        (KnobStatus(live=False, why="no AMX"), "space.cpu_split_kv: this engine cannot change it: no AMX"),
        (KnobStatus(live=True, values=(True,)), "space.cpu_split_kv = False: this engine allows True"),
    ],
)
def test_nothing_is_written_when_the_engine_cannot_take_the_space(tmp_path, scheme, status, message):
    script = scripted_start(live={"cpu_split_kv": status})
    slashes = "//" if scheme == "journal" else "///"
    with pytest.raises(KnobError) as error:
        run(f"{scheme}:{slashes}{tmp_path}/studies.store", script, space=LIVE)
    assert str(error.value) == message
    assert script.running == 0
    assert not (tmp_path / "studies.store").exists()
