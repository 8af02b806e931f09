"""A session that is found again: in this process, in another, from the storage."""

from __future__ import annotations

import gc
from pathlib import Path

import pytest

from glmlab.errors import SessionError, StorageError, StudyError
from glmlab.session import Session, SessionState, attach
from glmlab.storage import StudyStore
from glmlab.study import Study
from glmlab.study_lock import study_lock
from glmlab.study_spec import Budget
from tests.doubles import scripted_start
from tests.sessions import gated
from tests.studies import TWO_PLANS, spec, split_helps
from tests.watched import Gate, until


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


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
