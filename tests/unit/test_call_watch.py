"""When a call to a child engine has gone on for too long."""

from __future__ import annotations

import pytest

from glmlab.engines import call_watch
from glmlab.engines.call_watch import CallWatch
from glmlab.engines.protocol import Beat


class Clock:
    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(call_watch, "time", made)
    return made


def watch(clock: Clock, what: str = "measure") -> CallWatch:
    return CallWatch(what, limit_s=100, beat_timeout_s=10, step_timeout_s=20, _begin_s=clock.now)


def test_steps_keep_a_measurement_alive(clock: Clock) -> None:
    seen = watch(clock)
    for second in range(0, 99, 3):
        clock.now = second
        seen.heard(Beat(steps=second))
        assert seen.too_long() == ""


def test_beats_without_steps_are_a_hang(clock: Clock) -> None:
    seen = watch(clock)
    for second in range(0, 21, 3):
        clock.now = second
        seen.heard(Beat(steps=7))
        assert seen.too_long() == ""
    clock.now = 21
    seen.heard(Beat(steps=7))
    assert seen.too_long() == "did not finish a step within 20 s"


def test_other_calls_need_no_steps(clock: Clock) -> None:
    seen = watch(clock, "start")
    for second in range(0, 100, 3):
        clock.now = second
        seen.heard(Beat())
        assert seen.too_long() == ""
    clock.now = 101
    seen.heard(Beat())
    assert seen.too_long() == "did not finish 'start' within 100 s"


def test_silence_is_noticed_first(clock: Clock) -> None:
    seen = watch(clock)
    seen.heard(Beat(steps=1))
    clock.now = 10.5
    assert seen.too_long() == "gave no sign of life for 10 s"
