"""Points that a user asks for, and a budget that grows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from glmlab.errors import KnobError, SessionError
from glmlab.session import Session
from glmlab.study_spec import Budget
from tests.doubles import scripted_start
from tests.sessions import gated
from tests.studies import SAMPLED, bowl, spec, split_helps
from tests.watched import Gate, until


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def test_a_wish_comes_next(url: str, gate: Gate) -> None:
    session = gated(url, gate, space=SAMPLED, budget={"trials": 3})
    session.start()
    until(lambda: gate.waiting)
    point = session.enqueue(max_num_batched_tokens=600)
    assert point == {"cpu_split_kv": True, "block_size": 32, "max_num_batched_tokens": 600}
    gate.open(100)
    session.wait()
    assert session.records()[1].params == point
    assert len(session.records()) == 3


def test_a_wish_before_the_start_waits_for_the_baseline(url: str) -> None:
    session = Session(spec(SAMPLED, budget={"trials": 2}), url, start=scripted_start(bowl))
    session.enqueue(block_size=64, max_num_batched_tokens=504)
    session.start()
    session.wait()
    first, second = session.records()
    assert first.params["max_num_batched_tokens"] == 1024
    assert second.params == {"cpu_split_kv": True, "block_size": 64, "max_num_batched_tokens": 504}


def test_a_wish_is_granted_beyond_the_budget(url: str) -> None:
    session = Session(spec(SAMPLED, budget={"trials": 2}), url, start=scripted_start(bowl))
    session.start()
    session.wait()
    session.enqueue(max_num_batched_tokens=600)
    session.start()
    session.wait()
    assert [record.params["max_num_batched_tokens"] for record in session.records()][2:] == [600]


@pytest.mark.parametrize(
    ("knobs", "words"),
    [
        ({}, "enqueue: name at least one of cpu_split_kv, block_size"),
        ({"blok_size": 32}, "blok_size: is not in the space of this study; did you mean block_size"),
        ({"block_size": 48}, r"block_size = 48: is not in the space: \[32, 64\]"),
        ({"cpu_split_kv": 1}, r"cpu_split_kv = 1: is not in the space: \[True, False\]"),
    ],
)
def test_wishes_that_cannot_be(url: str, knobs: dict[str, Any], words: str) -> None:
    session = Session(spec(), url, start=scripted_start(split_helps))
    with pytest.raises(KnobError, match=words) as refusal:
        session.enqueue(**knobs)
    assert "\n" not in str(refusal.value)


def test_a_point_is_not_wished_for_twice(url: str) -> None:
    session = Session(spec(), url, start=scripted_start(split_helps))
    session.start()
    session.wait()
    with pytest.raises(KnobError, match=r"cpu_split_kv = false, block_size = 32: was tried as trial #\d"):
        session.enqueue(cpu_split_kv=False)


def test_a_budget_grows_while_the_study_runs(url: str, gate: Gate) -> None:
    session = gated(url, gate, space=SAMPLED, budget={"trials": 2})
    session.start()
    until(lambda: gate.waiting)
    session.extend(trials=3)
    assert session.status.total == 5
    gate.open(100)
    session.wait()
    assert len(session.records()) == 5
    session.extend(trials=1)
    session.start()
    session.wait()
    assert len(session.records()) == 6


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"trials": -1}, "trials = -1: expected a whole number, 0 or more"),
        ({"trials": True}, "trials = True: expected a whole number"),
        ({"trials": "2"}, "trials = '2': expected a whole number"),
        ({"seconds": float("nan")}, "seconds = nan: expected a number"),
        ({"seconds": 5}, "seconds = 5: this study has no limit of seconds to extend"),
    ],
)
def test_budgets_that_cannot_grow(url: str, more: dict[str, Any], words: str) -> None:
    session = Session(spec(budget={"trials": 2}), url, start=scripted_start(split_helps))
    with pytest.raises(SessionError, match=words):
        session.extend(**more)
    assert session.status.total == 2


def test_a_budget_of_seconds_is_extended(url: str) -> None:
    session = Session(spec(SAMPLED, budget={"seconds": 1e-6}), url, start=scripted_start(bowl))
    session.start()
    session.wait()
    assert len(session.records()) == 1
    session.extend(seconds=1000)
    session.start(Budget(trials=4, seconds=1e-6))
    session.wait()
    assert len(session.records()) == 4


def test_confirmed_again_with_more_rounds(url: str) -> None:
    session = Session(spec(), url, start=scripted_start(split_helps))
    session.start()
    assert session.wait().verdict.rounds == 3  # type: ignore[union-attr]
    for rounds in (2, 3.5, "4"):
        with pytest.raises(SessionError, match=f"rounds = {rounds!r}: expected a whole number, 3 or more"):
            session.confirm(rounds)  # type: ignore[arg-type]
    session.confirm(5)
    assert session.wait().verdict.rounds == 5  # type: ignore[union-attr]
    assert len(session.visits()) == 10
    assert len(session.records()) == 4
