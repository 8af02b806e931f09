from __future__ import annotations

import math
import random
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmlab.stats import judge


def verdict_of(baseline: list[float], best: list[float], **how: Any) -> Any:
    return judge(baseline, best, metric="m", **how)


BASE = [10.0, 10.2, 9.9, 10.1]


def scaled(factor: float) -> list[float]:
    return [value * factor * wobble for value, wobble in zip(BASE, (1.01, 0.99, 1.0, 1.005), strict=True)]


@pytest.mark.parametrize(
    ("factor", "maximize", "outcome"),
    [
        (0.8, False, "win"), (1.25, False, "loss"), (1.0, False, "tie"),
        (1.25, True, "win"), (0.8, True, "loss"), (1.0, True, "tie"),
    ],
)  # fmt: skip
def test_only_a_whole_interval_on_the_better_side_wins(factor, maximize, outcome):
    verdict = verdict_of(BASE, scaled(factor), maximize=maximize)
    assert verdict.outcome == outcome
    assert verdict.low < verdict.ratio < verdict.high
    assert ("keep the default" in verdict.reason) == (outcome != "win")


def test_the_interval_is_students_over_the_logarithms_of_the_pairs():
    # By hand: logs 0.1, 0.2, 0.3: mean 0.2, s = 0.1, half = 4.302653 * 0.1 / sqrt(3) = 0.248414
    verdict = verdict_of([1.0] * 3, [math.exp(0.1), math.exp(0.2), math.exp(0.3)])
    assert math.log(verdict.ratio) == pytest.approx(0.2)
    assert math.log(verdict.low) == pytest.approx(0.2 - 0.248414, abs=1e-6)
    assert math.log(verdict.high) == pytest.approx(0.2 + 0.248414, abs=1e-6)
    assert (verdict.outcome, verdict.rounds, verdict.confidence) == ("tie", 3, 0.95)


def test_a_lower_confidence_gives_a_narrower_interval():
    wide, narrow = (verdict_of(BASE, scaled(0.99), confidence=c) for c in (0.99, 0.5))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_one_round_decides_nothing_however_large_the_gain():
    verdict = verdict_of([10.0], [1.0])
    assert (verdict.outcome, verdict.low, verdict.high) == ("tie", None, None)
    assert verdict.ratio == pytest.approx(0.1)


@pytest.mark.parametrize(("baseline", "best"), [([], []), ([1.0], []), ([1.0, 2.0], [1.0])])
def test_visits_must_pair_up(baseline, best):
    with pytest.raises(ValueError, match="as many visits"):
        verdict_of(baseline, best)


def test_drift_that_both_sides_share_does_not_widen_the_interval():
    drift = [1.0, 1.5, 2.0, 4.0]
    verdict = verdict_of([10 * d for d in drift], [9 * d for d in drift])
    assert verdict.outcome == "win"
    assert verdict.high - verdict.low < 1e-9


TIMES = st.lists(st.floats(0.1, 100), min_size=2, max_size=8)


@given(TIMES, st.randoms())
def test_swapping_the_sides_turns_the_verdict_around(times, shuffle):
    other = [t * shuffle.uniform(0.5, 2) for t in times]
    there, back = verdict_of(times, other), verdict_of(other, times)
    assert there.ratio * back.ratio == pytest.approx(1)
    assert there.low * back.high == pytest.approx(1)
    assert back.outcome == {"win": "loss", "loss": "win", "tie": "tie"}[there.outcome]


@pytest.mark.parametrize("rounds", [3, 6])
def test_equal_settings_are_told_apart_in_five_percent_of_cases_half_on_each_side(rounds):
    stream = random.Random(rounds)

    def visits() -> list[float]:
        return [stream.lognormvariate(0, 0.05) for _ in range(rounds)]

    outcomes = [verdict_of(visits(), visits()).outcome for _ in range(2000)]
    # Binomial: 50 expected on each side, standard deviation 7.
    assert abs(outcomes.count("win") - 50) < 21
    assert abs(outcomes.count("loss") - 50) < 21


def test_the_ratio_is_the_geometric_mean_of_the_rounds():
    verdict = verdict_of(BASE, scaled(0.9))
    ratios = [b / a for a, b in zip(BASE, scaled(0.9), strict=True)]
    assert verdict.ratio == pytest.approx(statistics.geometric_mean(ratios))
