"""A JupyterLab on this machine and a Chromium that looks at it."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
_NAMES = ("chromium", "chromium-browser", "google-chrome")
_TOKEN = "tests"


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


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab over a copy of the notebooks, with settings of its own."""
    pytest.importorskip("jupyterlab", reason="needs the lab extra")
    folder = tmp_path_factory.mktemp("lab")
    for notebook in NOTEBOOKS.glob("*.ipynb"):
        shutil.copy(notebook, folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = tmp_path_factory.mktemp("home")
    environment = {
        **os.environ,
        "GLMLAB_LOGS": str(home / "logs"),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
    }
    quiet = home / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
    quiet.parent.mkdir(parents=True)
    # Or it asks for leave to fetch news, in front of what is tested.
    quiet.write_text('{"fetchNews": "false", "checkForUpdates": false}')
    log = (home / "server.log").open("wb")
    server = subprocess.Popen(
        [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1"),
            *(f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={_TOKEN}"),
            "--LabApp.expose_app_in_browser=True",  # its commands are what its menus call
        ],
        cwd=folder,
        env=environment,
        stdout=log,
        stderr=subprocess.STDOUT,
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
        log.close()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/api", timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright, of the dev extra")
    path = chromium()
    if path is None:
        pytest.skip("no Chromium found: install it, or name it in CHROMIUM")
    with api.sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield launched
        launched.close()


@pytest.fixture
def page(browser: Any, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """A page wide enough for the workbench; a picture of how it ended is kept where a test fails."""
    opened = browser.new_page(viewport={"width": 1500, "height": 1100})
    opened.set_default_timeout(60_000)
    yield opened
    folder = os.environ.get("GLMLAB_SCREENSHOTS")
    if folder:
        opened.screenshot(path=Path(folder) / f"{request.node.name}.png")
    opened.close()
