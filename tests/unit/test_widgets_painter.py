"""Painter: one thread, four paints a second at most, only as long as there is something to see."""

from __future__ import annotations

import gc

import pytest

from glmlab.session import Session, SessionState
from glmlab.widgets.painter import Painter, wake
from tests.doubles import scripted_start
from tests.studies import LIVE, spec
from tests.watched import threads, until


class Part:
    """Notes what state it was asked to paint."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.seen: list[SessionState] = []
        self.errors: list[str] = []

    def paint(self) -> None:
        self.seen.append(self.session.status.state)

    def broken(self) -> None:
        raise ValueError("a part that fails")

    def tell(self, error: Exception) -> None:
        self.errors.append(str(error))


@pytest.fixture
def session(url, gate):
    with Session(spec(LIVE), url, start=scripted_start(gate)) as made:
        yield made


@pytest.fixture
def part(session):
    return Part(session)


@pytest.fixture
def painter(part, session):
    made = Painter(part.tell)
    made.add(part.paint)
    made.session = session
    yield made
    made.close()
    until(lambda: not threads("glmlab-ticker"))


def test_it_ends_by_itself_after_a_last_paint_of_the_end(session, part, painter, gate):
    session.start()
    gate.open(100)
    session.wait()
    until(lambda: not painter.is_running)
    assert part.seen[-1] is SessionState.FINISHED
    until(lambda: not threads("glmlab-ticker"))


def test_it_watches_a_session_that_somebody_else_may_start(session, part, painter, gate):
    until(lambda: len(part.seen) > 1)
    assert painter.is_running
    assert set(part.seen) == {SessionState.NEW}
    session.start()
    until(lambda: SessionState.RUNNING in part.seen)


def test_a_pause_is_not_an_end(session, part, painter, gate):
    session.start()
    until(lambda: gate.waiting)
    session.pause()
    gate.open()
    until(lambda: SessionState.PAUSED in part.seen)
    count = len(part.seen)
    until(lambda: len(part.seen) > count)
    assert painter.is_running


def test_whoever_starts_a_session_again_wakes_it(session, part, painter, gate):
    session.start()
    until(lambda: gate.waiting)
    session.stop()
    gate.open()
    until(lambda: not painter.is_running)
    assert part.seen[-1] is SessionState.STOPPED
    session.start()
    wake(session)
    assert painter.is_running
    until(lambda: part.seen[-1] is SessionState.RUNNING)


def test_sessions_of_others_do_not_wake_it(session, painter, tmp_path):
    until(lambda: painter.is_running)
    painter.session = None
    until(lambda: not painter.is_running)
    wake(session)
    assert not painter.is_running


def test_a_part_that_fails_is_told_once_and_the_others_are_painted(session, part):
    painter = Painter(part.tell)
    painter.add(part.broken)
    painter.add(part.paint)
    painter.session = session
    until(lambda: len(part.seen) > 3)
    painter.close()
    assert part.errors == ["a part that fails"]


def test_it_ends_when_nobody_has_its_parts_any_more(session):
    part = Part(session)
    painter = Painter(part.tell)
    painter.add(part.paint)
    painter.session = session
    seen = part.seen
    until(lambda: seen)
    del part
    gc.collect()
    until(lambda: not painter.is_running)


def test_it_ends_when_nobody_has_itself_any_more(session, part):
    painter = Painter(part.tell)
    painter.add(part.paint)
    painter.session = session
    until(lambda: part.seen)
    del painter
    gc.collect()
    until(lambda: not threads("glmlab-ticker"))


def test_closed_it_stays_so(session, part):
    painter = Painter(part.tell)
    painter.add(part.paint)
    painter.session = session
    painter.close()
    painter.wake()
    assert not painter.is_running


def test_who_is_woken_during_its_last_paint_paints_once_more(session, gate):
    """A click that comes while the end is painted is not forgotten."""
    gate.open(1000)
    session.start()
    session.wait()

    class Slow(Part):
        def paint(self) -> None:
            super().paint()
            if len(self.seen) == 1:
                assert slow_painter.wake()  # as a click does, after this part has been drawn

    part = Slow(session)
    slow_painter = Painter(part.tell)
    slow_painter.add(part.paint)
    slow_painter.session = session
    until(lambda: not slow_painter.is_running)
    assert len(part.seen) == 2
    slow_painter.close()
