"""The report: what it says, that it is one safe file, and that it is whole or not there."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import math
import re
from pathlib import Path
from typing import Any

import optuna
import pytest

from glmlab import cli
from glmlab.errors import ExportError
from glmlab.export import export_bundle
from glmlab.figures import history_data
from glmlab.report import report_file, write_report
from glmlab.report.elements import clip, table, tag
from glmlab.report.page import _asset
from glmlab.report.words import digits
from glmlab.storage import StudyStore
from glmlab.study import Study
from glmlab.study_lock import study_lock
from glmlab.study_spec import Budget, StudySpec
from tests.doubles import scripted_start
from tests.pages import Page, rows
from tests.studies import LIVE, RECIPE, TWO_PLANS, run, spec, split_helps

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&<b>"


def fails_at_64(recipe: Any) -> str | None:
    return f"no kernel for blocks of 64 {HOSTILE}" if recipe.block_size == 64 else None


@pytest.fixture
def study(url):
    """Three plans' worth of trials: a win by a live knob, and a plan that does not start."""
    script = scripted_start(
        split_helps, start_fails=fails_at_64, drift=lambda n: 1 + 0.004 * math.sin(n * n), device=True
    )
    return run(
        url, script, space=TWO_PLANS, workload={"contexts": [64, 128], "batch_sizes": [1, 2], "new_tokens": 4}
    )


def read(store: StudyStore, folder: Path) -> Page:
    return Page(write_report(store, folder / "report.html").read_text(encoding="utf-8"))


# ------------------------------------------------------------------------------ what it says
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


# ------------------------------------------------------------------------------ charts
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


# ------------------------------------------------------------------------------ one safe file
def test_it_loads_nothing(study, tmp_path):
    page = read(study.store, tmp_path)
    for element in page.elements:
        assert element.name not in {"link", "iframe", "img", "object", "embed", "base", "audio", "video"}
        for name in ("src", "href", "srcset", "data", "action", "poster", "background"):
            assert (element.attributes.get(name) or "#").startswith("#"), element
    assert not re.search(r"url\(|@import|https?:", _asset("report.css"))
    assert not re.search(
        r"https?:|\bfetch\(|XMLHttpRequest|import\(|sendBeacon|WebSocket", _asset("report.js")
    )


def test_the_page_lets_no_script_run_but_its_own_two(study, tmp_path):
    page = read(study.store, tmp_path)
    [policy] = [
        e.attributes["content"] or ""
        for e in page.all("meta")
        if e.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none';")
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    [own] = [e.text for e in page.all("script") if "type" not in e.attributes]

    def digest(script: str) -> str:
        return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

    assert allowed == [digest(own), digest(page.packed("plotly"))]
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_whatever_is_in_a_study_is_text(url, tmp_path):
    script = scripted_start(split_helps, start_fails=fails_at_64)
    recipe = {
        **RECIPE,
        "notes": HOSTILE,
        "env": {"NOTE": HOSTILE},
        "engine_args": {"served_model_name": HOSTILE},
    }
    study = run(url, script, space=TWO_PLANS, recipe=recipe)
    study.store.add_provenance(
        {
            "gpus": [{"name": HOSTILE, "driver": HOSTILE}],
            "cpu": HOSTILE,
            "os": HOSTILE,
            "versions": {HOSTILE: HOSTILE},
            "replayed": [
                {"name": HOSTILE, "origin": HOSTILE, "title": HOSTILE, "notes": [HOSTILE], "gpus": []}
            ],
        }
    )
    page = read(study.store, tmp_path)
    scripts = page.all("script")
    assert [e.attributes.get("type") for e in scripts].count(None) == 1
    for element in page.elements:
        assert element.name not in {"img", "b"}
        assert not any(name.startswith("on") for name in element.attributes)
    assert page.all("body")[0].text.count("onerror=alert(1)") >= 8


def test_what_no_page_may_hold_and_what_turns_its_lines_around_is_replaced():
    assert tag("p", "a\x00b\u202ec\udc80") == "<p>a\ufffdb\ufffdc?</p>"
    assert tag("p", title='"><script>') == '<p title="&quot;&gt;&lt;script&gt;"></p>'


def test_a_table_refuses_rows_that_do_not_fit_it():
    with pytest.raises(ValueError, match="argument"):
        table(("a", "b"), [("1",)], label="x")


def test_a_cut_text_says_so():
    assert clip("abc", 3) == "abc"
    assert clip("a" * 100, 40).endswith("(cut here)")
    assert len(clip("a" * 100, 40)) <= 40


# ------------------------------------------------------------------------------ many trials
def many(study: Study, count: int) -> StudyStore:
    """A store with copies of a study's records, each with a value of its own; every 50th failed by itself."""
    copy = optuna.create_study(storage=optuna.storages.InMemoryStorage(), study_name="unit")
    for key, value in study.store.optuna_study.user_attrs.items():
        copy.set_user_attr(key, value)
    complete = [r for r in study.records() if r.status == "complete"]
    failed = next(r for r in study.records() if r.status == "failed")
    for number in range(count):
        record = complete[number % len(complete)]
        body = json.loads(record.model_dump_json())
        state = optuna.trial.TrialState.COMPLETE
        if number % 50 == 49:
            body = json.loads(failed.model_dump_json())
            body |= {"reason": f"reason {number}: {'x' * 3000}", "log_tail": "y" * 50_000}
            state = optuna.trial.TrialState.FAIL
        elif record.values and number:
            body["values"] = [record.values[0] * (1.5 + math.sin(number * number))]
        copy.add_trial(
            optuna.trial.create_trial(state=state, values=body["values"], user_attrs={"glmlab": body})
        )
    return StudyStore(copy, study.storage)


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


# ------------------------------------------------------------------------------ the file
def test_an_earlier_report_is_replaced_and_nothing_else_is(study, tmp_path):
    target = tmp_path / "report.html"
    write_report(study.store, target)
    target.chmod(0o600)
    first = target.read_bytes()
    write_report(study.store, target)
    assert target.read_bytes()[:2000] == first[:2000]
    assert target.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.glob("*report*")] == ["report.html"]
    target.write_text("<!doctype html><title>my own</title>")
    with pytest.raises(ExportError, match="exists and is no glmlab report; name another file"):
        write_report(study.store, target)
    assert target.read_text() == "<!doctype html><title>my own</title>"


@pytest.mark.parametrize(
    ("name", "why"), [("folder", "is a folder"), ("missing/report.html", "does not exist; make it first")]
)
def test_a_place_that_cannot_be_is_refused_in_one_line(study, tmp_path, name, why):
    (tmp_path / "folder").mkdir()
    with pytest.raises(ExportError, match=why) as refusal:
        write_report(study.store, tmp_path / name)
    assert len(str(refusal.value).splitlines()) == 1


def test_a_write_that_fails_leaves_the_earlier_report_and_no_remains(study, tmp_path, monkeypatch):
    target = tmp_path / "report.html"
    write_report(study.store, target)
    before, listed = target.read_bytes(), sorted(tmp_path.iterdir())

    def full(self: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(ExportError, match=r"cannot be written \(No space left on device"):
        write_report(study.store, target)
    assert target.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == listed


def test_a_link_to_a_report_stays_a_link(study, tmp_path):
    target, link = tmp_path / "report.html", tmp_path / "latest.html"
    write_report(study.store, target)
    target.write_bytes(target.read_bytes()[:3000])
    link.symlink_to(target)
    write_report(study.store, link)
    assert link.is_symlink()
    assert target.stat().st_size > 3000


def test_the_command_writes_it_and_says_where(study, tmp_path, capsys):
    target = tmp_path / "report.html"
    for extra in ([], ["--json"]):
        with pytest.raises(SystemExit) as end:
            cli.main(["report", "unit", str(target), "--storage", study.storage, *extra])
        assert end.value.code == 0
        out = capsys.readouterr().out
        assert study.summary().headline in " ".join(out.split())
    said = json.loads(out)
    assert said["bytes"] == target.stat().st_size
    assert said["report"] == str(target)
    assert said["evidence"] == "simulated"


def test_the_command_refuses_a_study_that_is_not_there(study, tmp_path, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main(["report", "unti", str(tmp_path / "report.html"), "--storage", study.storage])
    assert end.value.code == 2
    assert "did you mean unit?" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_the_study_file_in_it_runs_again(study, tmp_path):
    origin = read(study.store, tmp_path).by_id("origin")
    file = next(e.text for e in origin.inside if e.name == "code" and e.text.startswith("study:"))
    again = StudySpec.parse_text(file)
    assert again.identity() == study.spec.identity()
    assert again.budget == Budget(trials=20)
