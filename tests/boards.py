"""Boards for tests: drawn once they are asked for, and a session of any number of trials that never ran."""

from __future__ import annotations

from typing import Any

from glmlab.session import Session, SessionState
from glmlab.session.events import EventLog
from glmlab.session.state import SessionStatus, actions
from glmlab.widgets.board import Board
from tests.charted import simple, study
from tests.watched import until


def show(board: Board, chart: int) -> Any:
    """Choose a chart; its data once it is drawn, which the painter does."""
    painted = board.chart_box.painted
    board.show(chart)
    until(lambda: board.chart_box.painted > painted and not board.painter.is_running)
    return board.chart_box.data


def rest(session: Session, board: Board) -> None:
    """Until the session has ended and its end is painted."""
    until(lambda: not session.is_active and not board.painter.is_running)


class Many:
    """A session of any number of trials that were never run: what a board reads of one, from memory."""

    def __init__(self) -> None:
        self.spec, self.name, self.baseline = study(), "many", {"cpu_split_kv": True, "block_size": 32}
        self.log, self.state = EventLog(), SessionState.RUNNING
        self.trials: list[Any] = []
        self.is_active = True

    def watch(self, watcher: Any) -> None:
        """Its state does not change by itself."""

    def add(self, count: int) -> None:
        for number in range(len(self.trials), len(self.trials) + count):
            params = {"cpu_split_kv": number % 3 != 0, "block_size": 32 if number % 2 else 64}
            self.trials.append(simple(number, params, 1.0 + (number * 7919 % 1000) / 1000))
            self.log.add("trial", f"#{number}", number)

    @property
    def status(self) -> SessionStatus:
        done = len(self.trials)
        return SessionStatus(
            state=self.state,
            text=f"Running trial {done}",
            trial=done,
            done=done,
            total=5000,
            spent_s=float(done),
            left_s=1.0,
            best="",
            error="",
            can=actions(self.state),
        )

    def events(self, since):
        return self.log.since(since)

    def records(self):
        return list(self.trials)

    def visits(self):
        return []

    def summary(self):
        return None
