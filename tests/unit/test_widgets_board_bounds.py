"""Board: bounded however long a session runs."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

from ipywidgets import Widget

from glmlab.session import Session
from glmlab.widgets.board_charts import CHARTS, BoardChart, Lens
from glmlab.widgets.journal import KEPT
from tests.charted import without_value
from tests.watched import words


def test_nothing_is_sent_while_nothing_happens(many, monkeypatch):
    session, board = many
    session.add(20)
    board.paint()
    sent = []
    monkeypatch.setattr(Widget, "send_state", lambda self, key=None: sent.append((self, key)))
    monkeypatch.setattr("glmlab.widgets.progress_panel._QUIET_S", 1e9)
    painted = board.chart_box.painted
    for _ in range(10):
        board.paint()
    assert sent == []
    assert board.chart_box.painted == painted


def test_however_many_trials_come_a_look_paints_once_and_only_the_chart_that_is_shown(many):
    session, board = many
    drawn: list[str] = []

    def counted(chart: BoardChart) -> BoardChart:
        def read(session: Session, lens: Lens) -> Any:
            drawn.append(chart.label)
            return chart.read(session, lens)

        return dataclasses.replace(chart, read=read)

    board.choice.options = [(label, counted(chart)) for label, chart in board.choice.options]
    board.paint()
    drawn.clear()
    for _ in range(20):
        session.add(250)
        board.paint()
    assert drawn == [CHARTS[0].label] * 20
    assert len(session.trials) == 5000
    assert board.progress.bar.description == "5,000 of 5,000 trials"


def test_a_board_that_nobody_sees_draws_no_chart_and_catches_up(many):
    session, board = many
    painted = board.chart_box.painted
    board.is_visible = False
    session.add(5)
    board.paint()
    assert board.chart_box.painted == painted
    assert board.progress.bar.value == 5
    board.is_visible = True
    assert board.chart_box.painted == painted + 1


def test_a_paint_of_ten_times_the_trials_costs_little_more_than_ten_times_as_much(many):
    session, board = many

    def seconds() -> float:
        best = float("inf")
        for _ in range(3):
            session.add(1)
            begin = time.process_time()
            board.paint()
            best = min(best, time.process_time() - begin)
        return best

    session.add(497)
    board.paint()
    few = seconds()
    session.add(4500)
    board.paint()
    assert seconds() < 30 * few


def test_messages_are_bounded_and_their_number_is_said(many):
    session, board = many
    board.journal.selected_index = 0
    for number in range(KEPT + 50):
        session.log.add("message", f"message <i>{number}</i>")
    session.log.add("error", "x" * 100_000)
    board.paint()
    shown = words(board.journal.messages)
    assert f"the last {KEPT} of {KEPT + 51}" in shown
    assert f"message <i>{KEPT + 49}</i>" in shown
    assert "message <i>10</i>" not in shown
    assert "<i>" not in board.journal.messages.value
    assert len(board.journal.messages.value) < 20_000


def test_failures_are_bounded_and_counted_on_from_where_they_were(many):
    session, board = many
    session.trials = [without_value(number, "failed", f"reason {number}") for number in range(200)]
    session.log.add("trial", "many")
    board.journal.selected_index = 1
    board.paint()
    assert board.journal.get_title(1) == "Failed, blocked or interrupted trials (200)"
    shown = words(board.journal.failures)
    assert "the last 50 of 200 rows" in shown
    assert "reason 199" in shown
    assert "reason 100" not in shown
