"""A JupyterLab of its own over a folder, for tests and for docs/notebooks/render.py."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glmlab.notebook_server import lab_command

NOTEBOOKS = Path(__file__).parents[1] / "notebooks"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_TOKEN = "tests"
# Or it asks for leave to fetch news, in front of what is looked at.
_QUIET = {"apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False}}


@dataclass(frozen=True)
class Lab:
    """A running server.

    Attributes
    ----------
    url : str
        Where it answers.
    folder : Path
        What it shows.
    """

    url: str
    folder: Path

    def address(self, notebook: str) -> str:
        """Of a notebook, in a workspace of its own."""
        return f"{self.url}/lab/workspaces/{Path(notebook).stem}/tree/{notebook}?token={_TOKEN}"


def chromium() -> str | None:
    """The browser: ``CHROMIUM``, or what is installed."""
    return os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), None)


@contextmanager
def running_lab(folder: Path, home: Path, settings: dict[str, dict[str, Any]] | None = None) -> Iterator[Lab]:
    """JupyterLab over a folder; it ends with the block.

    Parameters
    ----------
    folder : Path
        What it shows.
    home : Path
        Where its log, its settings and those of glmlab lie.
    settings : dict, optional
        Plugin -> settings of it.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "GLMLAB_LOGS": str(home / "logs"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    for plugin, body in {**_QUIET, **(settings or {})}.items():
        file = home / f"settings/@jupyterlab/{plugin}.jupyterlab-settings"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(body))
    extra = [
        *("--no-browser", f"--port={port}", "--ServerApp.port_retries=0"),
        f"--IdentityProvider.token={_TOKEN}",
        "--LabApp.expose_app_in_browser=True",  # its commands are what its menus call
    ]
    with (home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            lab_command(folder, extra), cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not _answers(url):
            assert server.poll() is None, (home / "server.log").read_text()
            assert time.monotonic() < deadline, "JupyterLab did not come up"
            time.sleep(0.2)
        yield Lab(url, folder)
    finally:
        server.terminate()  # it ends its kernels, and they their engines
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/api", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False
