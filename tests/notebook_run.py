"""A notebook run from top to bottom in a folder, as papermill would, and what a reader then sees."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import nbformat
import psutil
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
WIDGET = "application/vnd.jupyter.widget-view+json"
PLOTLY = "application/vnd.plotly.v1+json"


def read(path: Path) -> NotebookNode:
    return nbformat.read(path, as_version=4)  # type: ignore[no-untyped-call,no-any-return]


def parameter_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """Cells that papermill reads the parameters from."""
    return [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]


class Run:
    """A notebook as it is after it ran in a folder, with other parameters where some are given.

    Parameters
    ----------
    stem : str
        The notebook's name.
    folder : Path
        Where it runs, and leaves what it writes.
    parameters : Any
        Set in a cell of their own after the tagged one, as papermill does it.
    """

    def __init__(self, stem: str, folder: Path, **parameters: Any) -> None:
        self._notebook = read(FOLDER / f"{stem}.ipynb")
        if parameters:
            [tagged] = parameter_cells(self._notebook)
            lines = "\n".join(f"{name} = {value!r}" for name, value in parameters.items())
            injected = nbformat.v4.new_code_cell(lines, id="injected")  # type: ignore[no-untyped-call]
            self._notebook.cells.insert(self._notebook.cells.index(tagged) + 1, injected)
        NotebookClient(
            self._notebook,
            timeout=600,
            kernel_name="python3",
            resources={"metadata": {"path": str(folder)}},
        ).execute()  # raises at the first cell that fails

    def outputs(self, cell_id: str | None = None) -> Iterator[NotebookNode]:
        """Outputs of one cell, or of all."""
        assert cell_id is None or cell_id in [cell.id for cell in self._notebook.cells], cell_id
        for cell in self._notebook.cells:
            if cell.cell_type == "code" and cell_id in (None, cell.id):
                yield from cell.outputs

    def text(self, cell_id: str | None = None) -> str:
        """What a reader sees of a cell, or of all, as text or HTML."""
        seen: list[str] = []
        stream = None
        for output in self.outputs(cell_id):
            data = output.get("data", {})
            said = output.get("text") or data.get("text/html") or data.get("text/plain", "")
            if stream is not None and output.get("name") == stream:
                seen[-1] += said  # a busy kernel sends what a cell prints in several parts
            else:
                seen.append(said)
            stream = output.get("name")
        return "\n".join(seen)

    def words(self, cell_id: str) -> str:
        """The same without tags and runs of blanks."""
        return " ".join(
            unescape(re.sub(r"<style.*?</style>|<[^>]+>", " ", self.text(cell_id), flags=re.DOTALL)).split()
        )

    def kinds(self, cell_id: str) -> set[str]:
        """Media types of a cell's outputs."""
        return {kind for output in self.outputs(cell_id) for kind in output.get("data", {})}

    def titles(self, cell_id: str) -> list[str]:
        """Titles of the charts that a cell shows."""
        charts = [output.data[PLOTLY] for output in self.outputs(cell_id) if PLOTLY in output.get("data", {})]
        return [chart["layout"]["title"]["text"] for chart in charts]

    @property
    def noise(self) -> list[str]:
        """What should stand in no notebook: errors, and what somebody wrote to stderr."""
        return [
            str(output.get("text") or output.get("evalue"))
            for output in self.outputs()
            if output.output_type == "error" or output.get("name") == "stderr"
        ]


def processes_in(folder: Path) -> list[str]:
    """Command lines of processes that run in a folder or below it."""
    found = []
    for process in psutil.process_iter():
        try:
            if Path(process.cwd()).is_relative_to(folder):
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            continue  # gone, or not ours to look at
    return found
