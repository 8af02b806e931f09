"""A study in the background: what each turn of the wheel does, what is seen, what is told."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

import glmlab
from glmlab.errors import EngineDiedError, SessionError, StorageError
from glmlab.session import Session
from glmlab.storage import StudyStore
from glmlab.study import Study
from tests.doubles import Knobs, scripted_start
from tests.sessions import gated, slow_replay, states
from tests.studies import LIVE, spec, split_helps
from tests.watched import Gate, until


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


# ------------------------------------------------------------------------------ a run
def test_it_gives_what_the_study_gives(tmp_path: Path, url: str) -> None:
    session = Session(spec(), url, start=scripted_start(split_helps))
    session.start()
    summary = session.wait()
    other = f"sqlite:///{tmp_path / 'other.db'}"
    alone = Study(spec(), other, start=scripted_start(split_helps)).run()
    assert [r.params for r in session.records()] == [
        r.params for r in StudyStore.load("unit", other).records()
    ]
    assert summary.verdict == alone.verdict
    assert session.summary() == summary
    assert len(session.visits()) == 6
    assert session.status.state == "finished"
    assert session.status.text == "Finished, 4 trials done"
    assert (session.status.done, session.status.total) == (4, 4)
    assert session.status.spent_s == pytest.approx(sum(r.cost.total_s for r in session.records()))


def test_start_returns_while_the_first_trial_runs(url: str, gate: Gate) -> None:
    session = gated(url, gate)
    session.start()
    until(lambda: gate.waiting)
    status = session.status
    assert (status.state, status.trial, status.text) == ("running", 0, "Running trial 0")
    assert status.can == {"pause", "stop", "abort", "enqueue", "extend"}
    gate.open(100)
    assert session.wait().trials["complete"] == 4


def test_every_view_reads_the_events_from_where_it_was(url: str, gate: Gate) -> None:
    session = gated(url, gate)
    session.start()
    until(lambda: gate.waiting)
    first, cursor = session.events()
    gate.open(100)
    session.wait()
    rest, end = session.events(cursor)
    whole, _ = session.events()
    assert first + rest == whole
    assert [event.serial for event in whole] == list(range(end))
    assert [event.trial for event in whole if event.kind == "trial"] == [0, 1, 2, 3]
    assert sum(event.kind == "visit" for event in whole) == 6
    assert session.events(end) == ((), end)


# ------------------------------------------------------------------------------ the wheel
def test_a_pause_keeps_the_engine_and_goes_on_where_it_was(url: str, gate: Gate) -> None:
    script = scripted_start(gate)
    session = Session(spec(LIVE), url, start=script)
    session.start()
    until(lambda: gate.waiting)
    session.pause()
    assert session.status.text == "Pausing after trial 0"
    gate.open(100)
    until(lambda: session.status.state == "paused")
    assert session.status.text == "Paused, 1 trial done; the engine is kept"
    assert (script.running, script.closes, len(script.measured)) == (1, 0, 1)
    session.resume()
    session.wait()
    assert len(script.starts) == 1
    assert states(session)[1:4] == [
        "Pausing after trial 0",
        "Paused, 1 trial done; the engine is kept",
        "Running",
    ]


def test_a_pause_is_charged_to_no_trial(url: str, gate: Gate) -> None:
    session = gated(url, gate, space=LIVE)
    session.start()
    until(lambda: gate.waiting)
    session.pause()
    gate.open(100)
    until(lambda: session.status.state == "paused")
    begin = time.monotonic()
    time.sleep(1.0)
    session.resume()
    session.wait()
    assert session.records()[1].cost.total_s < time.monotonic() - begin - 0.5


def test_a_stop_ends_after_the_trial_and_start_goes_on(url: str, gate: Gate) -> None:
    script = scripted_start(gate)
    session = Session(spec(), url, start=script)
    session.start()
    until(lambda: gate.waiting)
    session.stop()
    assert session.status.text == "Stopping after trial 0"
    assert session.status.can == {"abort"}
    gate.open(100)
    summary = session.wait()
    assert (session.status.state, summary.trials["complete"], summary.verdict) == ("stopped", 1, None)
    assert script.running == 0
    session.start()
    assert session.wait().verdict is not None
    assert [record.number for record in session.records()] == [0, 1, 2, 3]


def test_a_paused_session_can_be_stopped(url: str, gate: Gate) -> None:
    session = gated(url, gate)
    session.start()
    until(lambda: gate.waiting)
    session.pause()
    gate.open(100)
    until(lambda: session.status.state == "paused")
    session.stop()
    session.wait(60)
    assert session.status.state == "stopped"


def test_what_cannot_be_done_now_is_refused(url: str, gate: Gate) -> None:
    session = gated(url, gate)
    for action in (session.pause, session.resume, session.stop, session.abort):
        with pytest.raises(SessionError, match=r"study 'unit': cannot \w+ now: not started"):
            action()
    session.start()
    until(lambda: gate.waiting)
    with pytest.raises(SessionError, match="cannot start now: running trial 0"):
        session.start()
    with pytest.raises(SessionError, match="cannot resume now"):
        session.resume()
    with pytest.raises(SessionError, match=r"still running trial 0 after 0\.01 s"):
        session.wait(0.01)


def test_an_abort_leaves_the_trial_to_be_tried_again(tmp_path: Path, url: str) -> None:
    """A replay in real time waits for minutes; an abort does not."""
    file = Path(glmlab.__file__).parent / "data/studies/replay-kv-splits.yaml"
    session = Session(file, url, start=slow_replay(file))
    session.start()
    until(lambda: session.status.state == "running")
    session.abort()
    session._thread.join(30)  # type: ignore[union-attr]
    assert session.status.state == "aborted"
    assert session.status.error == ""
    with pytest.raises(SessionError, match="has no trial yet"):
        session.wait()


def test_close_aborts_and_waits(url: str) -> None:
    file = Path(glmlab.__file__).parent / "data/studies/replay-kv-splits.yaml"
    with Session(file, url, start=slow_replay(file)) as session:
        session.start()
    assert session.status.state == "aborted"
    assert "glmlab-session-replay-kv-splits" not in [thread.name for thread in threading.enumerate()]


# ------------------------------------------------------------------------------ failures
def test_a_dead_engine_is_data_and_the_study_goes_on(url: str) -> None:
    script = scripted_start(
        split_helps, measure_fails={2: EngineDiedError("it died", log_tail="the last line")}
    )
    session = Session(spec(LIVE), url, start=script)
    session.start()
    assert session.wait().trials == {"complete": 1, "failed": 1, "blocked": 0}
    assert any("it died" in event.text for event in session.events()[0])


def test_what_ends_a_run_is_told_in_words(url: str) -> None:
    session = Session(spec(), url, start=scripted_start(start_fails=lambda recipe: "no memory left"))
    session.start()
    with pytest.raises(glmlab.GlmlabError, match="no memory left"):
        session.wait()
    assert session.status.text == "Failed: no memory left"
    errors = [event.text for event in session.events()[0] if event.kind == "error"]
    assert errors == ["no memory left\nthe last line of the log"]
    assert session.status.can == {"start", "enqueue", "extend"}


def test_a_bug_is_told_with_its_traceback(url: str, caplog: pytest.LogCaptureFixture) -> None:
    def broken(knobs: Knobs) -> float:
        raise ZeroDivisionError("a bug")

    session = Session(spec(), url, start=scripted_start(broken))
    session.start()
    with pytest.raises(ZeroDivisionError):
        session.wait()
    errors = [event.text for event in session.events()[0] if event.kind == "error"]
    assert "Traceback" in errors[0]
    assert "ZeroDivisionError: a bug" in errors[0]
    assert "study unit failed" in caplog.text


def test_a_storage_that_is_gone_is_told(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'gone' / 'studies.db'}"
    session = Session(spec(), url, start=scripted_start(split_helps))
    session.start()
    with pytest.raises(StorageError, match="does not exist; make it first"):
        session.wait()
    assert session.status.state == "failed"
