"""StudyFilePanel: the study as the file that ``glmlab tune`` reads: shown, saved, downloaded."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path

import ipywidgets as W

from glmlab.errors import StudyError
from glmlab.widgets.field import text_input
from glmlab.widgets.look import look
from glmlab.widgets.notice import Notice
from glmlab.widgets.style import framed, html

# The sheet of the front end makes links look like text here.
LINK = "color:var(--jp-content-link-color,#1976d2);text-decoration:underline"


class StudyFilePanel(W.VBox):
    """Shows a study file and writes it where one says."""

    def __init__(self) -> None:
        self._text = self._name = ""
        self._written: dict[Path, str] = {}
        self.shown = html()
        self.notice = Notice()
        self.file = text_input("file", "Where to save the study file", placeholder="study.yaml", width="26em")
        self.save = W.Button(
            description="Save", icon="save", tooltip="Write the study file", layout=look(width="auto")
        )
        self.save.on_click(self.notice.guarded(lambda _: self._save()))
        self._link = html()
        row = W.HBox(
            [self.file, self.save, self._link], layout=look(flex_flow="row wrap", align_items="center")
        )
        super().__init__([self.shown, row, self.notice])
        self.show("", "", {})

    def show(self, name: str, text: str, refusals: dict[str, str]) -> None:
        """Show a study file; while fields are refused, which.

        Parameters
        ----------
        name : str
            Of the study.
        text : str
            Empty while there is none.
        refusals : dict
            Field -> why.
        """
        if self.file.value in ("", f"{self._name}.yaml") and name:
            self.file.value = f"{name}.yaml"
        self._text, self._name = text, name
        self.save.disabled = not text
        self.save.tooltip = (
            "Write the study file" if text else "Not now: mend the fields that are refused first"
        )
        if text:
            self.shown.value = framed(f"<pre>{escape(text)}</pre>")
            data = base64.b64encode(text.encode()).decode()
            file = escape(f"{name}.yaml", quote=True)
            self._link.value = framed(
                f"<a style='{LINK}' download='{file}' href='data:text/yaml;base64,{data}'"
                " title='To the computer on which this page is shown'>Download</a>"
                f" · run it anywhere with <code>glmlab tune {file}</code>"
            )
            return
        self._link.value = ""
        lines = "".join(f"<li>{escape(why)}</li>" for why in refusals.values())
        self.shown.value = framed(f"<p>No study file yet; these fields are refused:</p><ul>{lines}</ul>")

    def _save(self) -> None:
        path = Path(self.file.value.strip() or f"{self._name}.yaml").expanduser()
        if path.exists() and (
            not path.is_file() or path.read_text(encoding="utf-8") != self._written.get(path)
        ):
            raise StudyError(f"file = {str(path)!r}: exists already, and was not written here; name another")
        try:
            path.write_text(self._text, encoding="utf-8")
        except OSError as error:
            raise StudyError(f"file = {str(path)!r}: cannot be written ({error.strerror})") from None
        self._written[path] = self._text
        self.notice.say(f"Saved as {path.resolve()}", "good")
