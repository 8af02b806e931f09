"""How a study decides: the confirmation and its verdict; only the engine is a double."""

from __future__ import annotations

import math

import pytest

from glmlab.errors import EngineDiedError
from glmlab.study_spec import Budget
from tests.doubles import scripted_start
from tests.studies import LIVE, SAMPLED, bowl, run, split_helps


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
