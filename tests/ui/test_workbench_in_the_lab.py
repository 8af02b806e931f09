"""The workbench as a user has it: notebook 02 in JupyterLab, from choosing a model to reading the files."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from glmlab.recipe import Recipe
from glmlab.storage import StudyStore
from tests.jupyter import Lab
from tests.ui.notebook_page import NotebookPage

pytestmark = [pytest.mark.engine, pytest.mark.timeout(900)]

STUDY = "from-the-browser"


def shot(page: Any, name: str) -> None:
    """A picture, where somebody wants to look."""
    if folder := os.environ.get("GLMLAB_SCREENSHOTS"):
        page.screenshot(path=Path(folder) / f"{name}.png")


class Bench:
    """The workbench on a page."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.box = page.locator(".jp-OutputArea-output .widget-tab").last

    def turn_to(self, tab: str) -> None:
        self.box.get_by_role("tab", name=tab, exact=True).click()
        self.box.scroll_into_view_if_needed()

    def field(self, label: str | re.Pattern[str]) -> Any:
        return self.box.get_by_label(label, exact=isinstance(label, str)).and_(self.page.locator(":visible"))

    def fill(self, label: str, value: str) -> None:
        """Type into a field and leave it."""
        self.field(label).fill(value)
        self.field(label).press("Tab")

    def choose(self, label: str | re.Pattern[str], begin: str) -> None:
        """Choose the option that begins so, as soon as there is one."""
        option = self.field(label).locator("option", has_text=re.compile(f"^{re.escape(begin)}")).first
        option.wait_for(state="attached")
        self.field(label).select_option(value=option.get_attribute("value"))

    def button(self, name: str | re.Pattern[str]) -> Any:
        return self.box.get_by_role("button", name=name).and_(self.page.locator(":visible"))

    def sees(self, text: str | re.Pattern[str], timeout_s: float = 60) -> None:
        """Wait for words on the page."""
        self.box.get_by_text(text).and_(self.page.locator(":visible")).first.wait_for(
            timeout=timeout_s * 1000
        )

    def row(self, knob: str) -> Any:
        """Of a knob in the editor of the space."""
        name = self.page.get_by_text(knob, exact=True)
        return self.box.locator(".widget-hbox:has(> .widget-checkbox)", has=name).last

    def move(self, knob: str, values: str) -> None:
        """Tick a knob of the space and name its values."""
        self.row(knob).get_by_role("checkbox").check()
        self.row(knob).get_by_label("values").fill(values)
        self.row(knob).get_by_label("values").press("Tab")


def choose_a_model(bench: Bench) -> None:
    """A model and a machine: what it runs into there is said, and a fix is a click away."""
    bench.turn_to("Setup")
    bench.field("Start from").select_option("tiny-glm4-moe")
    bench.choose("GPU", "rtx-pro-6000,")
    bench.fill("How many", "4")
    bench.field("Find model").fill("5.1 nvfp4")
    bench.choose(re.compile("^Models"), "glm-5.1-nvfp4")
    bench.sees(re.compile("Does not fit 4 x rtx-pro-6000 by .* GB a GPU"))
    bench.sees(re.compile("1 block"))
    shot(bench.page, "setup")
    bench.button("Apply fix: block_size: 64").click()
    bench.button("Apply fix: block_size: 64").wait_for(state="hidden")
    bench.sees(re.compile("no rule keeps it from running"))
    bench.field("Start from").select_option("tiny-glm4-moe")
    bench.field("GPU").select_option(index=0)


def start_a_sweep(bench: Bench) -> None:
    """Of the real engine of this machine, six trials of eight points."""
    bench.turn_to("Sweep")
    bench.box.get_by_text("Study: space, workload, objective, budget").click()
    bench.fill("study", STUDY)
    bench.field("engine").select_option(index=0)
    for label, value in (
        ("contexts", "64, 256"),
        ("batches", "2"),
        ("new tokens", "64"),  # half a second or more a trial: the hand below is to find it running
        ("trials", "6"),
        ("rounds", "3"),
    ):
        bench.fill(label, value)
    bench.field("objective").select_option("tpot_ms")
    bench.row("kv_splits").get_by_role("checkbox").uncheck()  # the notebook's own study moved it
    bench.move("max_num_seqs", "1, 2, 4")
    bench.move("cpu_split_kv", "true, false")
    shot(bench.page, "sweep-editor")
    bench.button("Start this study").click()
    bench.sees(re.compile("Running"), 120)
    bench.sees(re.compile("^[1-6] of 6 trials"), 180)
    shot(bench.page, "sweep-running")


def pause_and_resume(bench: Bench) -> None:
    bench.button("Pause").click()
    bench.sees(re.compile("Pausing|Paused"))
    bench.sees(re.compile("Paused, .* the engine is kept"), 60)
    bench.button("Resume").click()
    bench.sees(re.compile("Running|Finished"))


def stop_and_go_on(bench: Bench) -> None:
    """As long as there is something to stop: six short trials may be over by now."""
    stop = bench.button(re.compile("Stop$"))
    if stop.is_enabled():
        stop.click()
        bench.sees(re.compile("Stopped|Finished"), 120)
    if not bench.box.get_by_text("Finished, 6 trials done").first.is_visible():
        bench.button("Continue").click()
    bench.sees("Finished, 6 trials done", 300)
    shot(bench.page, "sweep-finished")


def export(bench: Bench, directory: str) -> None:
    bench.turn_to("Results")
    bench.sees("Verdict")
    bench.sees(re.compile("interval, from 3 interleaved rounds|keep the default"))
    bench.fill("directory", directory)
    bench.button("Export").click()
    bench.sees(re.compile("Serve it there with"), 60)
    shot(bench.page, "results")


def test_from_the_choice_of_a_model_to_the_exported_files(page: Any, lab: Lab) -> None:
    notebook = NotebookPage(page, lab, "02_kv_splits_live.ipynb")
    notebook.open()
    notebook.run_all()
    bench = Bench(page)
    bench.box.wait_for()
    choose_a_model(bench)
    start_a_sweep(bench)
    pause_and_resume(bench)

    # The page is loaded anew; the study runs on and is found again.
    notebook.open()
    notebook.run_in_new_cell(f'bench = glmlab.Workbench(session=glmlab.attach("{STUDY}", STORAGE))\nbench')
    bench = Bench(page)
    bench.box.wait_for()
    bench.turn_to("Sweep")
    bench.sees(re.compile(f"Study {STUDY}"))
    stop_and_go_on(bench)

    export(bench, "bundle-of-the-browser")
    bundle = lab.folder / "bundle-of-the-browser"
    assert {"README.md", "evidence.json", "recipe.yaml", "serve.yaml"} <= {f.name for f in bundle.iterdir()}
    assert Recipe.load(bundle / "recipe.yaml").model == "tiny/glm4-moe"
    assert json.loads((bundle / "evidence.json").read_text())["evidence"] == "measured"
    records = StudyStore.load(STUDY, f"sqlite:///{lab.folder / 'kv-splits.db'}").records()
    assert [record.status for record in records].count("complete") == 6
    assert {record.evidence for record in records} == {"measured"}
