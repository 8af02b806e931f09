"""`glmlab lab`: the notebooks, copied where they must be, and a JupyterLab for this machine alone."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import pytest

from glmlab import cli, notebook_server
from glmlab.errors import InputError, InstallError
from glmlab.notebook_server import check_arguments, copy_notebooks, lab_command, notebooks

ROOT = Path(__file__).parents[2]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = tmp_path / "packaged"
    folder.mkdir()
    for name in ("00_a.ipynb", "01_b.ipynb"):
        (folder / name).write_text(f'{{"cells": [], "name": "{name}"}}')
    (folder / "left.db").write_text("by a run")
    return folder


# ------------------------------------------------------------------------------ copies
def test_copies_are_made_once_and_what_is_there_is_kept(source, tmp_path):
    target = tmp_path / "copies"
    first = copy_notebooks(source, target)
    assert (first.folder, first.copied, first.kept) == (target, ("00_a.ipynb", "01_b.ipynb"), ())
    assert sorted(file.name for file in target.iterdir()) == ["00_a.ipynb", "01_b.ipynb"]
    assert copy_notebooks(source, target).copied == ()
    (target / "00_a.ipynb").write_text("my own work")
    (target / "01_b.ipynb").unlink()
    again = copy_notebooks(source, target)
    assert (again.copied, again.kept) == (("01_b.ipynb",), ("00_a.ipynb",))
    assert (target / "00_a.ipynb").read_text() == "my own work"


def test_a_copy_that_fails_leaves_no_half_notebook(source, tmp_path, monkeypatch):
    def full(_source: Path, work: Path) -> None:
        work.write_text("half of")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("glmlab.notebook_server.shutil.copyfile", full)
    with pytest.raises(InputError, match=r"cannot be put there \(No space left on device\)"):
        copy_notebooks(source, tmp_path / "copies")
    assert list((tmp_path / "copies").glob("*.ipynb")) == []


def test_a_file_in_the_way_is_refused_in_one_line(source, tmp_path):
    (tmp_path / "copies").write_text("mine")
    with pytest.raises(InputError, match="the notebooks cannot be put there") as refusal:
        copy_notebooks(source, tmp_path / "copies")
    assert len(str(refusal.value).splitlines()) == 1
    assert (tmp_path / "copies").read_text() == "mine"


def test_a_checkout_shows_its_own_notebooks(tmp_path):
    assert notebooks(tmp_path).folder == ROOT / "notebooks"
    assert list(tmp_path.iterdir()) == []


def test_an_installed_package_copies_them_to_where_one_stands(source, tmp_path, monkeypatch):
    package = tmp_path / "site" / "glmlab"
    package.mkdir(parents=True)
    source.rename(package / "notebooks")
    monkeypatch.setattr(notebook_server, "_PACKAGE", package)
    monkeypatch.chdir(tmp_path)
    assert notebooks().folder == tmp_path / "glmlab-notebooks"
    assert (tmp_path / "glmlab-notebooks" / "00_a.ipynb").is_file()
    (package / "notebooks").rename(tmp_path / "elsewhere")
    with pytest.raises(InstallError, match="install glmlab again"):
        notebooks()


# ------------------------------------------------------------------------------ the command
@pytest.mark.parametrize(
    "argument",
    [
        "--ip=0.0.0.0",
        "--ip",
        "--ServerApp.ip=0.0.0.0",
        "--LabApp.ip=*",
        "--NotebookApp.ip=::",
        "--ServerApp.allow_remote_access=True",
        "--ServerApp.allow_origin=*",
        "--ServerApp.allow_origin_pat=.*",
    ],
)
def test_what_lets_other_machines_in_is_refused_before_anything_is_done(
    argument, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(notebook_server, "become_lab", lambda command: pytest.fail("started"))
    with pytest.raises(SystemExit) as end:
        cli.main(["lab", argument])
    assert end.value.code == 2
    said = capsys.readouterr().err
    assert argument in said
    assert "ssh -L" in said
    assert len(said.splitlines()) == 1


def test_other_arguments_go_to_jupyterlab_and_ours_have_the_last_word(tmp_path):
    check_arguments(["--no-browser", "--port=9999", "--ServerApp.shutdown_no_activity_timeout=3"])
    command = lab_command(tmp_path, ["--no-browser", "--port=9999"])
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert command[-4:] == ["--no-browser", "--port=9999", "--ip=127.0.0.1", str(tmp_path)]


@pytest.mark.parametrize(("user", "told"), [(0, 1), (1000, 0)])
def test_root_is_told_to_jupyterlab_and_once_only(tmp_path, monkeypatch, user, told):
    monkeypatch.setattr("glmlab.notebook_server.os.geteuid", lambda: user)
    assert lab_command(tmp_path).count("--allow-root") == told
    assert lab_command(tmp_path, ["--allow-root"]).count("--allow-root") == 1


def test_without_jupyterlab_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(notebook_server, "find_spec", lambda name: None)
    with pytest.raises(InstallError, match=r"pip install 'glmlab\[lab,dashboard\]'"):
        check_arguments([])


def test_it_says_where_the_notebooks_are_and_which_were_kept(source, tmp_path, monkeypatch, capsys):
    started: list[Any] = []
    found = copy_notebooks(source, tmp_path / "copies")
    (tmp_path / "copies" / "00_a.ipynb").write_text("mine")
    again = copy_notebooks(source, tmp_path / "copies")
    monkeypatch.setattr(notebook_server, "become_lab", started.append)
    for given in (found, again):
        monkeypatch.setattr(notebook_server, "notebooks", lambda given=given: given)
        with pytest.raises(SystemExit) as end:
            cli.main(["lab", "--no-browser"])
        assert end.value.code == 0
        said = " ".join(capsys.readouterr().out.split())
        assert f"notebooks {tmp_path}/copies" in said
        assert ("new there 00_a.ipynb, 01_b.ipynb" in said) == (given is found)
        assert ("yours, kept 00_a.ipynb" in said) == (given is again)
    assert [command[-3:] for command in started] == [
        ["--no-browser", "--ip=127.0.0.1", f"{tmp_path}/copies"]
    ] * 2


# ------------------------------------------------------------------------------ a real one
@pytest.mark.timeout(300)
def test_jupyterlab_comes_up_with_the_notebooks_on_127_0_0_1_only(tmp_path):
    pytest.importorskip("jupyterlab", reason="needs the lab extra")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        *(sys.executable, "-m", "glmlab", "lab", "--json", "--no-browser", f"--port={port}"),
        *("--ServerApp.port_retries=0", "--IdentityProvider.token=tests"),
    ]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            text = ""
            while not text.endswith("}\n"):
                text += server.stdout.readline()
            assert Path(json.loads(text)["folder"]) == ROOT / "notebooks"
            listed = _contents(f"http://127.0.0.1:{port}/api/contents?token=tests", server)
            assert "00_quickstart.ipynb" in [item["name"] for item in listed["content"]]
            listening = [
                connection.laddr
                for connection in psutil.Process(server.pid).net_connections("inet")
                if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            ]
            assert {address.ip for address in listening} == {"127.0.0.1"}
        finally:
            server.send_signal(signal.SIGTERM)
            server.wait(60)


def _contents(address: str, server: subprocess.Popen[str]) -> Any:
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        assert server.poll() is None, "JupyterLab ended"
        try:
            with urllib.request.urlopen(address, timeout=5) as answer:
                return json.load(answer)
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError("JupyterLab did not come up")
