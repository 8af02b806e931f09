"""Which storages the dashboard shows, and the command that starts it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request

import pytest
from optuna_dashboard._storage_url import get_storage

from glmlab import cli
from glmlab.dashboard import Dashboard
from glmlab.dashboard.server import for_jupyterlab
from glmlab.errors import StorageError
from glmlab.study import Study
from tests.dashboards import ask
from tests.doubles import scripted_start
from tests.studies import LIVE, spec, split_helps


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
