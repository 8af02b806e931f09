"""A study in the background: what each turn of the wheel does, what is seen, what is refused."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import glmlab
from glmlab.errors import EngineDiedError, KnobError, SessionError, StorageError, StudyError
from glmlab.session import Session, SessionState, attach
from glmlab.storage import StudyStore
from glmlab.study import Study
from glmlab.study_lock import study_lock
from glmlab.study_spec import Budget
from tests.doubles import Knobs, scripted_start
from tests.studies import LIVE, SAMPLED, TWO_PLANS, bowl, spec, split_helps


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


class Gate:
    """Lets measurements through one by one, so that a test knows what is under way."""

    def __init__(self) -> None:
        self._through = threading.Semaphore(0)
        self.waiting = 0

    def __call__(self, knobs: Knobs) -> float:
        self.waiting += 1
        assert self._through.acquire(timeout=60)
        self.waiting -= 1
        return float(split_helps(knobs))

    def open(self, count: int = 1) -> None:
        self._through.release(count)


def until(true: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline, "it did not come to that"
        time.sleep(0.005)


@pytest.fixture
def gate() -> Iterator[Gate]:
    made = Gate()
    yield made
    made.open(1000)


def gated(url: str, gate: Gate, **changes: Any) -> Session:
    return Session(spec(**changes), url, start=scripted_start(gate))


def states(session: Session) -> list[str]:
    return [event.text for event in session.events()[0] if event.kind == "state"]


# ---------------------------------------------------------------------------- a run
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


# ---------------------------------------------------------------------------- the wheel
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


def slow_replay(file: Path) -> Any:
    from glmlab.engines.replay_start import Replay

    study = Study(file)
    return Replay.find(study.spec.base_recipe, moved=study.spec.knob_space.live, speed=0.5)


def test_close_aborts_and_waits(url: str) -> None:
    file = Path(glmlab.__file__).parent / "data/studies/replay-kv-splits.yaml"
    with Session(file, url, start=slow_replay(file)) as session:
        session.start()
    assert session.status.state == "aborted"
    assert "glmlab-session-replay-kv-splits" not in [thread.name for thread in threading.enumerate()]


# ---------------------------------------------------------------------------- wishes and budget
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
    with pytest.raises(KnobError, match=r"cpu_split_kv = False, block_size = 32: was tried as trial #\d"):
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
    with pytest.raises(SessionError, match="rounds = 2: expected a whole number, 3 or more"):
        session.confirm(2)
    session.confirm(5)
    assert session.wait().verdict.rounds == 5  # type: ignore[union-attr]
    assert len(session.visits()) == 10
    assert len(session.records()) == 4


# ---------------------------------------------------------------------------- failures
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


# ---------------------------------------------------------------------------- finding it again
def test_attach_gives_the_running_session(url: str, gate: Gate) -> None:
    session = gated(url, gate)
    session.start()
    until(lambda: gate.waiting)
    assert attach("unit", url) is session
    with pytest.raises(SessionError, match=r"runs in this process already: glmlab\.attach"):
        Session(spec(), url)
    gate.open(100)
    session.wait()


def test_a_session_that_nobody_holds_runs_on_and_is_found(url: str, gate: Gate) -> None:
    gated(url, gate).start()
    until(lambda: gate.waiting)
    gc.collect()
    session = attach("unit", url)
    assert session.is_active
    gate.open(100)
    assert session.wait().trials["complete"] == 4


def test_attach_rebuilds_a_session_from_the_storage(url: str) -> None:
    Study(spec(), url, start=scripted_start(split_helps)).run(budget=Budget(trials=2))
    session = attach("unit", url)
    assert session.status.text == "Not running, 2 trials stored"
    assert len(session.records()) == 2
    assert session.summary() is not None
    assert session.baseline == {"cpu_split_kv": True, "block_size": 32}
    assert "device" not in session.status.best
    assert session.status.best.endswith(" ms")


def test_attach_knows_that_a_study_is_finished(url: str) -> None:
    Study(spec(), url, start=scripted_start(split_helps)).run()
    session = attach("unit", url)
    assert session.status.text == "Finished, 4 trials done"
    session.start()  # nothing is left to do, and no engine that could be asked for is started
    assert session.wait().verdict is not None


def test_who_watches_is_called_at_each_change_of_state(url: str) -> None:
    class Watcher:
        def __init__(self, session: Session) -> None:
            self.session, self.seen = session, [session.state]

        def look(self) -> None:
            self.seen.append(self.session.state)

    session = Session(spec(), url, start=scripted_start(split_helps))
    watcher, dropped = Watcher(session), Watcher(session)
    session.watch(watcher.look)
    session.watch(watcher.look)  # once is enough
    session.watch(dropped.look)
    seen = dropped.seen
    del dropped
    session.start()
    session.wait()
    assert watcher.seen == ["new", "running", "finished"]
    assert seen == ["new"]


def test_attach_names_what_there_is(url: str) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        attach("unit", url)
    Study(spec(), url, start=scripted_start(split_helps)).run()
    with pytest.raises(StorageError, match="did you mean unit"):
        attach("unti", url)


def test_a_study_that_runs_elsewhere_is_watched_not_steered(url: str) -> None:
    Study(spec(), url, start=scripted_start(split_helps)).run(budget=Budget(trials=1))
    session = attach("unit", url)
    with study_lock("unit", url):  # as another process would hold it
        session.refresh()
        assert session.status.state == "elsewhere"
        assert session.status.text == "Another process runs this study, 1 trial done so far"
        assert not session.status.can
        with pytest.raises(SessionError, match="cannot start now"):
            session.start()
    session.refresh()
    assert session.status.state == "new"


def test_a_study_that_another_process_began_meanwhile_is_not_started(url: str) -> None:
    session = Session(spec(), url, start=scripted_start(split_helps))
    with study_lock("unit", url), pytest.raises(SessionError, match="another process runs it"):
        session.start()
    assert session.status.state == "elsewhere"
    assert session.records() == []


def test_a_changed_study_is_refused_and_nothing_is_lost(url: str) -> None:
    Study(spec(), url, start=scripted_start(split_helps)).run()
    session = Session(spec(TWO_PLANS, seed=7), url, start=scripted_start(split_helps))
    session.start()
    with pytest.raises(StudyError, match="changed since its first run: seed"):
        session.wait()
    assert len(StudyStore.load("unit", url).records()) == 4


def test_states_are_plain_words() -> None:
    assert f"{SessionState.PAUSED}" == "paused"
