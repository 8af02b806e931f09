"""All-reduces of a study taken for predictions of other recipes: the kept study of two H100 has them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from glmlab.cli import main
from glmlab.errors import InputError
from glmlab.gpus import find_gpu
from glmlab.plans import plan
from glmlab.plans.measured_elsewhere import all_reduces_for, all_reduces_of
from glmlab.recipe import Recipe
from tests.plan_studies import machine, plan_study
from tests.studies import ROOT

NAME = "h100-plans-glm-4.7"
CUT = Recipe(name="cut", model="glm-4.7@tp1-l8", weights="random", max_model_len=16_640, tensor_parallel=2)


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> str:
    copy = shutil.copy(
        ROOT / "benchmarks" / "results" / "h100-plans.db", tmp_path_factory.mktemp("elsewhere")
    )
    return f"sqlite:///{copy}"


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    with pytest.raises(SystemExit) as end:
        main([*arguments, "--json"])
    assert not end.value.code
    return json.loads(capsys.readouterr().out)


def test_a_plan_takes_those_of_its_own_ranks_and_others_the_tables(kept):
    times = {key: [each.model_copy(update={"device_us": 500.0}) for each in found]
             for key, found in all_reduces_of(NAME, find_gpu("h100"), kept).items()}  # fmt: skip
    asked: dict[str, Any] = {"contexts": [256], "batch_sizes": [1], "versions": {"vllm": "0.32.0"}}
    by_tables, measured = plan(CUT, "h100", 2, **asked), plan(CUT, "h100", 2, **asked, all_reduces=times)
    before, after = (
        {p.plan.label: p.tokens_per_s or 0 for p in found.possible} for found in (by_tables, measured)
    )
    assert before["TP1"] == after["TP1"]
    assert before["PP2"] == after["PP2"]
    assert after["TP2"] < before["TP2"] / 2
    [told] = [note for note in measured.notes if "as they were measured" in note]
    assert told.startswith("TP2, TP2 + EP: all-reduces of 2 ranks"), "the others reduce nothing"
    assert not any("measured" in note for note in by_tables.notes)


def test_both_commands_take_them(capsys, kept, tmp_path: Path):
    file = tmp_path / "cut.yaml"
    file.write_text(CUT.to_yaml(), encoding="utf-8")
    common = [
        *("--gpu", "h100", "--contexts", "256", "--storage", kept, "--all-reduces-of", NAME),
    ]
    found = printed(capsys, "predict", str(file), *common)
    assert any("as they were measured" in note for note in found["notes"])
    found = printed(capsys, "plan", str(file), "--count", "2", *common)
    assert any("as they were measured" in note for note in found["notes"])


def test_a_recipe_that_reduces_nothing_needs_none(kept):
    assert all_reduces_for(CUT.replace(tensor_parallel=1), NAME, find_gpu("h100"), kept) is None


def test_the_file_of_a_study_stands_for_its_name(kept):
    file = ROOT / "benchmarks" / "studies" / f"{NAME}.yaml"
    assert all_reduces_of(str(file), find_gpu("h100"), kept) == all_reduces_of(NAME, find_gpu("h100"), kept)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (lambda url: all_reduces_of("none", find_gpu("h100"), url), "study 'none'"),
        (lambda url: all_reduces_of(NAME, find_gpu("h200"), url), "measured on h100, and these predictions"),
        (
            lambda url: all_reduces_for(CUT.replace(tensor_parallel=4), NAME, find_gpu("h100"), url),
            "has those of tensor_parallel=2, and cut is tensor_parallel=4",
        ),
        (
            lambda url: all_reduces_for(CUT.replace(custom_all_reduce=False), NAME, find_gpu("h100"), url),
            "cut is tensor_parallel=2, custom_all_reduce=false",
        ),
    ],
)
def test_what_does_not_belong_to_it_is_refused_in_one_line(kept, asked, message):
    with pytest.raises(InputError) as error:
        asked(kept)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_study_that_measured_none_says_so(url, monkeypatch):
    study = plan_study(url, monkeypatch, on=machine())
    with pytest.raises(InputError, match="holds no measured all-reduces"):
        all_reduces_of(study.store.name, find_gpu("h100"), url)
