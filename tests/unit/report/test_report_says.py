"""What a report says of a study, and its charts."""

from __future__ import annotations

import json
import math
import re

import pytest

from glmlab.export import export_bundle
from glmlab.figures import history_data
from glmlab.report.words import digits
from glmlab.study import Study
from glmlab.study_lock import study_lock
from tests.doubles import scripted_start
from tests.pages import rows
from tests.reports import HOSTILE, read
from tests.studies import LIVE, run, spec, split_helps


def test_the_verdict_stands_first_in_one_sentence_with_interval_and_evidence(study, tmp_path):
    page, verdict = read(study.store, tmp_path), study.summary().verdict
    said = page.by_id("verdict").text
    assert "With cpu_split_kv = false" in said
    assert f"{verdict.ratio:.3f} times the baseline's" in said
    assert f"95% interval {verdict.low:.3f} to {verdict.high:.3f}, 3 rounds" in said
    assert "simulated" in said
    assert page.all("section")[0] is page.by_id("verdict")


def test_every_round_is_a_row_with_its_values_and_their_ratio(study, tmp_path):
    page = read(study.store, tmp_path)
    metric = study.summary().verdict.metric
    by_side: dict[str, list[float]] = {"baseline": [], "best": []}
    for visit in study.store.visits(study.summary().best.trial):
        by_side[visit.side].append(visit.measurement.value(metric, study.spec.effective_workload))
    shown = rows(next(t for t in page.by_id("sure").inside if t.name == "table"))
    assert len(shown) == 3
    for number, cells in enumerate(shown):
        before, after = by_side["baseline"][number], by_side["best"][number]
        assert cells[:4] == [
            str(number + 1), f"{digits(before)} ms", f"{digits(after)} ms", f"×{after / before:.3f}"
        ]  # fmt: skip


def test_every_point_of_the_workload_is_compared_with_its_interval(study, tmp_path):
    [points] = [
        table
        for table in read(study.store, tmp_path).by_id("sure").inside
        if table.name == "table" and "context [tokens]" in table.text
    ]
    shown = rows(points)
    assert [row[:2] for row in shown] == [["64", "1"], ["64", "2"], ["128", "1"], ["128", "2"]]
    assert all(re.fullmatch(r"×0\.\d{3} \(0\.\d{3} to 0\.\d{3}\)", row[4]) for row in shown)


def test_what_changed_is_named_and_shown_line_by_line(study, tmp_path):
    changes = read(study.store, tmp_path).by_id("changes")
    assert [row[:3] for row in rows(next(t for t in changes.inside if t.name == "table"))] == [
        ["cpu_split_kv", "true", "false changed"],
        ["block_size", "32", "32"],
    ]
    assert "-cpu_split_kv: true" in changes.text
    assert "+cpu_split_kv: false" in changes.text


def test_it_holds_the_files_that_an_export_writes(study, tmp_path):
    bundle = export_bundle(study.store, tmp_path / "bundle")
    production = read(study.store, tmp_path).by_id("production")
    blocks = [element.text for element in production.inside if element.name == "code"]
    assert bundle.command in blocks
    for name in ("recipe.yaml", "serve.yaml", "env.sh"):
        assert (tmp_path / "bundle" / name).read_text(encoding="utf-8") in blocks
    export = next(text for text in blocks if text.startswith("glmlab export"))
    assert export == f"glmlab export unit unit-bundle --storage {study.storage}"


def test_failures_stand_with_reason_and_log(study, tmp_path):
    failures = read(study.store, tmp_path).by_id("failures")
    failed, blocked = (e.text for e in failures.inside if e.name == "article")
    assert failed.startswith(f"failed: no kernel for blocks of 64 {HOSTILE}1 trial: #2.")
    assert failed.endswith("the last line of the log")
    assert blocked.startswith("blocked: the engine of this plan did not start: no kernel for blocks of 64")


def test_costs_are_set_against_restarts(study, tmp_path):
    cost = read(study.store, tmp_path).by_id("cost")
    assert "with a restart the same trial takes" in cost.text
    names = [row[0] for row in rows(next(t for t in cost.inside if t.name == "table"))]
    assert names[-1] == "in all"
    assert "glmlab itself" in names


def test_it_says_where_with_what_and_from_which_seeds(study, tmp_path):
    study.store.add_provenance(
        {
            "gpus": [{"name": "NVIDIA H100", "driver": "580.1"}] * 2,
            "versions": {"vllm": "0.32.0"},
            "cpu": "EPYC",
        }
    )
    page = read(study.store, tmp_path)
    for said in ("2 × NVIDIA H100, driver 580.1", "vllm 0.32.0", "study 0, workload 0, engine 0"):
        assert said in page.by_id("origin").text
    assert "2 × NVIDIA H100, vLLM 0.32.0" in page.by_id("verdict").text


def test_it_says_what_it_cannot_say(study, tmp_path):
    limits = read(study.store, tmp_path).by_id("limits").text
    assert "contexts of 64 and 128 tokens at batch sizes 1 and 2" in limits
    assert "whether the answers are as good was not looked at" in limits
    for note in study.summary().notes:
        assert note in limits


@pytest.mark.parametrize(
    ("script", "badge", "sentence"),
    [
        (
            scripted_start(drift=lambda n: 0.9 if n == 2 else 1 + 0.05 * math.sin(n * n)),
            "keep the default",
            "Keep the default: no gain beyond noise. With cpu_split_kv = false",
        ),
        (
            scripted_start(lambda knobs: 10.0 if knobs["cpu_split_kv"] else 12.0),
            "keep the default",
            "Keep the default: none of 2 trials was better than the baseline (cpu_split_kv = true).",
        ),
        (
            scripted_start(
                lambda knobs: 10.0 if knobs["cpu_split_kv"] else 11.0, drift=lambda n: 0.5 if n == 2 else 1.0
            ),
            "keep the default",
            "Keep the default: the best was worse when visited again. With cpu_split_kv = false",
        ),
    ],
)
def test_keeping_the_default_is_a_result(url, tmp_path, script, badge, sentence):
    study = run(url, script, space=LIVE)
    page = read(study.store, tmp_path)
    assert badge in page.by_id("verdict").text
    assert sentence in page.by_id("verdict").text
    assert "since nothing better was proved" in page.by_id("production").text
    changed = study.summary().best.params != study.summary().baseline.params
    assert ("The changes below were not kept." in page.by_id("changes").text) == changed


def test_what_no_server_can_be_told_is_said_in_place_of_the_files(url, tmp_path):
    study = run(url, scripted_start(split_helps), space=LIVE)
    stored = study.store.recipe
    study.store._set("recipe", {**stored, "dense_mla": True})
    page = read(study.store, tmp_path)
    assert "Not now: dense_mla = true: vLLM has no option for it" in page.by_id("production").text
    assert "With cpu_split_kv = false" in page.by_id("verdict").text


def test_a_study_that_is_not_confirmed_says_so_and_offers_nothing_for_production(url, tmp_path):
    calls = iter(range(100))
    study = run(url, scripted_start(split_helps), stop=lambda: next(calls) >= 2, space=LIVE)
    page = read(study.store, tmp_path)
    assert "Not confirmed yet" in page.by_id("verdict").text
    assert "Not now: nothing is confirmed yet" in page.by_id("production").text
    assert not page.has("sure")


def test_a_study_of_failures_only_is_a_report_of_failures(url, tmp_path):
    made = Study(spec(space=LIVE), url)
    store = made.begin_store()
    store.baseline = {"cpu_split_kv": True}
    page = read(store, tmp_path)
    assert "no trial of this study is complete" in page.by_id("verdict").text
    assert not page.has("changes")


def test_a_study_that_is_running_is_reported_as_it_stands(study, tmp_path):
    assert "A run holds this study" not in read(study.store, tmp_path).all("header")[0].text
    with study_lock("unit", study.storage):
        page = read(study.store, tmp_path)
    assert "A run holds this study just now" in page.all("header")[0].text


def test_each_chart_is_the_figure_itself_with_every_row_of_its_table(study, tmp_path):
    page = read(study.store, tmp_path)
    drawn = [e.attributes["data-chart"] for e in page.elements if e.attributes.get("class") == "plot"]
    assert set(drawn) == {"rounds", "history", "context", "heatmap", "parallel", "pareto", "cost"}
    for key in drawn:
        looks = json.loads(page.packed(f"chart-data-{key}"))
        assert looks["light"]["layout"]["template"] != looks["dark"]["layout"]["template"]
        assert looks["light"]["data"]
        assert "simulated" in looks["light"]["layout"]["title"]["text"]
    data = history_data(study.records(), study.spec, study.store.baseline)
    [twin] = [e for e in page.by_id("chart-history").inside if e.name == "table"]
    assert len(rows(twin)) == len(study.records())
    heads = [e.text for e in twin.inside if e.name == "th"][: len(data.columns())]
    assert heads == list(data.columns())


def test_the_tables_of_charts_are_open_until_a_script_folds_them(study, tmp_path):
    twins = [e for e in read(study.store, tmp_path).all("details") if e.attributes.get("class") == "twin"]
    assert twins
    assert all("open" in twin.attributes for twin in twins)
