"""Who is answered, on which port, and a study that grows meanwhile."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from optuna_dashboard import get_note

from glmlab import cli
from glmlab.dashboard import Dashboard, serve, server
from glmlab.dashboard.server import Redressed
from glmlab.errors import InputError
from glmlab.storage import StudyStore
from glmlab.study_spec import Budget
from tests.dashboards import ask, recipe_in, serving
from tests.doubles import scripted_start
from tests.studies import TWO_PLANS, run, split_helps


def test_it_serves_the_study_with_note_charts_and_recipe(study):
    with serving(study.storage) as board:
        [listed] = json.loads(ask(f"{board.url}api/studies")[1])["study_summaries"]
        assert listed["study_name"] == "unit"
        detail = json.loads(ask(f"{board.url}api/studies/{listed['study_id']}")[1])
        assert detail["note"]["body"] == get_note(study.store.optuna_study)
        assert {plot["id"] for plot in detail["plotly_graph_objects"]} >= {"glmlab-history", "glmlab-cost"}
        [artifact] = detail["artifacts"]
        status, content = ask(f"{board.url}artifacts/{listed['study_id']}/{artifact['artifact_id']}")
        assert (status, content) == (200, recipe_in(study.store)[1])
        assert ask(f"{board.url}dashboard")[0] == 200


def test_closing_gives_the_port_back_at_once_and_twice_does_no_harm(study):
    board = serve(study.storage, 0)
    board.start()
    board.close()
    board.close()
    with socket.socket() as again:
        again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        again.bind(("127.0.0.1", board.port))


def test_it_answers_this_machine_only(study):
    with serving(study.storage) as board:
        assert board._server.socket.getsockname()[0] == "127.0.0.1"
        here = f"{board.url}api/studies"
        for host in ("localhost:9000", f"127.0.0.1:{board.port}", "[::1]:8080"):
            assert ask(here, Host=host)[0] == 200
        assert ask(here, Origin="http://localhost:8888")[0] == 200
        for headers in (
            {"Host": "evil.example"},
            {"Host": "127.0.0.1.evil.example"},
            {"Origin": "http://evil.example"},
        ):
            status, said = ask(here, **headers)
            assert status == 403
            assert b"localhost and 127.0.0.1 only" in said


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        yield holder.getsockname()[1]


def test_a_default_port_that_is_taken_is_left_and_said(study, taken, monkeypatch, capsys):
    monkeypatch.setattr(server, "DEFAULT_PORT", taken)
    with Dashboard(study.storage) as board:
        assert board.moved
        assert board.port != taken
    monkeypatch.setattr(Dashboard, "serve", lambda self: None)
    with pytest.raises(SystemExit) as end:
        cli.main(["dashboard", "--storage", study.storage])
    assert end.value.code == 0
    assert f"port {taken} is taken, so it is on" in capsys.readouterr().out


def test_a_port_of_ones_own_that_is_taken_is_refused(study, taken):
    with pytest.raises(InputError, match=f"port = {taken}: is taken; name another"):
        Dashboard(study.storage, taken)


@pytest.mark.parametrize("port", [-1, 70000])
def test_a_port_that_is_none_is_refused(study, port):
    with pytest.raises(InputError, match=f"port = {port}: expected 1 to 65535"):
        Dashboard(study.storage, port)


class Clock:
    """Seconds that pass only when they are told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_study_that_has_grown_is_dressed_again_when_it_is_looked_at(url):
    study = run(url, scripted_start(split_helps), Budget(trials=2), space=TWO_PLANS)
    clock = Clock()
    with Dashboard(study.storage, 0) as board:
        seen: list[str] = []

        def app(environ: dict[str, Any], _respond: Any) -> list[bytes]:
            seen.append(environ["PATH_INFO"])
            return []

        redressed = Redressed(app, study.storage, board.studies, clock)

        def look(path: str = "/api/studies/{}", method: str = "GET") -> str:
            identity = study.store.optuna_study._study_id
            redressed({"PATH_INFO": path.format(identity), "REQUEST_METHOD": method}, lambda *_: None)
            return str(get_note(StudyStore.load("unit", url).optuna_study))

        assert "As of 2 trials" in look()
        study.run(budget=Budget(trials=4))
        assert "As of 2 trials" in look()  # too soon
        clock.now = 25.0
        assert "As of 2 trials" in look(method="DELETE")
        assert "As of 2 trials" in look("/api/studies")
        assert "As of 2 trials" in look("/api/studies/999")
        assert "As of 4 trials" in look()
        assert len(seen) == 6


def test_a_study_that_is_not_glmlabs_is_shown_and_left_alone(study):
    other = optuna.create_study(study_name="theirs", storage=study.store.optuna_study._storage)
    other.add_trial(optuna.trial.create_trial(value=1.0))
    with Dashboard(study.storage, 0) as board:
        assert set(board.studies) == {"unit", "theirs"}
        assert "was not made by glmlab" in str(board.studies["theirs"])
    assert get_note(other) == ""


def test_a_study_that_cannot_be_written_is_shown_all_the_same(study, monkeypatch):
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("glmlab.dashboard.dressing.save_note", refuse)
    with serving(study.storage) as board:
        assert "cannot be written" in str(board.studies["unit"])
        assert ask(f"{board.url}api/studies")[0] == 200
