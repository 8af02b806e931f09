"""Board: what a session shows while it runs, bounded however long that takes."""

from __future__ import annotations

import dataclasses
import functools
import gc
import time
from typing import Any

import pytest
from ipywidgets import Widget

from glmlab.errors import EngineDiedError, StorageError
from glmlab.session import Session, SessionState
from glmlab.session.events import EventLog
from glmlab.session.state import SessionStatus, actions
from glmlab.study_lock import study_lock
from glmlab.widgets.board import Board
from glmlab.widgets.board_charts import CHARTS, BoardChart, Lens
from glmlab.widgets.chart_box import ChartBox
from glmlab.widgets.journal import KEPT
from glmlab.widgets.table_twin import cell, table_html
from tests.charted import simple, study, without_value
from tests.doubles import scripted_start
from tests.studies import LIVE, TWO_PLANS, spec, split_helps
from tests.watched import Gate, threads, until, words

NAMES = ["History", "Time", "Heat map", "Parallel", "Pareto", "Cost", "Confirmation"]


@pytest.fixture
def gate():
    made = Gate(split_helps)
    yield made
    made.open(10_000)


@pytest.fixture
def boards():
    made: list[Board] = []
    yield made.append
    for board in made:
        board.close()
    until(lambda: not threads("glmlab-ticker"))


@pytest.fixture
def make(url, boards):
    sessions = []

    def make(start, space=TWO_PLANS, **changes):
        session = Session(spec(space, **changes), url, start=start)
        sessions.append(session)
        board = Board(session, live=False)
        boards(board)
        return session, board

    yield make
    for session in sessions:
        session.close()


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


@pytest.fixture
def many(boards):
    session: Any = Many()
    board = Board(live=False)
    boards(board)
    # Its own thread would paint too: here it is the test that counts.
    board.painter.close()
    board.session = session
    return session, board


# ------------------------------------------------------------------------------ while it runs
def test_it_shows_how_far_the_study_is_and_the_best_with_unit_and_evidence(make, gate):
    session, board = make(scripted_start(gate))
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


def test_what_is_under_way_for_long_is_said_with_its_seconds(make, gate, monkeypatch):
    monkeypatch.setattr("glmlab.widgets.progress_panel._QUIET_S", 0.0)
    session, board = make(scripted_start(gate))
    session.start()
    until(lambda: gate.waiting)
    until(lambda: "running trial 0 for" in words(board.progress.figures))


@pytest.mark.parametrize("chart", range(len(CHARTS)), ids=NAMES)
def test_every_chart_is_drawn_with_a_table_of_its_numbers(make, chart):
    session, board = make(scripted_start(split_helps))
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


def test_what_a_chart_is_about_can_be_chosen(make):
    session, board = make(scripted_start(split_helps), workload={"contexts": [64], "batch_sizes": [1, 2]})
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


def test_a_table_is_not_written_while_it_is_folded_in(make):
    session, board = make(scripted_start(split_helps))
    session.start()
    session.wait()
    rest(session, board)
    assert board.chart_box.table == ""
    board.chart_box.children[-1].selected_index = 0
    assert "4 rows" in board.chart_box.table


def test_an_engine_that_dies_is_a_failed_trial_with_its_reason_and_log(make):
    dies = {2: EngineDiedError("the engine <b>died</b>", log_tail="CUDA error: <script>alert(1)</script>")}
    session, board = make(scripted_start(split_helps, measure_fails=dies))
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


def test_a_study_that_cannot_run_says_why_and_is_intact(make, url):
    session, board = make(scripted_start(measure_fails={1: EngineDiedError("gone")}))
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


def test_a_click_on_start_wakes_a_board_whose_session_had_ended(make, gate):
    session, board = make(scripted_start(gate))
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


def test_two_boards_of_one_session_both_follow(make, gate, boards):
    session, first = make(scripted_start(gate))
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


# ------------------------------------------------------------------------------ bounded
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


def test_closing_a_board_leaves_the_session_alone(make, gate):
    session, board = make(scripted_start(gate))
    session.start()
    until(lambda: gate.waiting)
    board.close()
    gate.open(1000)
    assert session.wait().trials["complete"] == 4


# ------------------------------------------------------------------------------ chart box and table
def test_a_live_chart_keeps_its_widget_over_charts():
    box = ChartBox()
    assert box.is_live
    assert not list(box.children), "without a chart no frame for one"
    session: Any = Many()
    session.add(3)
    canvases = set()
    for data, draw in [(chart.read(session, Lens()), chart.draw) for chart in CHARTS]:
        box.show(data, functools.partial(_in_light, draw))
        canvases.add(id(box.children[0]))
    assert len(canvases) == 1
    assert box.painted == len(CHARTS)
    box.close()


def _in_light(draw: Any, data: Any) -> Any:
    return draw(data, "light")


def test_without_anywidget_the_chart_is_an_output(monkeypatch):
    def missing(*_, **__):
        raise ImportError("Please install anywidget to use the FigureWidget class")

    monkeypatch.setattr("glmlab.widgets.chart_box.go.FigureWidget", missing)
    box = ChartBox()
    assert not box.is_live
    session: Any = Many()
    session.add(3)
    box.show(CHARTS[0].read(session, Lens()), lambda data: CHARTS[0].draw(data, "auto"))
    [output] = box.children[0].outputs
    assert output["data"]["text/plain"] == "Trials of unit: tpot_ms (measured)"


def test_a_table_says_how_many_rows_there_are_and_escapes_each_value():
    columns: dict[str, list[Any]] = {"trial": list(range(120)), "<knob>": [f"<i>{n}</i>" for n in range(120)]}
    shown = table_html(columns, caption="A & B", most=10, newest=True)
    assert "A &amp; B: the last 10 of 120 rows" in shown
    assert "&lt;i&gt;119&lt;/i&gt;" in shown
    assert "&lt;i&gt;109&lt;/i&gt;" not in shown
    assert "<i>" not in shown
    assert "the first 10 of 120 rows" in table_html(columns, most=10)
    assert "1 row<" in table_html({"a": [1]})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (True, "true"),
        (0.0, "0"),
        (1234.5, "1,234"),
        (0.12345, "0.1235"),
        (0.00001, "0.000010"),
        (float("nan"), ""),
        (7, "7"),
    ],
)
def test_a_cell_is_written_as_people_write_it(value, shown):
    assert cell(value) == shown
