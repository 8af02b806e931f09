"""optuna-dashboard in a real browser shows what glmlab puts into a study."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from glmlab.dashboard import Dashboard, serve
from tests.doubles import scripted_start
from tests.studies import RECIPE, TWO_PLANS, run, split_helps

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dashboard]:
    folder = tmp_path_factory.mktemp("dashboard")
    script = scripted_start(
        split_helps, start_fails=lambda recipe: HOSTILE if recipe.block_size == 64 else None
    )
    study = run(
        f"sqlite:///{folder}/studies.db", script, space=TWO_PLANS, recipe={**RECIPE, "notes": HOSTILE}
    )
    study.store.add_provenance({"replayed": [{"name": "x", "origin": HOSTILE}]})
    with serve(study.storage, 0) as board:
        yield board


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    opened = browser.new_page(viewport={"width": 1300, "height": 2400})
    opened.set_default_timeout(60_000)
    opened.alerts = []
    opened.on("dialog", lambda dialog: (opened.alerts.append(dialog.message), dialog.dismiss()))
    yield opened
    opened.close()


def test_the_study_has_glmlabs_charts_and_the_recipe(board, page):
    page.goto(f"{board.url}dashboard/studies/1")
    for title in ("Trials of unit: tpot_ms (simulated)", "Confirmation: best against baseline (simulated)"):
        page.get_by_text(title).first.wait_for()
    page.get_by_text("recipe.yaml").first.wait_for()
    assert page.alerts == []


def test_the_note_reads_as_it_was_meant_and_no_word_became_an_element(board, page):
    page.goto(f"{board.url}dashboard/studies/1/note")
    page.get_by_text("With cpu_split_kv = false, time per output token (median) is").wait_for()
    assert page.locator("table").count() == 2
    page.get_by_text(HOSTILE).first.wait_for()
    assert page.get_by_text("dashboard writes anew").count() == 0
    assert page.locator("img").count() == 0
    assert page.alerts == []
