"""glmlab plan and glmlab predict: what they print, their exit codes, the study that they write."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

import glmlab
from glmlab.cli import main
from glmlab.decode.tables import prediction_tables
from glmlab.errors import InputError
from glmlab.plans import plan
from glmlab.plans.study_file import study_text
from glmlab.plans.tables import plans_tables
from glmlab.predictor import predict
from glmlab.recipe import Recipe
from glmlab.study_spec import StudySpec

SEED = ("glm-5.1-reap-160", "--gpu", "rtx-pro-6000", "--count", "4")
AIR = ("glm-4.5-air", "--gpu", "h100", "--count", "4", "--contexts", "256,4096")


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    monkeypatch.delenv("GLMLAB_DATA", raising=False)
    monkeypatch.setattr("glmlab.rules.installed_packages", dict)


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(list(arguments))
    printed = capsys.readouterr()
    return int(exit_.value.code or 0), printed.out, printed.err


def lines(what: Any, width: int = 80) -> list[str]:
    console = Console(width=width, highlight=False)
    with console.capture() as captured:
        console.print(what)
    return captured.get().splitlines()


# ---------------------------------------------------------------------- predict
def test_predict_prints_what_the_contract_says(capsys):
    code, out, _ = run(
        capsys, "predict", "glm-5.1-reap-160-vllm", "--gpu", "rtx-pro-6000", "--count", "4",
        "--contexts", "256,4096,16384,150000", "--batch-sizes", "1,8", "--json",
    )  # fmt: skip
    body = json.loads(out)
    assert code == 0
    assert body["evidence"] == "predicted"
    assert len(body["points"]) == 8
    for point in body["points"]:
        assert set(point) >= {"context", "batch", "tokens_per_s", "tpot_ms", "low_ms", "high_ms", "terms_ms"}
        assert point["low_ms"] <= point["tpot_ms"] <= point["high_ms"]
        assert sum(point["terms_ms"].values()) == pytest.approx(point["tpot_ms"], abs=0.01)


def test_predict_says_what_the_seed_would_see(capsys):
    code, out, _ = run(capsys, "predict", "glm-5.1-reap-160-vllm", "--gpu", "rtx-pro-6000")
    assert code == 0
    assert "predicted" in out
    assert "collectives" in out


def test_tables_are_readable_at_80_columns():
    found = predict("glm-5.1-reap-160-vllm", "rtx-pro-6000", 4, batch_sizes=(1, 8))
    ranked = plan("glm-5.1-reap-160", "rtx-pro-6000", 4, batch_sizes=(1, 8))
    for what in (prediction_tables(found), plans_tables(ranked)):
        shown = lines(what)
        assert all(len(line) <= 80 for line in shown)
        # No row of numbers is folded: each begins with its context or plan.
        rows = [line for line in shown if line.startswith(("150,000", " 16,384", "*  TP4", "   PP4"))]
        assert rows
        assert all(len(row.split()) >= 7 for row in rows)


# ---------------------------------------------------------------------- plan
def test_plan_prints_what_the_contract_says(capsys):
    code, out, _ = run(capsys, "plan", *SEED, "--json")
    body = json.loads(out)
    assert code == 0
    keys = {"tensor_parallel", "pipeline_parallel", "expert_parallel", "tokens_per_s", "kv_tokens", "blocked"}
    assert all(set(each) >= keys for each in body["plans"])
    possible = [each for each in body["plans"] if each["blocked"] is None]
    assert body["plans"][: len(possible)] == possible
    rates = [each["tokens_per_s"] for each in possible]
    assert rates == sorted(rates, reverse=True)
    assert (possible[0]["tensor_parallel"], possible[0]["pipeline_parallel"]) == (4, 1)
    assert possible[0]["may_be_best"]
    assert all(each["tokens_per_s"] is None for each in body["plans"] if each["blocked"] is not None)


def test_plan_tells_the_user_of_the_seed_what_is_true(capsys):
    code, out, _ = run(capsys, "plan", *SEED)
    assert code == 0
    assert "TP4 the fastest as predicted" in out
    assert "the MLA latent lies on 4 ranks" in out
    assert "the fullest of 4 ranks reads 3.5" in out
    assert "rule dcp-refused-by-sparse-mla" in out
    assert "TP2 (70.1 GB)" in out
    assert "glm-5.1-reap-160-vllm" in out


def test_no_plan_is_an_answer_too(capsys):
    code, out, _ = run(capsys, "plan", "glm-5.1-nvfp4", "--gpu", "rtx-pro-6000", "--count", "4", "--json")
    assert code == 1
    assert json.loads(out)["possible"] == 0
    code, out, _ = run(capsys, "plan", "glm-5.1-nvfp4", "--gpu", "rtx-pro-6000", "--count", "4")
    assert code == 1
    assert "no plan is possible on 4 x rtx-pro-6000" in out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("plan", "glm-9", "--gpu", "h100", "--count", "4"), "glm-9"),
        (("plan", "glm-4.7", "--gpu", "h100"), "--count: not given"),
        (("plan", "glm-4.7", "--gpu", "h100", "--count", "0"), "count = 0: expected 1 to 72 GPUs"),
        (("plan", "glm-4.7", "--gpu", "h101", "--count", "4"), "did you mean h100"),
        (("plan", *AIR[:5], "--contexts", "long"), "--contexts = 'long'"),
        (("plan", *AIR[:5], "--contexts", "0"), "contexts = 0: expected whole numbers from 1"),
        (("plan", *AIR[:5], "--batch-sizes", "0"), "batch_sizes = 0"),
        (("plan", *AIR, "--vllm", "new"), "versions.vllm = 'new'"),
        (("plan", *AIR, "--study", "plans.txt"), "expected a name that ends in .yaml"),
        (("plan", "glm-4.7-nvfp4", *AIR[1:5], "--contexts", "999999"), "beyond max_model_len"),
        (("predict", "glm-9", "--gpu", "h100"), "recipe = 'glm-9'"),
        (("predict", "glm-4.7-nvfp4", "--gpu", "rtx-pro-6000", "--count", "2"), "has 4 ranks"),
        (("predict", "glm-4.7-nvfp4", "--gpu", "h100", "--batch-sizes", "1,x"), "--batch-sizes = '1,x'"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(capsys, arguments, said):
    code, out, error = run(capsys, *arguments)
    assert code == 2
    assert out == ""
    assert said in error
    assert error.count("\n") == 1


# ---------------------------------------------------------------------- the study
def test_the_study_holds_the_possible_plans_with_what_is_live_inside(capsys, tmp_path: Path):
    path = tmp_path / "plans.yaml"
    code, out, _ = run(capsys, "plan", *AIR, "--study", str(path))
    assert code == 0
    assert f"glmlab tune {path}" in out
    spec = StudySpec.load(path)
    ranked = plan("glm-4.5-air", "h100", 4, contexts=(256, 4096))
    wanted = [each.plan for each in ranked.possible if each.plan.data_parallel == 1]
    assert [each["tensor_parallel"] for each in spec.knob_space.plans] == [p.tensor_parallel for p in wanted]
    assert [each["pipeline_parallel"] for each in spec.knob_space.plans] == [
        p.pipeline_parallel for p in wanted
    ]
    assert spec.knob_space.live == ("kv_splits",)
    assert spec.base_recipe.attention_backend == "TRITON_ATTN"
    assert spec.knob_space.allows({k: getattr(spec.base_recipe, k) for k in spec.knob_space.plans[0]})
    assert path.read_text(encoding="utf-8").splitlines()[:2] == [
        "# Plans of glm-4.5-air on 4 x h100: those that fit and that no rule forbids,",
        "# the fastest as predicted first, all sequences of a point starting together. Each is an engine of",
    ]


def test_a_study_ranks_plans_as_it_will_measure_them(capsys, tmp_path: Path):
    path, asked = tmp_path / "plans.yaml", (*AIR, "--batch-sizes", "1,8", "--json")
    _, out, _ = run(capsys, "plan", *asked, "--study", str(path))
    found = json.loads(out)
    assert found["study"] == str(path)
    assert any("--together" in note for note in found["notes"])
    _, out, _ = run(capsys, "plan", *asked, "--together")
    together = json.loads(out)
    assert together["study"] is None
    assert not any("--together" in note for note in together["notes"])

    apart, waiting = ({p["plan"]: p for p in each["plans"] if p["points"]} for each in (found, together))
    pipelines = [label for label, each in waiting.items() if each["pipeline_parallel"] > 1]
    assert pipelines
    assert all(waiting[label]["tokens_per_s"] < apart[label]["tokens_per_s"] for label in pipelines)
    # The study's comments have the rates of sequences that start together, in that order.
    rates = [float(rate) for rate in re.findall(r"# ([0-9.]+) \(", path.read_text(encoding="utf-8"))]
    assert rates == sorted(rates, reverse=True)
    spec = StudySpec.load(path)
    assert rates == [pytest.approx(rate, abs=0.06) for rate in rates_of(spec)]


def rates_of(spec: StudySpec) -> list[float]:
    """What is predicted of a study's plans, in their order, over just the points that it measures."""
    recipes = [spec.base_recipe.replace(**plan) for plan in spec.knob_space.plans]
    return [
        predict(each, "h100", 8, points=spec.workload.points, together=True).tokens_per_s for each in recipes
    ]


def test_a_study_goes_by_the_points_that_its_limit_leaves():
    found = plan("glm-5.1-reap-160", "h100", 8, contexts=(256, 16_384, 131_072), batch_sizes=(1, 8, 64))
    spec = StudySpec.parse_text(study_text(found))
    assert len(spec.workload.points) < len(found.workload.points)
    rates = rates_of(spec)
    assert rates == sorted(rates, reverse=True)
    first = spec.knob_space.plans[0]
    assert {name: getattr(spec.base_recipe, name) for name in first} == first
    # By all points, among them those that do not fit, another plan is ahead.
    assert found.possible[0].plan.decode_context_parallel != first["decode_context_parallel"]
    waits = [note for note in found.notes if "would wait" in note]
    assert len(waits) == 1
    assert len(found.notes) < 8


def test_a_study_is_never_written_over(capsys, tmp_path: Path):
    path = tmp_path / "plans.yaml"
    path.write_text("mine", encoding="utf-8")
    code, _, error = run(capsys, "plan", *AIR, "--study", str(path))
    assert code == 2
    assert "exists already" in error
    assert path.read_text(encoding="utf-8") == "mine"


def test_where_nothing_is_possible_no_study_is_written(capsys, tmp_path: Path):
    path = tmp_path / "plans.yaml"
    code, _, _ = run(
        capsys, "plan", "glm-5.1-nvfp4", "--gpu", "rtx-pro-6000", "--count", "4", "--study", str(path)
    )
    assert code == 1
    assert not path.exists()


def test_dense_mla_takes_splits_and_its_recipe_stays_the_baseline():
    spec = StudySpec.parse_text(study_text(plan("glm-5.1-reap-160-vllm", "rtx-pro-6000", 4)))
    assert spec.base_recipe.tensor_parallel == 4
    assert spec.base_recipe.kv_splits == 64
    assert 64 in spec.knob_space["kv_splits"].points()
    assert {each["decode_context_parallel"] for each in spec.knob_space.plans} == {1, 2, 4}


def test_sparse_attention_has_no_splits_and_the_study_says_so():
    text = study_text(plan("glm-5.1-reap-160", "rtx-pro-6000", 4))
    assert "no kv_splits: sparse attention takes none" in text
    assert StudySpec.parse_text(text).knob_space.live == ()


def test_the_plan_of_a_recipe_that_is_not_possible_gives_way_to_the_best():
    recipe = Recipe(name="wide", model="glm-4.5-air-fp8", tensor_parallel=8, max_model_len=8192)
    spec = StudySpec.parse_text(study_text(plan(recipe, "rtx-pro-6000", 2, contexts=(256,))))
    assert spec.base_recipe.tensor_parallel == 2


def test_a_tiny_model_makes_a_study_that_needs_no_checkpoint():
    spec = StudySpec.parse_text(study_text(plan("tiny/glm4-moe", "h100", 2, contexts=(64,))))
    assert spec.base_recipe.weights == "random"
    assert len(spec.knob_space.plans) >= 3


def test_points_that_some_plan_has_no_room_for_are_left_out_of_a_study():
    ranked = plan("glm-4.5-air", "h100", 4, contexts=(256, 65_536), batch_sizes=(1, 8, 64))
    work = StudySpec.parse_text(study_text(ranked)).workload
    pools = [each.kv_tokens or 0 for each in ranked.possible if each.plan.data_parallel == 1]
    # A study names TRITON_ATTN, whose workspace takes a little of it.
    assert work.most_tokens is not None
    assert 0.99 * min(pools) < work.most_tokens <= min(pools)
    assert (256, 64) in work.points
    assert (65_536, 1) in work.points
    assert (65_536, 64) not in work.points
    assert "most_tokens" not in study_text(plan("glm-4.5-air", "h100", 4, contexts=(256, 65_536)))


def test_replicas_are_left_out_of_a_study():
    ranked = plan("glm-4.5-air-fp8", "rtx-pro-6000", 4, contexts=(256,))
    assert any(each.plan.data_parallel > 1 for each in ranked.possible)
    assert "data_parallel" not in study_text(ranked)


def test_no_study_without_a_possible_plan():
    with pytest.raises(InputError, match=r"no plan of glm-5\.1-nvfp4 is possible"):
        study_text(plan("glm-5.1-nvfp4", "rtx-pro-6000", 4))


# ---------------------------------------------------------------------- in Python
def test_both_are_public_and_show_themselves_in_a_notebook():
    ranked = glmlab.plan("glm-5.1-reap-160", "rtx-pro-6000", 4)
    assert "TP4" in ranked._repr_html_()
    found = glmlab.predict("glm-5.1-reap-160-vllm", "rtx-pro-6000", 4)
    assert found.point(256).tpot_ms > 0


def test_contexts_beyond_a_recipe_are_left_out_and_said():
    ranked = plan("glm-4.7-nvfp4", "rtx-pro-6000", 4)
    assert ranked.workload.contexts == (256, 4096, 16_384)
    assert any("a context of 150,000" in note for note in ranked.notes)


def test_without_an_engine_a_plan_is_for_the_newest_release_that_was_looked_into():
    ranked = plan("glm-5.1-reap-160", "rtx-pro-6000", 4)
    assert ranked.versions["vllm"] == "0.30.0"
    assert any("planned for 0.30.0" in note for note in ranked.notes)
    named = plan("glm-5.1-reap-160", "rtx-pro-6000", 4, versions={"vllm": "0.32.0"})
    assert named.versions["vllm"] == "0.32.0"
    assert not any("planned for" in note for note in named.notes)
