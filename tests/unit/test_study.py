"""The loop of a study, with real storage and real search; only the engine is a double."""

from __future__ import annotations

import contextlib
import math
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from glmlab.engines import Engine
from glmlab.engines.base import KnobStatus
from glmlab.errors import EngineDiedError, EngineStartError, InputError, KnobError, MeasureError, StudyError
from glmlab.knobs import Params, params_key
from glmlab.progress import Lines
from glmlab.recipe import Recipe
from glmlab.study import Study
from glmlab.study_spec import Budget
from tests.doubles import Knobs, ScriptedEngine, scripted_start

ROOT = Path(__file__).parents[2]
RECIPE = {
    "name": "unit",
    "model": "tiny/glm4-moe",
    "max_model_len": 4096,
    "block_size": 32,
    "max_num_batched_tokens": 1024,
    "cpu_split_kv": True,
}
TWO_PLANS = {"cpu_split_kv": [True, False], "block_size": [32, 64]}
LIVE = {"cpu_split_kv": [True, False]}
# Too large for any budget below: the sampler proposes.
SAMPLED = {**TWO_PLANS, "max_num_batched_tokens": {"low": 256, "high": 1024, "step": 8}}


def spec(
    space: Mapping[str, Any] = TWO_PLANS, *, recipe: Mapping[str, Any] = RECIPE, **changes: Any
) -> dict[str, Any]:
    return {
        "study": "unit",
        "recipe": recipe,
        "space": space,
        "workload": {"contexts": [64], "new_tokens": 4},
        "confirm": {"rounds": 3, "rebuild_rounds": 3},
        **changes,
    }


@pytest.fixture
def url(tmp_path):
    return f"journal://{tmp_path}/studies.log"


def split_helps(knobs: Knobs) -> Any:
    """Switching split-KV off makes this double a fifth faster, larger blocks a little."""
    return (10.0 if knobs["cpu_split_kv"] else 8.0) - knobs["block_size"] / 1000


def bowl(knobs: Knobs) -> Any:
    return 5.0 + abs(knobs["max_num_batched_tokens"] - 600) / 100 + (knobs["block_size"] == 64)


def run(
    url: str,
    start: scripted_start,
    /,
    budget: Budget | None = None,
    stop: Callable[[], bool] = lambda: False,
    **changes: Any,
) -> Any:
    study = Study(spec(**changes), url, start=start)
    study.run(budget=budget, stop=stop)
    return study


def proposals(study: Study) -> list[Params]:
    return [r.params for r in study.records() if r.status != "interrupted"]


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


# ------------------------------------------------------------------------------ verdict
def test_a_faster_point_wins_and_the_headline_names_its_knobs(url):
    summary = run(url, scripted_start(split_helps), space=LIVE).summary()
    assert summary.verdict.outcome == "win"
    assert summary.verdict.ratio == pytest.approx((8 - 0.032) / (10 - 0.032))
    assert summary.best.params == {"cpu_split_kv": False}
    assert summary.headline.startswith("cpu_split_kv = false: better than the baseline: tpot_ms x 0.799")


def test_a_baseline_that_nothing_beats_is_kept_without_confirmation(url):
    script = scripted_start(lambda knobs: 10.0 if knobs["cpu_split_kv"] else 12.0)
    summary = run(url, script, space=LIVE).summary()
    assert (summary.verdict.outcome, summary.verdict.rounds) == ("tie", 0)
    assert "keep the default" in summary.headline
    assert len(script.measured) == 2


def test_a_gain_within_noise_keeps_the_default(url):
    lucky = scripted_start(drift=lambda n: 0.9 if n == 2 else 1 + 0.05 * math.sin(n * n))
    summary = run(url, lucky, space=LIVE).summary()
    assert summary.verdict.outcome == "tie"
    assert summary.verdict.low < 1 < summary.verdict.high
    assert "keep the default" in summary.headline


def test_a_point_that_was_fast_only_once_loses_its_confirmation(url):
    once = scripted_start(
        lambda knobs: 10.0 if knobs["cpu_split_kv"] else 11.0, drift=lambda n: 0.5 if n == 2 else 1.0
    )
    summary = run(url, once, space=LIVE).summary()
    assert summary.verdict.outcome == "loss"
    assert summary.verdict.ratio == pytest.approx(1.1)
    assert "keep the default" in summary.headline


@pytest.mark.parametrize(
    ("space", "best", "metric"),
    [(LIVE, {"cpu_split_kv": False}, "device_ms"), ({"block_size": [32, 64]}, {"block_size": 64}, "tpot_ms")],
)
def test_device_time_decides_only_where_nothing_but_kernels_differs(url, space, best, metric):
    summary = run(url, scripted_start(split_helps, device=True), space=space).summary()
    assert summary.best.params == best
    assert summary.verdict.metric == metric


def test_the_confirmation_is_interleaved_so_that_neither_side_profits_from_order(url):
    script = scripted_start(split_helps)
    study = run(url, script, space=LIVE)
    base, best = True, False
    searched, confirmed = [base, best], [base, best, best, base, base, best]
    assert [v for (v,) in script.points("cpu_split_kv")] == searched + confirmed
    visits = study.store.visits(1)
    assert [(v.side, v.round) for v in visits] == [
        ("baseline", 0), ("best", 0), ("best", 1), ("baseline", 1), ("baseline", 2), ("best", 2),
    ]  # fmt: skip


@pytest.mark.parametrize("nth", range(1, 7))
def test_an_interrupted_confirmation_resumes_at_the_visit_that_is_missing(url, nth):
    with pytest.raises(SystemExit):
        run(url, scripted_start(split_helps, measure_fails={2 + nth: SystemExit(9)}), space=LIVE)
    rest = scripted_start(split_helps)
    study = run(url, rest, space=LIVE)
    assert [v for (v,) in rest.points("cpu_split_kv")] == [True, False, False, True, True, False][nth - 1 :]
    assert len(study.store.visits(1)) == 6
    assert study.summary().verdict.outcome == "win"


def test_an_engine_that_dies_in_the_confirmation_costs_no_trial(url):
    dying = scripted_start(split_helps, measure_fails={4: EngineDiedError("gone")})
    assert run(url, dying, space=LIVE).summary().verdict is None
    assert dying.running == 0
    assert run(url, scripted_start(split_helps), space=LIVE).summary().verdict.outcome == "win"


def test_a_better_point_found_later_is_confirmed_in_its_own_right(url):
    script = scripted_start(bowl)
    first = run(url, script, space=SAMPLED, budget=Budget(trials=3)).summary()
    later = run(url, scripted_start(bowl), space=SAMPLED, budget=Budget(trials=25)).summary()
    assert later.best.trial > first.best.trial
    assert later.verdict.outcome == "win"
    assert later.verdict.ratio == pytest.approx(later.best.tpot_ms / later.baseline.tpot_ms)


def test_a_constraint_keeps_a_faster_point_from_being_best(url):
    script = scripted_start(
        lambda knobs: 20.0 - knobs["block_size"] / 10, kv_tokens=lambda knobs: 6400 // knobs["block_size"]
    )
    space = {"block_size": [32, 64, 128]}
    study = run(url, script, space=space, constraints={"kv_tokens": ">= 100"})
    assert study.summary().best.params == {"block_size": 64}
    assert {r.params["block_size"]: r.is_feasible for r in study.records()} == {
        32: True,
        64: True,
        128: False,
    }


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
from tests.unit.test_study import TWO_PLANS, spec

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
