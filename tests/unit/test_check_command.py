"""glmlab check and glmlab rules: what they print, and what they exit with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from glmlab.cli import main
from glmlab.errors import GpuError, InputError
from glmlab.gpus import find_gpu
from glmlab.recipe_book import find_recipe
from glmlab.rulebook import target as targets
from glmlab.rules import load_rules

RECIPE = find_recipe("glm-5.1-reap-160-vllm-sparse")
H100 = find_gpu("h100")


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    monkeypatch.delenv("GLMLAB_DATA", raising=False)
    monkeypatch.setattr("glmlab.rules.installed_packages", dict)


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    out = capsys.readouterr()
    return int(ended.value.code or 0), out.out, out.err


def on(capsys, *more: str, recipe: str = RECIPE.name) -> tuple[int, Any]:
    code, out, _ = run(capsys, "check", recipe, *more, "--json")
    return code, json.loads(out)


def test_a_recipe_that_runs_exits_with_0_and_says_what_to_know(capsys):
    code, body = on(capsys, "--gpu", "rtx-pro-6000", "--count", "4")
    assert code == 0
    assert (body["gpu"], body["count"], body["versions"]["vllm"]) == ("rtx-pro-6000", 4, "0.32.0")
    assert body["blocked"] is False
    assert {"id", "severity", "why", "fix", "source", "change"} == set(body["findings"][0])


def test_a_recipe_that_cannot_run_exits_with_1(capsys):
    code, body = on(capsys, "--gpu", "rtx-pro-6000", "--count", "4", "--vllm", "0.23.0")
    assert code == 1
    assert body["blocked"] is True
    assert body["findings"][0]["id"] == "sparse-mla-backend-missing"
    assert body["versions"] == {"vllm": "0.23.0"}  # the recipe's flashinfer is beside its own vLLM
    code, body = on(capsys, "--gpu", "rtx-pro-6000", "--count", "4", "--flashinfer", "0.6.12")
    assert code == 1
    assert body["findings"][0]["id"] == "sparse-mla-flashinfer-too-old"


def test_the_list_for_people_has_all_of_it(capsys):
    code, out, _ = run(capsys, "check", "glm-5.1-reap-160-vllm", "--gpu", "rtx-pro-6000", "--count", "4")
    assert code == 0
    assert out.startswith("glm-5.1-reap-160-vllm on 4 x NVIDIA RTX PRO 6000")
    assert "warns  dense-mla-quality" in out
    assert "change: dense_mla: false" not in out  # the sparse path has conditions of its own
    assert "vLLM #33041" in out  # rich leaves brackets and numbers alone
    assert out.rstrip().endswith("no rule keeps it from running")


def test_what_a_release_pins_is_shown_as_pinned(capsys):
    _, body = on(capsys, "--gpu", "rtx-pro-6000", "--vllm", "0.25.1")
    assert (body["versions"], body["pinned"]) == ({"flashinfer": "0.6.13", "vllm": "0.25.1"}, ["flashinfer"])
    assert body["findings"][0]["id"] == "sparse-mla-flashinfer-too-old"
    _, out, _ = run(capsys, "check", RECIPE.name, "--gpu", "rtx-pro-6000", "--vllm", "0.25.1")
    assert "flashinfer 0.6.13 (pinned)" in " ".join(out.split())


def test_as_many_gpus_as_the_recipe_uses_where_none_are_counted(capsys):
    assert on(capsys, "--gpu", "rtx-pro-6000")[1]["count"] == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("no-such-recipe",), "recipe = 'no-such-recipe': no such recipe or file"),
        ((RECIPE.name, "--gpu", "rtx-pro-600"), "did you mean rtx-pro-6000"),
        ((RECIPE.name, "--gpu", "h100", "--count", "0"), "--count = 0: expected a number of GPUs, 1 or more"),
        ((RECIPE.name, "--gpu", "h100", "--vllm", "latest"), "versions.vllm = 'latest': not a version"),
    ],
)
def test_bad_input_is_one_line_and_2(capsys, arguments, said):
    code, out, err = run(capsys, "check", *arguments)
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_wrong_recipe_of_ones_own_is_told_with_its_lines(capsys, monkeypatch, tmp_path):
    (tmp_path / "recipes").mkdir()
    path = tmp_path / "recipes" / "mine.yaml"
    monkeypatch.setenv("GLMLAB_DATA", str(tmp_path))
    path.write_text("name: mine\nmodel: glm-4.7\n\ntensor_paralel: 2\n", encoding="utf-8")
    code, _, err = run(capsys, "check", "mine")
    assert code == 2
    assert f"{path} line 4: tensor_paralel = 2: unknown key; did you mean tensor_parallel" in err
    path.write_text("name: mine\nmodel: glm-4.7\nenv:\n  A: 3\nmax_num_seqs: 0\n", encoding="utf-8")
    code, _, err = run(capsys, "check", "mine")
    assert f"{path} lines 5, 4: max_num_seqs = 0: " in err
    assert err.count("\n") == 1


# ---------------------------------------------------------------------- this machine
class Host:
    def __init__(self, *gpus: Any, note: str = "") -> None:
        self.gpus, self.gpu_note = gpus, note


def test_without_a_gpu_here_the_rest_is_checked_with_a_note(capsys, monkeypatch):
    monkeypatch.setattr(targets, "machine", lambda _nvml=None: Host(note="no NVIDIA driver on this machine"))
    code, body = on(capsys)
    assert code == 0
    assert body["gpu"] is None
    assert body["note"].startswith(
        "no NVIDIA driver on this machine: rules that need to know the GPU were left"
    )
    assert "parsers-glm47" in {finding["id"] for finding in body["findings"]}
    _, out, _ = run(capsys, "check", RECIPE.name)
    assert "name one with --gpu" in out


def test_a_gpu_that_the_catalog_has_not_is_named_in_the_note(monkeypatch):
    class Card:
        name = "NVIDIA T4"

    monkeypatch.setattr(targets, "gpu_of_device", lambda _device: None)
    monkeypatch.setattr(targets, "machine", lambda _nvml=None: Host(Card(), Card()))
    found = targets.check_target(RECIPE)
    assert found.gpu is None
    assert found.note.startswith("the catalog has no NVIDIA T4: ")


def test_this_machines_gpus_are_taken(monkeypatch):
    class Card:
        name = "NVIDIA H100 80GB HBM3"

    monkeypatch.setattr(targets, "machine", lambda _nvml=None: Host(Card()))
    monkeypatch.setattr(targets, "gpu_of_device", lambda _device: object())
    monkeypatch.setattr(targets, "fit_target", lambda *_asked: (H100, 3))
    found = targets.check_target(RECIPE, count=None)
    assert (found.gpu, found.count, found.note) == (H100, 3, "")


def test_an_unknown_gpu_is_refused():
    with pytest.raises(GpuError, match="no such GPU"):
        targets.check_target(RECIPE, "rtx-9000")
    with pytest.raises(InputError, match="--count"):
        targets.check_target(RECIPE, None, -1)


# ---------------------------------------------------------------------- glmlab rules
def test_rules_lists_all_with_sources(capsys):
    code, out, _ = run(capsys, "rules", "--json")
    assert code == 0
    assert [rule["id"] for rule in json.loads(out)["rules"]] == [rule.id for rule in load_rules()]
    code, out, _ = run(capsys, "rules")
    assert code == 0
    assert f"{len(load_rules())} rules" in out
    assert "sparse-mla-backend-missing" in out


def test_a_wrong_rule_of_ones_own_is_one_line_and_2(capsys, monkeypatch, tmp_path):
    (tmp_path / "rules").mkdir()
    (tmp_path / "rules" / "own.yaml").write_text("- id: mine\n  severity: loud\n", encoding="utf-8")
    monkeypatch.setenv("GLMLAB_DATA", str(tmp_path))
    code, _, err = run(capsys, "rules")
    assert code == 2
    assert "own.yaml line 2: rule mine: severity = 'loud': expected blocks, warns, notes" in err
