"""Every notebook of notebooks/: what is committed, and that it runs from top to bottom, twice."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call,no-any-return]


class Run:
    """A notebook as it is after it ran in ``folder``."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._notebook = read(path)
        NotebookClient(
            self._notebook,
            timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        ).execute()  # raises at the first cell that fails

    def outputs(self, cell_id: str | None = None) -> Iterator[NotebookNode]:
        """Outputs of one cell, or of all."""
        for cell in self._notebook.cells:
            if cell.cell_type == "code" and cell_id in (None, cell.id):
                yield from cell.outputs

    def text(self, cell_id: str) -> str:
        """What a reader of a cell sees, as text or HTML."""
        seen = []
        for output in self.outputs(cell_id):
            data = output.get("data", {})
            seen.append(output.get("text") or data.get("text/html") or data.get("text/plain", ""))
        return "\n".join(seen)


def test_the_quickstart_is_there() -> None:
    assert "00_quickstart" in [path.stem for path in NOTEBOOKS]


@each_notebook
def test_what_is_committed_is_short_and_without_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < 200_000
    assert len(notebook.cells) <= 15
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@each_notebook
def test_papermill_can_set_its_parameters(path: Path) -> None:
    tagged = [cell for cell in read(path).cells if "parameters" in cell.metadata.get("tags", [])]
    assert [cell.cell_type for cell in tagged] == ["code"]


@pytest.mark.notebook
@pytest.mark.timeout(1500)
@each_notebook
def test_it_runs_from_top_to_bottom_twice(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLMLAB_LOGS", str(tmp_path / "logs"))
    first = Run(path, tmp_path)
    after_first = _contents(tmp_path / "quickstart-bundle")
    second = Run(path, tmp_path)
    for run in (first, second):
        assert "error" not in [output.output_type for output in run.outputs()]
    if path.stem == "00_quickstart":
        _check_quickstart(first, tmp_path)
        assert "starting" not in second.text("study")  # nothing was left to do
        assert second.text("summary") == first.text("summary")
        assert _contents(tmp_path / "quickstart-bundle") == after_first


def _check_quickstart(run: Run, folder: Path) -> None:
    assert "evidence: measured" in run.text("summary")
    same = re.search(r"same tokens: ([0-9.]+)%", run.text("live"))
    assert same is not None
    assert float(same[1]) > 90
    # What vLLM has to say stands in its log, not in the notebook.
    assert "max_num_seqs" in run.text("start")
    for cell_id in ("start", "live", "close", "study"):
        assert "WARNING" not in run.text(cell_id)
        assert "stderr" not in [o.get("name") for o in run.outputs(cell_id)]
    assert list((folder / "logs").glob("kernel-*.log"))
    files = _contents(folder / "quickstart-bundle")
    assert set(files) == {"README.md", "env.sh", "evidence.json", "recipe.yaml", "serve.yaml"}
    for name in ("env.sh", "serve.yaml"):
        assert files[name].decode().strip() in run.text("export")


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.is_dir() else {}
