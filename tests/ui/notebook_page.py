"""A notebook in the browser, as a user's hand has it."""

from __future__ import annotations

from typing import Any

from tests.jupyter import Lab


class NotebookPage:
    """One notebook in JupyterLab.

    Parameters
    ----------
    page : playwright.sync_api.Page
        The browser's tab.
    lab : Lab
        The server.
    name : str
        File name of the notebook.
    """

    def __init__(self, page: Any, lab: Lab, name: str) -> None:
        self.page, self._lab, self.name = page, lab, name

    def open(self) -> None:
        """Load the page, anew if it was open, and wait for its kernel."""
        self.page.goto(self._lab.address(self.name))
        self.page.locator(".jp-Notebook .jp-Cell").first.wait_for()
        self.page.wait_for_function(
            """() => {
                const session = window.jupyterapp?.shell.currentWidget?.sessionContext?.session;
                return session?.kernel?.status === 'idle';
            }"""
        )

    def command(self, name: str) -> None:
        """Do what a menu entry of JupyterLab does, and wait until it is done."""
        self.page.evaluate(f"() => window.jupyterapp.commands.execute('{name}').then(() => null)")

    def run_all(self) -> None:
        """Run > Run All Cells, and wait for the last."""
        self.command("notebook:run-all-cells")

    def run_in_new_cell(self, code: str) -> None:
        """Add a cell at the end and run it."""
        self.page.evaluate(
            """() => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                notebook.activeCellIndex = notebook.widgets.length - 1;
            }"""
        )
        self.command("notebook:insert-cell-below")
        self.page.evaluate(
            """code => {
                const notebook = window.jupyterapp.shell.currentWidget.content;
                notebook.activeCell.model.sharedModel.setSource(code);
            }""",
            code,
        )
        self.command("notebook:run-cell")

    def button(self, name: str) -> Any:
        """A widget's button by its text."""
        return self.page.locator(".jp-OutputArea-output").get_by_role("button", name=name)
