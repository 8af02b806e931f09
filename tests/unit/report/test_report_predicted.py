"""The part of a report that has plans beside their predictions."""

from __future__ import annotations

from glmlab.plans.beside_measured import predicted_beside_measured
from tests.doubles import scripted_start
from tests.pages import Page, rows
from tests.plan_studies import machine, plan_study
from tests.reports import read
from tests.studies import LIVE, run, split_helps


def tables(page: Page) -> list[list[list[str]]]:
    return [rows(each) for each in page.by_id("predicted").inside if each.name == "table"]


def test_plans_stand_in_their_order_with_prediction_rank_and_what_failed(url, monkeypatch, tmp_path):
    study = plan_study(url, monkeypatch)
    page = read(study.store, tmp_path)
    plans, points = tables(page)
    assert [row[0] for row in plans] == ["TP2", "TP2", "TP1", "TP2 + EP"]
    assert plans[0][1] == "#3 best: kv_splits=64"
    assert [plans[0][3], plans[0][6]] == ["1", "1"]
    assert len(points) == 12
    part = page.by_id("predicted").text
    assert predicted_beside_measured(study).sentence[1:] in part
    assert "CUDA out of memory" in part
    assert any(link.attributes.get("href") == "#predicted" for link in page.all("a"))


def test_several_plans_on_a_cpu_are_compared_and_one_line_says_why_nothing_is_predicted(
    url, monkeypatch, tmp_path
):
    page = read(plan_study(url, monkeypatch, on=machine()).store, tmp_path)
    [plans] = tables(page)
    assert [len(row) for row in plans] == [4] * 4
    assert "No prediction: measured on a CPU, and decode steps are predicted for GPUs." in (
        page.by_id("predicted").text
    )


def test_one_plan_without_a_prediction_says_nothing(url, monkeypatch, tmp_path):
    monkeypatch.setattr("glmlab.provenance.of_run", machine)
    study = run(url, scripted_start(split_helps), space=LIVE)
    page = read(study.store, tmp_path)
    assert not page.has("predicted")
    assert not any(link.attributes.get("href") == "#predicted" for link in page.all("a"))
