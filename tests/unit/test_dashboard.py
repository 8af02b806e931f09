"""optuna-dashboard on glmlab's studies: what is put into them, and who is answered."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import optuna
import pytest
from markdown_it import MarkdownIt
from optuna_dashboard import get_note, save_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from optuna_dashboard._storage_url import get_storage

from glmlab import cli
from glmlab.dashboard import Dashboard, artifact_folder, dress, serve, server
from glmlab.dashboard.note import BEGIN, block, code, text, write_note
from glmlab.dashboard.server import Redressed, for_jupyterlab
from glmlab.errors import InputError, StorageError
from glmlab.export import export_bundle
from glmlab.figures import draw_rounds, rounds_data
from glmlab.report.material import Material
from glmlab.storage import StudyStore
from glmlab.study import Study
from glmlab.study_lock import study_lock
from glmlab.study_spec import Budget
from tests.doubles import scripted_start
from tests.studies import LIVE, RECIPE, TWO_PLANS, proposals, run, spec, split_helps

HOSTILE = "</script><img src=x onerror=alert(1)> [a](http://x) `b` | **c**"


@pytest.fixture(params=["journal", "sqlite"])
def url(request, tmp_path):
    kinds = {"journal": f"journal://{tmp_path}/studies.log", "sqlite": f"sqlite:///{tmp_path}/studies.db"}
    return kinds[request.param]


@pytest.fixture
def study(url):
    return run(url, scripted_start(split_helps), space=LIVE)


def attributes(store: StudyStore) -> dict[str, Any]:
    study = StudyStore.load(store.name, store.url).optuna_study
    return study._storage.get_study_system_attrs(study._study_id)


def recipe_in(store: StudyStore) -> tuple[str, bytes]:
    """Name and content of the one artifact."""
    [meta] = [json.loads(v) for k, v in attributes(store).items() if k.startswith("artifacts:")]
    return meta["filename"], (artifact_folder(store.url) / meta["artifact_id"]).read_bytes()


# ------------------------------------------------------------------------------ dressing
def test_a_study_gets_note_charts_and_recipe(study, tmp_path):
    done = dress(study.store)
    assert (done.note, done.recipe) == (True, True)
    note = get_note(study.store.optuna_study)
    verdict = study.summary().verdict
    assert f"{verdict.ratio:.3f} times the baseline" in note
    assert "+cpu\\_split" not in note
    assert "+cpu_split_kv: false" in note
    assert f"glmlab export unit unit-bundle --storage {study.storage}" in note
    charts = get_plotly_graph_objects(attributes(study.store))
    assert set(charts) == {f"glmlab-{key}" for key in done.charts} >= {"glmlab-history", "glmlab-rounds"}
    drawn = json.loads(charts["glmlab-rounds"])
    visits = study.store.visits(study.summary().best.trial)
    wanted = json.loads(draw_rounds(rounds_data(visits, verdict, study.spec)).to_json())
    assert drawn["data"] == wanted["data"]
    export_bundle(study.store, tmp_path / "bundle")
    assert recipe_in(study.store) == ("recipe.yaml", (tmp_path / "bundle" / "recipe.yaml").read_bytes())


def test_dressing_again_writes_nothing(study):
    dress(study.store)
    before = attributes(study.store)
    again = dress(StudyStore.load("unit", study.storage))
    assert (again.note, again.charts, again.recipe) == (False, (), False)
    assert attributes(study.store) == before


def test_a_chart_that_outgrew_the_dashboard_says_so_in_place_of_the_former(study, monkeypatch):
    dress(study.store)
    monkeypatch.setattr("glmlab.dashboard.dressing._MOST_CHART", 100)
    assert "history" in dress(study.store).charts
    drawn = get_plotly_graph_objects(attributes(study.store))["glmlab-history"]
    assert json.loads(drawn)["data"] == []
    assert "glmlab report" in drawn


def test_a_note_of_ones_own_stays_wherever_it_stands(study):
    save_note(study.store.optuna_study, "bought in May")
    dress(study.store)
    note = get_note(study.store.optuna_study)
    assert note.rstrip().endswith("bought in May")
    save_note(study.store.optuna_study, f"on top\n\n{note.replace('As of 2 trials', 'changed by hand')}")
    assert dress(study.store).note
    again = get_note(study.store.optuna_study)
    assert again.startswith("on top")
    assert again.rstrip().endswith("bought in May")
    assert again.count(BEGIN) == 1
    assert "changed by hand" not in again


def test_the_recipe_of_an_unfinished_study_is_the_baseline_and_is_replaced_in_place(url):
    calls = iter(range(100))
    script = scripted_start(split_helps)
    study = run(url, script, stop=lambda: next(calls) >= 2, space=LIVE)
    dress(study.store)
    first = recipe_in(study.store)[1].decode()
    assert first.startswith("# The baseline: nothing is confirmed yet")
    assert "cpu_split_kv: true" in first
    study.run()
    assert dress(study.store).recipe
    assert "cpu_split_kv: false" in recipe_in(study.store)[1].decode()


def test_nothing_of_the_studys_own_is_touched_and_it_goes_on(url):
    study = run(url, scripted_start(split_helps), Budget(trials=2), space=TWO_PLANS)
    before = dict(study.store.optuna_study.user_attrs)
    dress(study.store)
    assert dict(study.store.optuna_study.user_attrs) == before
    study.run(budget=Budget(trials=4))
    assert len(study.records()) == 4


def test_a_study_that_runs_meanwhile_proposes_and_finds_the_same(tmp_path):
    url, other = (f"sqlite:///{tmp_path}/{name}.db" for name in ("dressed", "plain"))
    dressings = []

    def stop() -> bool:
        store = StudyStore.open("unit", url)
        if store is not None:
            dressings.append(dress(store).stage[0])  # as a dashboard of another process does
        return False

    dressed = run(url, scripted_start(split_helps), stop=stop, space=TWO_PLANS)
    plain = run(other, scripted_start(split_helps), space=TWO_PLANS)
    assert {1, 2, 3} <= set(dressings)
    assert proposals(dressed) == proposals(plain)
    assert dressed.summary().verdict == plain.summary().verdict


def test_the_lock_of_a_run_is_not_asked_for(study):
    with study_lock("unit", study.storage):
        assert dress(study.store).note


# ------------------------------------------------------------------------------ the note
def kinds(markdown: str) -> set[str]:
    """The kinds of elements that a note is read as, HTML among them."""
    found = set()
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown):
        found.add(token.type)
        found |= {child.type for child in token.children or ()}
    return found


def test_whatever_a_study_holds_is_text_in_its_note(url):
    script = scripted_start(split_helps, start_fails=lambda r: HOSTILE if r.block_size == 64 else None)
    study = run(url, script, space=TWO_PLANS, recipe={**RECIPE, "notes": HOSTILE, "env": {"A": HOSTILE}})
    study.store.add_provenance({"replayed": [{"name": "x", "origin": HOSTILE}]})
    note = write_note(Material.read(study.store), "")
    assert "onerror" in note
    assert not {"html_block", "html_inline", "image", "link_open"} & kinds(note)
    assert {"table_open", "fence", "bullet_list_open"} <= kinds(note)


@pytest.mark.parametrize("content", [HOSTILE, "a_b_c", "1 | 2", "# no head", "\\", "&lt;", "~~x~~", "a\n\nb"])
def test_text_is_read_as_it_was_written(content):
    [inline] = [t for t in MarkdownIt("commonmark").parse(text(content)) if t.type == "inline"]
    assert "".join(child.content for child in inline.children or ()) == " ".join(content.split())


@pytest.mark.parametrize("content", ["a", "a`b", "``", "x ``` y", "~~~"])
def test_code_holds_its_own_fences(content):
    [inline] = [t for t in MarkdownIt("commonmark").parse(code(content)) if t.type == "inline"]
    assert [(c.type, c.content) for c in inline.children or ()] == [("code_inline", content)]
    [fence] = MarkdownIt("commonmark").parse(block(f"one\n{content}\n", "sh"))
    assert fence.content.rstrip() == f"one\n{content}".rstrip()


# ------------------------------------------------------------------------------ the server
@contextlib.contextmanager
def serving(url: str, port: int | None = 0) -> Iterator[Dashboard]:
    with serve(url, port) as board:
        yield board


def ask(address: str, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


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


# ------------------------------------------------------------------------------ a study that grows
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


# ------------------------------------------------------------------------------ storages
def test_what_is_pasted_into_jupyterlab_opens_the_same_studies(study, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    relative = study.storage.replace(f"{tmp_path}/", "")
    pasted = for_jupyterlab(relative)
    assert pasted is not None
    monkeypatch.chdir("/")
    assert [s.study_name for s in get_storage(pasted).get_all_studies()] == ["unit"]


@pytest.mark.parametrize(
    ("storage", "why"),
    [
        ("sqlite:///missing.db", "does not exist; run `glmlab tune` first"),
        ("journal://missing.log", "does not exist"),
        ("sqlite://", "is in memory"),
        ("no-url", "is no URL"),
        ("postgresql://ann:hunter2@127.0.0.1:1/glm", "cannot be used"),
    ],
)
def test_a_storage_that_cannot_be_shown_is_refused_in_one_line(tmp_path, monkeypatch, storage, why):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match=why) as refusal:
        Dashboard(storage, 0)
    assert len(str(refusal.value).splitlines()) == 1
    assert "hunter2" not in str(refusal.value)
    assert list(tmp_path.iterdir()) == []


def test_a_password_is_not_offered_to_be_pasted():
    assert for_jupyterlab("postgresql://ann:hunter2@db/glm") is None
    assert for_jupyterlab("postgresql://ann@db/glm") == "postgresql://ann@db/glm"


# ------------------------------------------------------------------------------ the command
def test_the_command_says_where_it_is_first_and_ends_cleanly_on_ctrl_c(tmp_path):
    study = Study(spec(space=LIVE), f"sqlite:///{tmp_path}/studies.db", start=scripted_start(split_helps))
    study.run()
    command = [
        sys.executable,
        "-m",
        "glmlab",
        "dashboard",
        "--storage",
        study.storage,
        "--port",
        "0",
        "--json",
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        text = ""
        while not text.endswith("}\n"):
            text += process.stdout.readline()
        said = json.loads(text)
        assert said["studies"] == ["unit"]
        assert said["url"] == f"http://127.0.0.1:{said['port']}/"
        assert said["jupyterlab_storage"] == study.storage
        assert ask(f"{said['url']}api/studies")[0] == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 0
        assert process.stdout.read() == ""
        assert process.stderr.read() == ""
    with pytest.raises(urllib.error.URLError):
        ask(f"{said['url']}api/studies")


def test_the_command_has_no_way_to_listen_to_other_machines(study, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["dashboard", "--storage", study.storage, "--host", "0.0.0.0"])
    assert end.value.code == 2
    assert "--host" in capsys.readouterr().err
