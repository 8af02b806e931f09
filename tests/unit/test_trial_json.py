"""What ``glmlab show`` says of a trial: the same numbers in the table and in JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from glmlab import render
from glmlab.cli import main
from glmlab.study import Study
from glmlab.units import format_ms
from tests.doubles import scripted_start
from tests.studies import LIVE, spec, split_helps


def printed(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: str) -> str:
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as end:
        main([*arguments])
    assert not end.value.code
    return capsys.readouterr().out


@pytest.fixture
def study(tmp_path: Path) -> Study:
    made = Study(spec(space=LIVE), f"sqlite:///{tmp_path}/studies.db", start=scripted_start(split_helps))
    made.run()
    return made


def test_the_table_and_json_and_the_result_have_one_number(
    study: Study, capsys: Any, monkeypatch: Any
) -> None:
    text = printed(capsys, monkeypatch, "show", "unit", "--storage", study.storage)
    found = json.loads(printed(capsys, monkeypatch, "show", "unit", "--storage", study.storage, "--json"))
    heads = next(line for line in text.splitlines() if "time/token" in line).split()
    rows = [line for line in text.splitlines() if " complete " in f"{line} "[:20]]
    assert len(rows) == len(found["all_trials"])
    for row, trial in zip(rows, found["all_trials"], strict=True):
        measured = trial["metrics"]
        assert {"tpot_ms", "tpot_p90_ms", "tpot_p99_ms", "tokens_per_s"} <= set(measured)
        for name in ("tpot_ms", "tpot_p90_ms", "tpot_p99_ms"):
            assert format_ms(measured[name]) in row
        assert f" {measured['tokens_per_s']:.0f} " in row
    assert heads[0] == "#"
    assert found["baseline"]["tpot_ms"] == pytest.approx(found["all_trials"][0]["metrics"]["tpot_ms"])


def test_a_column_that_decides_stays_in_a_narrow_terminal(tmp_path: Path) -> None:
    heads = {}
    for objective in ("tokens_per_s", "tpot_ms"):
        url = f"sqlite:///{tmp_path}/{objective}.db"
        study = Study(spec(space=LIVE, objective=objective), url, start=scripted_start(split_helps))
        found = study.run()
        console = Console(width=50, highlight=False)
        with console.capture() as captured:
            console.print(render.study(found, study.records(), study.spec.effective_workload))
        heads[objective] = next(line for line in captured.get().splitlines() if "status" in line)
    assert "tokens/s" in heads["tokens_per_s"]
    assert "tokens/s" not in heads["tpot_ms"]
