"""The file of a report: whole or not there, and the command that writes it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glmlab import cli
from glmlab.errors import ExportError
from glmlab.report import write_report
from glmlab.study_spec import Budget, StudySpec
from tests.reports import read


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
