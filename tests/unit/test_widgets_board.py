"""Board: what a session shows while it runs, and what is left when it ends."""

from __future__ import annotations

import gc

import pytest
from ipywidgets import Widget

from glmlab.errors import EngineDiedError, StorageError
from glmlab.session import Session, SessionState
from glmlab.study_lock import study_lock
from glmlab.widgets.board import Board
from glmlab.widgets.board_charts import CHARTS
from tests.boards import rest, show
from tests.doubles import scripted_start
from tests.studies import LIVE, spec, split_helps
from tests.watched import threads, until, words

NAMES = ["History", "Time", "Heat map", "Parallel", "Pareto", "Cost", "Confirmation"]


# ------------------------------------------------------------------------------ while it runs
def test_it_shows_how_far_the_study_is_and_the_best_with_unit_and_evidence(make_board, gate):
    session, board = make_board(scripted_start(gate))
    session.start()
    gate.open(2)
    until(lambda: session.status.done == 2 and gate.waiting)
    board.paint()
    assert (board.progress.bar.value, board.progress.bar.max) == (2, 4)
    assert board.progress.bar.description == "2 of 4 trials"
    shown = words(board.progress.figures)
    assert "best so far tpot 7.968 ms" in shown
    assert "spent on trials" in shown
    assert "left" in shown
    gate.open(1000)
    session.wait()
    rest(session, board)
    assert board.progress.bar.description == "4 of 4 trials"
    assert words(board.controls.state) == "Study unit: Finished, 4 trials done"


def test_what_is_under_way_for_long_is_said_with_its_seconds(make_board, gate, monkeypatch):
    monkeypatch.setattr("glmlab.widgets.progress_panel._QUIET_S", 0.0)
    session, board = make_board(scripted_start(gate))
    session.start()
    until(lambda: gate.waiting)
    until(lambda: "running trial 0 for" in words(board.progress.figures))


@pytest.mark.parametrize("chart", range(len(CHARTS)), ids=NAMES)
def test_every_chart_is_drawn_with_a_table_of_its_numbers(make_board, chart):
    session, board = make_board(scripted_start(split_helps))
    session.start()
    session.wait()
    rest(session, board)
    board.chart_box.children[-1].selected_index = 0
    data = show(board, chart) if chart else board.chart_box.data
    assert not data.is_empty
    assert "simulated" in data.evidence
    shown = words(board.chart_box.children[-1].children[0])
    for name in data.columns():
        assert name in shown
    [output] = board.chart_box.children[0].outputs
    assert output["data"]["application/vnd.plotly.v1+json"]["data"]


def test_what_a_chart_is_about_can_be_chosen(make_board):
    session, board = make_board(
        scripted_start(split_helps), workload={"contexts": [64], "batch_sizes": [1, 2]}
    )
    session.start()
    session.wait()
    rest(session, board)
    assert board.knob.disabled
    assert board.batch.disabled
    assert show(board, 1).knob == "cpu_split_kv"
    assert (board.knob.disabled, board.batch.disabled) == (False, True)
    board.knob.value = "block_size"
    until(lambda: board.chart_box.data.knob == "block_size")
    show(board, 2)
    board.batch.value = 2
    until(lambda: "batch 2" in board.chart_box.data.title)
    board.session = None
    assert board.knob.value is None


def test_a_table_is_not_written_while_it_is_folded_in(make_board):
    session, board = make_board(scripted_start(split_helps))
    session.start()
    session.wait()
    rest(session, board)
    assert board.chart_box.table == ""
    board.chart_box.children[-1].selected_index = 0
    assert "4 rows" in board.chart_box.table


def test_an_engine_that_dies_is_a_failed_trial_with_its_reason_and_log(make_board):
    dies = {2: EngineDiedError("the engine <b>died</b>", log_tail="CUDA error: <script>alert(1)</script>")}
    session, board = make_board(scripted_start(split_helps, measure_fails=dies))
    session.start()
    session.wait()
    rest(session, board)
    assert board.journal.get_title(1) == "Failed, blocked or interrupted trials (1)"
    board.journal.selected_index = 1
    shown = board.journal.failures
    assert "the engine <b>died</b>" in words(shown)
    assert "CUDA error: <script>alert(1)</script>" in words(shown)
    assert "<script" not in shown.value
    assert "<b>died" not in shown.value
    assert session.summary().verdict is not None


def test_a_study_that_cannot_run_says_why_and_is_intact(make_board, url):
    session, board = make_board(scripted_start(measure_fails={1: EngineDiedError("gone")}))
    session.start()
    rest(session, board)
    assert "Failed: study 'unit': the baseline failed: gone" in words(board.controls.state)
    board.journal.selected_index = 0
    assert "ERROR" in words(board.journal.messages)
    session.start()
    board.painter.wake()
    session.wait()
    rest(session, board)
    # The one that failed is counted too, and tried again.
    assert words(board.controls.state) == "Study unit: Finished, 5 trials done"


def test_a_click_on_start_wakes_a_board_whose_session_had_ended(make_board, gate):
    session, board = make_board(scripted_start(gate))
    session.start()
    until(lambda: gate.waiting)
    session.stop()
    gate.open()
    rest(session, board)
    board.controls.buttons["start"].click()
    assert board.painter.is_running
    gate.open(1000)
    session.wait()
    rest(session, board)
    assert board.progress.bar.description == "4 of 4 trials"


def test_two_boards_of_one_session_both_follow(make_board, gate, boards):
    session, first = make_board(scripted_start(gate))
    second = Board(session, live=False)
    boards(second)
    first.controls.buttons["start"].click()
    until(lambda: gate.waiting)
    until(lambda: "Running trial 0" in words(second.controls.state))
    gate.open(1000)
    session.wait()
    rest(session, second)
    assert second.progress.bar.description == "4 of 4 trials"


def test_a_study_of_another_process_is_looked_at_again_and_a_storage_that_is_gone_is_said(
    url, boards, monkeypatch
):
    monkeypatch.setattr("glmlab.widgets.painter._LOOK_S", 0.0)
    with Session(spec(LIVE), url, start=scripted_start(split_helps)) as former:
        former.start()
        former.wait()
    with study_lock("unit", url):
        session = Session(spec(LIVE), url, start=scripted_start(split_helps))
        looks = []

        def refresh() -> None:
            looks.append(1)
            if len(looks) > 2:
                raise StorageError("storage is gone: <mount> it again")

        monkeypatch.setattr(session, "refresh", refresh)
        board = Board(session, live=False)
        boards(board)
        assert session.status.state is SessionState.ELSEWHERE
        until(lambda: board.notice.text)
        assert board.notice.text == "storage is gone: <mount> it again"
        assert "<mount>" not in board.notice.children[1].value
        assert board.painter.is_running
        until(lambda: len(looks) > 4)


# ------------------------------------------------------------------------------ its end
def test_twenty_boards_leave_no_thread(url, gate):
    with Session(spec(LIVE), url, start=scripted_start(gate)) as session:
        session.start()
        until(lambda: gate.waiting)
        made = [Board(session, live=False) for _ in range(20)]
        assert len(threads("glmlab-ticker")) == 20
        for board in made:
            board.close()
        until(lambda: not threads("glmlab-ticker"))
        gate.open(1000)


def test_boards_of_a_session_that_ends_end_too(url, gate):
    with Session(spec(LIVE), url, start=scripted_start(gate)) as session:
        session.start()
        made = [Board(session, live=False) for _ in range(5)]
        gate.open(1000)
        session.wait()
        until(lambda: not threads("glmlab-ticker"))
        for board in made:
            assert "Finished" in words(board.controls.state)
            board.close()


def test_a_board_that_was_taken_off_the_page_and_dropped_is_collected_with_its_thread(url, gate):
    with Session(spec(LIVE), url, start=scripted_start(gate)) as session:
        session.start()
        until(lambda: gate.waiting)
        board = Board(session, live=False)
        until(lambda: threads("glmlab-ticker"))
        del board
        Widget.close_all()
        gc.collect()
        until(lambda: not threads("glmlab-ticker"))
        gate.open(1000)


def test_closing_a_board_leaves_the_session_alone(make_board, gate):
    session, board = make_board(scripted_start(gate))
    session.start()
    until(lambda: gate.waiting)
    board.close()
    gate.open(1000)
    assert session.wait().trials["complete"] == 4
