"""A report of thousands of trials is small, and none is lost."""

from __future__ import annotations

import csv

import pytest

from glmlab.errors import ExportError
from glmlab.report import report_file, write_report
from tests.pages import Page, rows
from tests.reports import many, read


def test_five_thousand_trials_stay_under_5_mb_and_none_is_lost(study, tmp_path):
    store = many(study, 5000)
    path = write_report(store, tmp_path / "report.html")
    assert path.stat().st_size < 5_000_000
    page = Page(path.read_text(encoding="utf-8"))
    assert "of 5,000: the baseline, the best ones and the latest" in page.by_id("trials").text
    [shown] = [e for e in page.by_id("trials").inside if e.name == "table"]
    assert 100 < len(rows(shown)) <= 122
    lines = list(csv.DictReader(page.packed("trials-csv").splitlines()))
    assert [int(line["trial"]) for line in lines] == list(range(5000))
    assert {"history", "context", "cost"} <= {
        e.attributes["data-chart"] for e in page.elements if e.attributes.get("class") == "plot"
    }
    assert "75 other reasons: in the CSV file." in page.by_id("failures").text


def test_a_page_that_is_too_large_has_shorter_tables_and_at_last_is_refused(study, tmp_path, monkeypatch):
    whole = write_report(study.store, tmp_path / "whole.html").stat().st_size
    monkeypatch.setattr(report_file, "_MOST_ROWS", (150, 1))
    monkeypatch.setattr(report_file, "_MOST_BYTES", whole - 100)
    page = read(study.store, tmp_path)
    [twin] = [e for e in page.by_id("chart-history").inside if e.name == "table"]
    assert len(rows(twin)) == 1
    assert "the first 1 of" in page.by_id("chart-history").text
    monkeypatch.setattr(report_file, "_MOST_BYTES", 1000)
    with pytest.raises(ExportError, match="at most 0 are allowed"):
        write_report(study.store, tmp_path / "other.html")
    assert not (tmp_path / "other.html").exists()


def test_no_cell_of_the_csv_is_a_formula(study, tmp_path):
    store = many(study, 50)
    record = store.records()[-1]
    trial = store.optuna_study.get_trials(deepcopy=False)[-1]
    trial.user_attrs["glmlab"] |= {"reason": "=HYPERLINK(1)"}
    assert record.status == "failed"
    lines = list(csv.DictReader(read(store, tmp_path).packed("trials-csv").splitlines()))
    assert lines[-1]["reason"] == "'=HYPERLINK(1)"
    assert lines[0]["cpu_split_kv"] == "true"
