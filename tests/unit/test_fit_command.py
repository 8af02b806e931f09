"""glmlab fit: tables, HTML, exit codes, and which GPUs are meant."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from glmlab.cli import main
from glmlab.errors import InputError
from glmlab.footprint.part import amount
from glmlab.footprint.tables import fit_html, fit_table, verdict
from glmlab.footprint.target import fit_target
from glmlab.gpus import find_gpu
from glmlab.memory import fit
from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe

AIR: dict[str, Any] = {"name": "air", "model": "glm-4.5-air-fp8", "tensor_parallel": 2}


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "air.yaml"
    Recipe(**AIR).save(path)
    return path


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as exit_:
        main(["fit", *arguments])
    printed = capsys.readouterr()
    return int(exit_.value.code or 0), printed.out, printed.err


def test_json_of_what_fits(capsys: pytest.CaptureFixture[str], recipe_file: Path) -> None:
    code, out, _ = run(capsys, str(recipe_file), "--gpu", "rtx-pro-6000", "--count", "2", "--json")
    body = json.loads(out)
    assert code == 0
    assert body["fits"] is True
    assert len(body["per_gpu"]) == 2


def test_exit_1_where_it_does_not_fit(capsys: pytest.CaptureFixture[str], recipe_file: Path) -> None:
    code, out, _ = run(capsys, str(recipe_file), "--gpu", "rtx-5090", "--count", "2", "--json")
    assert code == 1
    assert json.loads(out)["fits"] is False


def test_count_is_what_the_recipe_uses(capsys: pytest.CaptureFixture[str], recipe_file: Path) -> None:
    code, out, _ = run(capsys, str(recipe_file), "--gpu", "rtx-pro-6000", "--json")
    assert code == 0
    assert json.loads(out)["count"] == 2


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--gpu", "rtx-pro-6000", "--count", "0"), "count = 0: expected 1 to 72 GPUs"),
        (("--gpu", "rtx-pro-6000", "--count", "1000"), "count = 1000: expected 1 to 72 GPUs"),
        (("--gpu", "rtx-pro-600"), "gpu = 'rtx-pro-600': no such GPU; did you mean rtx-pro-6000"),
        (("--gpu", "h100", "--count", "two"), "--count"),
    ],
)
def test_bad_input_is_one_line(
    capsys: pytest.CaptureFixture[str], recipe_file: Path, arguments: tuple[str, ...], said: str
) -> None:
    code, out, error = run(capsys, str(recipe_file), *arguments)
    assert code == 2
    assert out == ""
    assert said in error
    assert error.count("\n") == 1


def test_a_utilization_that_cannot_be(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: bad\nmodel: glm-4.5-air\ngpu_memory_utilization: 1.5\n", encoding="utf-8")
    code, _, error = run(capsys, str(path), "--gpu", "h100")
    assert code == 2
    assert "gpu_memory_utilization = 1.5" in error
    assert error.count("\n") == 1


def text(found: Any) -> str:
    console = Console(width=240, record=True, file=None, quiet=False)
    with console.capture() as captured:
        console.print(fit_table(found))
    return captured.get()


def test_the_table_has_every_part_and_its_doubt() -> None:
    found = fit(Recipe(**AIR), find_gpu("rtx-pro-6000"), 2)
    shown = text(found)
    for part in found.parts:
        assert part.name in shown
    assert "fits 2 x rtx-pro-6000" in shown
    assert f"{found.kv_tokens:,} tokens" in shown
    assert "predicted" in shown


def test_the_verdict_says_by_how_much() -> None:
    found = fit(Recipe(**AIR), find_gpu("rtx-5090"), 2)
    assert re.match(r"does not fit 2 x rtx-5090 by \d+\.\d GB a GPU", verdict(found))


def test_a_little_too_much_is_told_in_mb_and_tokens() -> None:
    roomy = fit("glm-4.7-fp8", "rtx-pro-6000")
    little = fit(roomy.recipe.replace(max_model_len=roomy.pool.longest + 16), "rtx-pro-6000")
    assert re.match(r"does not fit 4 x rtx-pro-6000 by [1-9]\d* MB a GPU", verdict(little))
    assert f"which is {little.pool.longest:,} tokens" in little.reasons[0]


@pytest.mark.parametrize(
    ("size", "said"), [(1, "1 MB"), (43e6, "43 MB"), (0.1e9, "0.1 GB"), (34.31e9, "34.3 GB")]
)
def test_amounts(size: float, said: str) -> None:
    assert amount(size) == said


def test_one_is_no_plural() -> None:
    found = fit(find_recipe("glm-5.1-reap-160-sglang").replace(max_num_seqs=1, block_size=1), "rtx-pro-6000")
    shown = " ".join(part.how for part in found.parts)
    assert "blocks of 1 token," in shown
    assert "logits of 1 sequence " in shown


def test_no_doubt_about_no_tokens() -> None:
    assert "KV: 0 tokens at" in text(fit("glm-5.1-nvfp4", "rtx-pro-6000"))


def test_html_has_a_bar_for_each_gpu_and_escapes() -> None:
    found = fit(Recipe(**AIR), find_gpu("rtx-pro-6000"), 2)
    html = fit_html(found)
    assert html == found._repr_html_()
    assert html.count(">GPU ") == 2
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%;background", html)]
    bar = widths[: len(widths) // 2]
    assert sum(bar) == pytest.approx(100 * (1 - found.free_bytes / found.gpu.usable_memory_bytes), abs=0.1)
    assert "<script" not in html


def test_this_machine_without_gpus_names_those_that_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    class NoDriver:
        NVML_ERROR_LIBRARY_NOT_FOUND = 12

        class NVMLError(Exception):
            value = 12

        def nvmlInit(self) -> None:  # noqa: N802 (NVML's own name)
            raise self.NVMLError

    with pytest.raises(InputError, match=r"--gpu: not given, and .*; name one of .*rtx-pro-6000"):
        fit_target(Recipe(**AIR), nvml=NoDriver())


def test_gib_beside_gb() -> None:
    found = fit(Recipe(**AIR), find_gpu("rtx-pro-6000"), 2)
    weights = found.parts[0]
    assert f"{weights.size / 1e9:.2f}  {weights.size / 2**30:.2f}" in text(found)
    assert f"<td>{weights.size / 1e9:.2f}</td><td>{weights.size / 2**30:.2f}</td>" in fit_html(found)
    assert weights.to_json()["gib"] == pytest.approx(weights.to_json()["gb"] / 1.073741824, abs=1e-3)


def test_a_refused_plan_exits_with_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    path = tmp_path / "plan.yaml"
    Recipe(name="plan", model="glm-4.7-nvfp4", tensor_parallel=4, decode_context_parallel=2).save(path)
    code, out, error = run(capsys, str(path), "--gpu", "rtx-pro-6000", "--count", "4")
    assert (code, out) == (2, "")
    assert "8 KV heads" in error
    assert error.count("\n") == 1
