"""Wherever a replayed number is stored, shown or exported, it says that it was replayed."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from glmlab import cli, render
from glmlab.export import export_bundle
from glmlab.progress import Lines
from glmlab.recorded import load_recording
from glmlab.study import Study
from glmlab.summary import show_values
from tests.recordings import record, replay_spec
from tests.studies import RECIPE


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded") / "b32.jsonl"
    record(path, visits=4)
    return path


@pytest.fixture
def done(tmp_path, made):
    study: Any = Study(replay_spec(recording=str(made)), f"sqlite:///{tmp_path}/studies.db")
    study.run()
    return study


def shown(what: Any) -> str:
    text = io.StringIO()
    Console(file=text, width=200).print(what)
    return text.getvalue()


def test_everything_that_is_stored_says_replayed(done, made):
    assert {r.evidence for r in done.records()} == {"replayed"}
    assert {r.measurement.evidence for r in done.records()} == {"replayed"}
    assert {t.user_attrs["evidence"] for t in done.store.optuna_study.trials} == {"replayed"}
    assert {v.measurement.evidence for v in done.store.visits(done.summary().best.trial)} == {"replayed"}
    [run] = done.store.provenance["runs"]
    assert [each["name"] for each in run["replayed"]] == ["b32"]
    assert run["replayed"][0]["fingerprint"] == load_recording(made).fingerprint


def test_everything_that_is_shown_says_replayed(done, capsys):
    summary = done.summary()
    assert summary.evidence == "replayed"
    assert summary.verdict.reason.endswith("(replayed from a recording)")
    assert summary.headline.endswith("(replayed from a recording)")
    assert "evidence: replayed" in summary._repr_html_()
    assert "replayed: b32, recorded on" in summary._repr_html_()
    text = shown(render.study(summary, done.records(), done.spec.effective_workload))
    for label in ("trials, replayed", "evidence: replayed", "took, as recorded,", "as recorded: rebuilds"):
        assert label in text
    for record_ in done.records():
        Lines().trial(record_, show_values(record_, done.spec), None)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 6
    assert all("live, replayed" in line or "rebuilt, replayed" in line for line in lines)
    assert all(line.endswith("ms (replayed)") for line in lines)


def test_a_tie_says_replayed_too(url, made):
    study = replay_spec(
        recording=str(made), space={"max_num_seqs": [8, 16]}, recipe={**RECIPE, "max_num_seqs": 8}
    )
    summary: Any = Study(study, url).run()
    assert summary.verdict.outcome == "tie"
    assert "replayed from a recording" in summary.headline


def test_a_bundle_says_replayed_before_anything_else(done, tmp_path):
    bundle = export_bundle(done.store, tmp_path / "bundle")
    assert bundle.to_json()["evidence"] == "replayed"
    readme = (tmp_path / "bundle" / "README.md").read_text().splitlines()
    assert readme[2].startswith("**Evidence: replayed from b32, recorded on")
    for name in ("recipe.yaml", "serve.yaml", "env.sh"):
        assert "# REPLAYED, NOT MEASURED: b32" in (tmp_path / "bundle" / name).read_text()
    evidence = json.loads((tmp_path / "bundle" / "evidence.json").read_text())
    assert evidence["evidence"] == "replayed"
    assert {visit["measurement"]["evidence"] for visit in evidence["confirmation"]} == {"replayed"}
    assert "evidence: replayed" in shown(render.bundle(bundle))


def test_the_command_line_runs_shows_and_exports_it(tmp_path, made, capsys):
    (tmp_path / "study.yaml").write_text(json.dumps(replay_spec(recording=str(made))), encoding="utf-8")
    storage = ["--storage", f"sqlite:///{tmp_path}/studies.db", "--json"]
    for arguments in (
        ["tune", str(tmp_path / "study.yaml"), *storage],
        ["show", "again", *storage],
        ["export", "again", str(tmp_path / "bundle"), *storage],
    ):
        with pytest.raises(SystemExit) as end:
            cli.main(arguments)
        assert end.value.code == 0
        assert json.loads(capsys.readouterr().out)["evidence"] == "replayed"
