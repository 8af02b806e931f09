# ruff: noqa: INP001  a script beside what it writes, no package
"""Run notebooks in JupyterLab and keep what a reader sees: an HTML file each, charts and widgets as pictures.

In the repository: ``python -m docs.notebooks.render 02_kv_splits_live 05_study_dashboard``,
in the environment of ``make test`` and ``make lab``, with a Chromium; ``CHROMIUM`` says where that is.
"""

from __future__ import annotations

import argparse
import base64
import re
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import nbformat
from nbconvert import HTMLExporter
from nbformat import NotebookNode
from playwright.sync_api import sync_playwright
from pygments.formatters import HtmlFormatter

from tests.jupyter import NOTEBOOKS, chromium, running_lab
from tests.ui.notebook_page import NotebookPage

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PICTURED = {
    "application/vnd.plotly.v1+json": "chart",
    "application/vnd.jupyter.widget-view+json": "widget",
}
_LONGEST_S = 600
# All cells stay on the page, so that each can be pictured.
_SETTINGS = {"notebook-extension/tracker": {"windowingMode": "none"}}
_STYLE = """
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #222; }
body { font: 16px/1.5 system-ui, sans-serif; }
pre, code { font: 13px/1.45 ui-monospace, Menlo, Consolas, monospace; }
.note { border-left: 4px solid #0072b2; background: #f3f6f8; padding: .5rem 1rem; }
.highlight pre { background: #f6f6f6; border: 1px solid #e2e2e2; padding: .6rem; overflow-x: auto; }
.jp-OutputPrompt, .jp-InputPrompt, .prompt, .anchor-link { display: none; }
.jp-RenderedText pre { white-space: pre-wrap; }
table { border-collapse: collapse; font-size: 13px; display: block; overflow-x: auto; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #ddd; text-align: left; }
img { max-width: 100%; }
"""


def main() -> None:
    """Render each notebook that is named."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("notebooks", nargs="+", help="names, such as 02_kv_splits_live")
    asked = parser.parse_args()
    for name in asked.notebooks:
        with tempfile.TemporaryDirectory() as folder:
            notebook, pictures = run(name, Path(folder))
        target = HERE / f"{name}.html"
        target.write_text(page(name, notebook, pictures), encoding="utf-8")
        sys.stdout.write(f"{target.relative_to(ROOT)}: {target.stat().st_size / 1e6:.2f} MB\n")


def run(name: str, folder: Path) -> tuple[NotebookNode, list[str]]:
    """The notebook after Run All, and a picture of each output that is a chart or a widget, in order."""
    file = Path(shutil.copy(NOTEBOOKS / f"{name}.ipynb", folder))
    home = folder / ".home"
    home.mkdir()
    with running_lab(folder, home, _SETTINGS) as lab, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1180, "height": 2600}, device_scale_factor=1.25)
        tab.set_default_timeout(_LONGEST_S * 1e3)
        notebook = NotebookPage(tab, lab, file.name)
        notebook.open()
        tab.keyboard.press("Control+b")  # the list of files takes a third of the page
        notebook.run_all()
        tab.mouse.move(0, 0)
        time.sleep(3)  # charts are drawn after their cell is done
        outputs = tab.locator(".jp-OutputArea-output:has(.plotly, .jupyter-widgets)")
        pictures = [
            base64.b64encode(outputs.nth(index).screenshot(animations="disabled")).decode()
            for index in range(outputs.count())
        ]
        notebook.command("docmanager:save")
        browser.close()
    return nbformat.read(file, as_version=4), pictures  # type: ignore[no-untyped-call]


def page(name: str, notebook: NotebookNode, pictures: list[str]) -> str:
    """The notebook as one HTML file that loads nothing."""
    left = iter(pictures)
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            kind = next((kind for kind in PICTURED if kind in data), None)
            if kind is not None:
                output.data = NotebookNode({"image/png": next(left)})
                output.metadata = NotebookNode({"image/png": {"alt": _alt(data, kind)}})
    if next(left, None) is not None:
        raise SystemExit(f"{name}: {len(pictures)} pictures for fewer charts and widgets")
    notebook.metadata.pop("widgets", None)
    body, _ = HTMLExporter(template_name="basic").from_notebook_node(notebook)  # type: ignore[no-untyped-call]
    body = body.replace('href="../docs/', 'href="../')  # it lies in another folder than the notebook
    body = re.sub(r'href="(\w+\.ipynb)', r'href="../../notebooks/\1', body)
    title = re.sub("^# ", "", notebook.cells[0].source.splitlines()[0])
    code = HtmlFormatter(style="default").get_style_defs(".highlight")  # type: ignore[no-untyped-call]
    note = (
        f"<p class='note'>This is notebooks/{name}.ipynb as it ran on a machine without a GPU. Widgets and"
        " charts are pictures here; in JupyterLab (<code>make lab</code>) they are alive.</p>"
    )
    return (
        f"<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>{title}</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>"
        f"<style>{_STYLE}{code}</style></head><body>{note}{body}</body></html>\n"
    )


def _alt(data: Any, kind: str) -> str:
    """What a picture shows, for those who do not see it."""
    layout = data[kind].get("layout", {}) if PICTURED[kind] == "chart" else {}
    title = re.sub("<[^>]+>", " ", layout.get("title", {}).get("text", ""))
    return f"chart: {title}" if title else f"{PICTURED[kind]}: {str(data.get('text/plain', ''))[:120]}"


if __name__ == "__main__":
    main()
