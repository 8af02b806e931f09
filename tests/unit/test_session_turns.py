"""The wheel of a session turned at awkward moments: nothing is stuck, lost, or counted wrongly."""

from __future__ import annotations

import contextlib
import gc
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from glmlab.errors import SessionError, StorageError
from glmlab.session import Session, SessionState, attach
from glmlab.study_spec import Budget
from tests.doubles import Knobs, scripted_start
from tests.sessions import gated
from tests.studies import LIVE, SAMPLED, bowl, spec, split_helps
from tests.watched import Gate, until


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As in an interpreter that ends, from Python 3.12 on."""

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", refuse)
    return monkeypatch


def test_one_that_pauses_again_at_once_is_paused_not_pausing(url: str, gate: Gate) -> None:
    session = gated(url, gate, space=LIVE)
    session.start()
    until(lambda: gate.waiting)
    session.pause()
    gate.open(100)
    until(lambda: session.state is SessionState.PAUSED)
    for _ in range(20):
        session.resume()
        session.pause()
        until(lambda: session.state is SessionState.PAUSED)
    session.resume()
    assert session.wait().trials["complete"] == 2


def test_turns_of_many_threads_leave_the_wheel_where_the_state_says(url: str, gate: Gate) -> None:
    session = gated(url, gate, space=LIVE)
    session.start()
    until(lambda: gate.waiting)

    def turn() -> None:
        for action in (session.pause, session.resume) * 50:
            with contextlib.suppress(SessionError):
                action()

    threads = [threading.Thread(target=turn) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    wheel = session._wheel
    assert wheel is not None
    assert wheel._is_paused is (session.state is SessionState.PAUSING)
    if session.state is SessionState.PAUSING:
        session.resume()
    gate.open(100)
    session.wait(60)


def test_a_run_that_leaves_by_sys_exit_has_failed(url: str) -> None:
    def leaves(knobs: Knobs) -> float:
        raise SystemExit(3)

    session = Session(spec(), url, start=scripted_start(leaves))
    session.start()
    with pytest.raises(SystemExit):
        session.wait(60)
    assert session.state is SessionState.FAILED
    assert "start" in session.status.can


def test_where_there_is_no_thread_it_does_not_run(url: str, no_threads: pytest.MonkeyPatch) -> None:
    session = Session(spec(), url, start=scripted_start(split_helps))
    with pytest.raises(RuntimeError, match="can't create new thread"):
        session.start()
    assert session.state is SessionState.FAILED
    no_threads.undo()
    session.start()
    assert session.wait().verdict is not None


def test_an_abort_needs_no_thread(url: str, gate: Gate, request: pytest.FixtureRequest) -> None:
    session = gated(url, gate, space=LIVE)
    session.start()
    until(lambda: gate.waiting)
    request.getfixturevalue("no_threads")
    session.abort()
    assert session._wheel is not None
    assert session._wheel.handle.is_ended


def test_a_view_that_fails_does_not_hold_the_session(url: str, caplog: pytest.LogCaptureFixture) -> None:
    class View:
        def look(self) -> None:
            raise ZeroDivisionError("of the view")

    view, session = View(), Session(spec(), url, start=scripted_start(split_helps))
    session.watch(view.look)
    session.start()
    assert session.wait().verdict is not None
    assert "a view could not be told" in caplog.text


def test_a_point_that_was_aborted_twice_is_tried_again(url: str, gate: Gate) -> None:
    sessions: list[Session] = []

    def steps(knobs: Knobs) -> float:
        latency = gate(knobs)
        sessions[0]._wheel.handle.check()  # type: ignore[union-attr]
        return latency

    session = Session(spec(LIVE), url, start=scripted_start(steps))
    sessions.append(session)
    gate.open()  # the baseline
    for _ in range(2):
        session.start()
        until(lambda: session.status.trial and gate.waiting)
        session.abort()
        until(lambda: session._wheel.handle.is_ended)  # type: ignore[union-attr]
        gate.open()
        until(lambda: not session.is_active)
        assert session.records()[-1].reason == "stopped by the user"
    gate.open(100)
    session.start()
    summary = session.wait()
    assert [(r.number, r.status) for r in session.records()][-2:] == [(2, "interrupted"), (3, "complete")]
    assert summary.best is not None
    assert summary.best.params == {"cpu_split_kv": False}


def test_a_wish_that_was_aborted_comes_first_again(url: str, gate: Gate) -> None:
    sessions: list[Session] = []

    def steps(knobs: Knobs) -> float:
        latency = gate(knobs)
        sessions[0]._wheel.handle.check()  # type: ignore[union-attr]
        return latency

    session = Session(spec(SAMPLED, budget={"trials": 2}), url, start=scripted_start(steps))
    sessions.append(session)
    point = session.enqueue(max_num_batched_tokens=600)
    gate.open()  # the baseline
    session.start()
    until(lambda: session.status.trial and gate.waiting)
    session.abort()
    until(lambda: session._wheel.handle.is_ended)  # type: ignore[union-attr]
    gate.open()
    until(lambda: not session.is_active)
    gate.open(100)
    session.start()
    session.wait()
    assert session.records()[-1].params.items() >= point.items()


def test_a_wish_that_was_granted_already_spends_no_budget(url: str) -> None:
    session = Session(spec(SAMPLED, budget={"trials": 2}), url, start=scripted_start(bowl))
    session.start()
    session.wait()
    session.enqueue(max_num_batched_tokens=600)
    session.enqueue(max_num_batched_tokens=600)
    session.start()
    session.wait()
    assert len(session.records()) == 3
    assert any("was tried already" in event.text for event in session.events()[0])


def test_what_is_asked_for_during_the_confirmation_is_done_in_this_run(url: str, gate: Gate) -> None:
    session = gated(url, gate, space=SAMPLED, budget={"trials": 2})
    session.start()
    gate.open(2)
    until(lambda: session.status.text.startswith("Running confirmation") and gate.waiting)
    session.extend(trials=2)
    point = session.enqueue(max_num_batched_tokens=600)
    gate.open(100)
    assert session.wait().verdict is not None
    assert (len(session.records()), session.status.total) == (4, 4)
    assert session.records()[2].params == point


def test_a_budget_given_at_the_start_is_the_one_that_is_extended(url: str, gate: Gate) -> None:
    session = gated(url, gate, space=SAMPLED, budget={"trials": 2})
    session.start(Budget(trials=4))
    until(lambda: gate.waiting)
    session.extend(trials=1)
    assert session.status.total == 5
    gate.open(100)
    session.wait()
    assert len(session.records()) == 5


def test_a_trial_after_a_failure_has_its_own_number(url: str) -> None:
    broken, said = [True], []

    def latency(knobs: Knobs) -> float:
        said.append(session.status.trial)
        if broken[0] and len(said) > 1:
            raise ZeroDivisionError("a bug")
        return 10.0

    session = Session(spec(LIVE), url, start=scripted_start(latency))
    session.start()
    with pytest.raises(ZeroDivisionError):
        session.wait()
    assert [record.status for record in session.records()] == ["complete", "interrupted"]
    broken[0] = False
    session.start()
    session.wait()
    assert said[:3] == [0, 1, 2]
    assert [record.number for record in session.records()] == [0, 1, 2]


def test_what_did_not_end_in_time_is_still_found(
    url: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An engine in this process cannot be killed; closing gives up waiting for it, nothing more."""
    monkeypatch.setattr("glmlab.session.session._CLOSE_S", 0.1)
    session = gated(url, gate, space=LIVE)
    session.start()
    until(lambda: gate.waiting)
    session.close()
    assert session.is_active
    gc.collect()
    assert attach("unit", url) is session
    gate.open(100)
    until(lambda: not session.is_active)


def test_a_slow_storage_keeps_nobody_waiting(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = Session(spec(), url, start=scripted_start(split_helps))
    session.start()
    session.wait()
    reading, go_on = threading.Event(), threading.Event()
    read: Any = session._found.read

    def slowly() -> Any:
        reading.set()
        assert go_on.wait(30)
        return read()

    monkeypatch.setattr(session._found, "read", slowly)
    reader = threading.Thread(target=session.refresh)
    reader.start()
    assert reading.wait(30)
    seen: list[str] = []
    asker = threading.Thread(target=lambda: seen.append(session.status.state))
    asker.start()
    asker.join(5)
    go_on.set()
    reader.join(30)
    assert seen == ["finished"]


def test_a_storage_that_goes_in_the_middle_is_told_by_its_cause(tmp_path: Path, gate: Gate) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    script = scripted_start(gate)
    session = Session(spec(LIVE), f"sqlite:///{folder / 'studies.db'}", start=script)
    session.start()
    until(lambda: gate.waiting)
    shutil.rmtree(folder)
    gate.open(100)
    with pytest.raises(StorageError, match=r"cannot be written \(.*database"):
        session.wait()
    assert session.state is SessionState.FAILED
    assert "invalid data" not in session.status.text
    assert script.running == 0
