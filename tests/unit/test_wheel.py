"""What is installed is all there: built as a wheel, unpacked, and used from there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from glmlab.data_folders import PACKAGED_DATA

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The unpacked wheel."""
    builder = pytest.importorskip("hatchling.builders.wheel", reason="needs the dev extra")
    folder = tmp_path_factory.mktemp("wheel")
    [wheel] = builder.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def run(site: Path, where: Path, *arguments: str) -> str:
    """What a command of the unpacked package prints, run elsewhere."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=where,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_imported_from_there(site, tmp_path):
    assert run(site, tmp_path, "-c", "import glmlab; print(glmlab.__file__)").startswith(str(site))


def test_it_has_every_data_file_and_notebook_and_nothing_that_a_run_left(site):
    wanted = {file.relative_to(PACKAGED_DATA) for file in PACKAGED_DATA.rglob("*") if file.is_file()}
    tracked = subprocess.run(
        ["git", "ls-files", "-z", "glmlab/data", "notebooks"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\0")
    data = {Path(name).relative_to("glmlab/data") for name in tracked if name.startswith("glmlab/data/")}
    packed = site / "glmlab" / "data"
    assert data <= {file.relative_to(packed) for file in packed.rglob("*") if file.is_file()} <= wanted
    committed = {Path(name).name for name in tracked if name.startswith("notebooks/")}
    notebooks = {file.name for file in (site / "glmlab" / "notebooks").iterdir()}
    assert committed <= notebooks
    assert all(name.endswith(".ipynb") for name in notebooks)


def test_its_notebooks_are_copied_to_where_one_stands(site, tmp_path):
    said = run(
        site,
        tmp_path,
        "-c",
        "import json, glmlab.notebook_server as n; print(json.dumps(n.to_json(n.notebooks(), [])))",
    )
    assert "00_quickstart.ipynb" in json.loads(said)["copied"]
    copy = tmp_path / "glmlab-notebooks" / "00_quickstart.ipynb"
    assert copy.read_bytes() == (ROOT / "notebooks" / "00_quickstart.ipynb").read_bytes()


def test_it_runs_the_packaged_study_and_writes_its_report(site, tmp_path):
    study = site / "glmlab" / "data" / "studies" / "replay-kv-splits.yaml"
    run(site, tmp_path, "-m", "glmlab", "tune", str(study), "--json")
    run(site, tmp_path, "-m", "glmlab", "report", "replay-kv-splits", "out.html")
    page = (tmp_path / "out.html").read_text(encoding="utf-8")
    assert ".strip .bar" in page
    assert "cannotDraw" in page
