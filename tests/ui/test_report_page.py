"""A report in a real browser: it draws, loads nothing, and whatever a study holds stays text."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glmlab.report import write_report
from tests.doubles import scripted_start
from tests.studies import RECIPE, TWO_PLANS, run, split_helps

WIDE = {"width": 1200, "height": 900}
HOSTILE = "</script><img src=http://127.0.0.1:9/x onerror=alert(1)><svg onload=alert(2)>\"'"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a study with hostile words wherever it takes any."""
    folder = tmp_path_factory.mktemp("report")
    script = scripted_start(
        split_helps,
        start_fails=lambda recipe: HOSTILE if recipe.block_size == 64 else None,
        drift=lambda n: 1 + 0.004 * math.sin(n * n),
        device=True,
    )
    study = run(
        f"journal://{folder}/studies.log",
        script,
        space=TWO_PLANS,
        recipe={**RECIPE, "notes": HOSTILE, "env": {"NOTE": HOSTILE}},
        workload={"contexts": [64, 128], "batch_sizes": [1, 2], "new_tokens": 4},
    )
    study.store.add_provenance({"gpus": [{"name": HOSTILE, "driver": HOSTILE}], "cpu": HOSTILE})
    return write_report(study.store, folder / "report.html")


class Opened:
    """A page, what it asked for, and what it complained of."""

    def __init__(self, page: Any, file: Path) -> None:
        self.page = page
        self.asked: list[str] = []
        self.complaints: list[str] = []
        page.on("request", lambda request: self.asked.append(request.url))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", lambda dialog: self.complaints.append(dialog.message))
        page.on("console", self._hear)
        page.goto(file.as_uri())

    def _hear(self, said: Any) -> None:
        if said.type == "error":
            self.complaints.append(said.text)


@pytest.fixture(scope="module")
def page(browser: Any, report: Path) -> Iterator[Opened]:
    """The report, drawn once for all tests."""
    context = browser.new_context(offline=True, viewport=WIDE, accept_downloads=True)
    context.set_default_timeout(60_000)
    opened = Opened(context.new_page(), report)
    opened.page.wait_for_selector("html[data-drawn]")
    yield opened
    context.close()


@pytest.fixture
def opened(page: Opened) -> Iterator[Opened]:
    """The drawn report; how a test looked at it is undone."""
    yield page
    page.page.set_viewport_size(WIDE)
    page.page.emulate_media(color_scheme="light")


def test_every_chart_is_drawn_offline_and_nothing_else_is_asked_for(opened, report):
    plots = opened.page.locator(".plot")
    assert plots.count() == 7
    assert opened.page.locator(".plot:has(.main-svg)").count() == 7
    assert opened.asked == [report.as_uri()]
    assert opened.complaints == []
    assert opened.page.locator("details.twin[open]").count() == 0


def test_no_word_of_a_study_became_an_element(opened):
    assert opened.page.locator("img").count() == 0
    assert opened.page.locator("main svg:not(.plot svg)").count() == 0
    assert opened.page.get_by_text("onerror=alert(1)").count() >= 4


def test_had_one_become_an_element_it_could_neither_run_nor_load(opened):
    refused = opened.page.evaluate(
        """async (hostile) => {
            const refused = new Set();
            addEventListener("securitypolicyviolation", (event) => refused.add(event.effectiveDirective));
            document.body.insertAdjacentHTML("beforeend", hostile);
            await new Promise((done) => setTimeout(done, 500));
            document.querySelectorAll("body > img, body > svg").forEach((element) => element.remove());
            return Array.from(refused).sort();
        }""",
        HOSTILE.removeprefix("</script>"),
    )
    assert refused == ["img-src", "script-src-attr"]
    assert [said for said in opened.complaints if said in ("1", "2")] == []


def test_it_follows_the_readers_theme_while_it_is_open(opened):
    ink = "getComputedStyle(document.querySelector('#chart-history .xtick text')).fill"
    ground = "getComputedStyle(document.body).backgroundColor"
    light = (opened.page.evaluate(ink), opened.page.evaluate(ground))
    opened.page.emulate_media(color_scheme="dark")
    opened.page.wait_for_function(f"{ink} !== '{light[0]}'")
    assert opened.page.evaluate(ground) != light[1]


@pytest.mark.parametrize("width", [360, 768])
def test_on_a_narrow_screen_only_tables_and_charts_scroll_sideways(opened, width):
    opened.page.set_viewport_size({"width": width, "height": 800})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.page.evaluate(
        "[...document.querySelectorAll('main p, h2, dd')].every(e => e.scrollWidth <= e.clientWidth + 1)"
    )


def test_without_scripts_the_tables_are_there_to_read(browser, report):
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.goto(report.as_uri())
    twins = page.locator("details.twin table")
    assert twins.count() == 7
    assert all(twins.nth(index).is_visible() for index in range(7))
    assert page.get_by_text("Drawing needs a browser that runs scripts").first.is_visible()
    assert not page.locator("#save-trials").is_visible()
    context.close()


def test_on_paper_charts_fit_and_what_was_folded_is_open(opened, tmp_path):
    opened.page.emulate_media(color_scheme="dark")
    opened.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    widths = "[...document.querySelectorAll('.plot .main-svg')].map(e => e.clientWidth)"
    assert max(opened.page.evaluate(widths)) <= 680
    assert opened.page.locator("details:not([open]):not(.twin)").count() == 0
    opened.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert max(opened.page.evaluate(widths)) > 680
    assert opened.page.locator("details:not([open]):not(.twin)").count() > 0
    opened.page.pdf(path=tmp_path / "report.pdf")
    assert (tmp_path / "report.pdf").stat().st_size > 50_000


def test_all_trials_can_be_saved(opened):
    with opened.page.expect_download() as download:
        opened.page.get_by_role("button", name="save all 4 as CSV").click()
    assert download.value.suggested_filename == "unit-trials.csv"
    lines = list(csv.DictReader(Path(download.value.path()).read_text().splitlines()))
    assert [line["status"] for line in lines] == ["complete", "complete", "failed", "blocked"]
