"""Every notebook of notebooks/: what is committed, that it runs from top to bottom, and what it then says."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import nbformat
import pytest

import glmlab
from tests.notebook_run import FOLDER, NOTEBOOKS, WIDGET, Run, parameter_cells, processes_in, read

NAMES = [path.stem for path in NOTEBOOKS]
RENDERED = sorted((FOLDER.parent / "docs" / "notebooks").glob("*.html"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=NAMES)


def test_all_are_there() -> None:
    assert NAMES == [
        "00_quickstart",
        "01_fit_and_check",
        "02_kv_splits_live",
        "03_tiles",
        "04_parallelism",
        "05_study_dashboard",
        "06_export_and_verify",
    ]


@each_notebook
def test_what_is_committed_is_short_and_without_outputs(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size < 200_000
    assert len(notebook.cells) <= 15
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@each_notebook
def test_it_begins_with_a_question_and_ends_with_the_answer(path: Path) -> None:
    cells = read(path).cells
    assert re.search(r"^\*.+\?\*$", cells[0].source, flags=re.MULTILINE)
    assert "answer" in [cell.id for cell in cells]
    assert "doctor(" in next(cell.source for cell in cells if cell.cell_type == "code")


@each_notebook
def test_papermill_can_set_its_parameters(path: Path) -> None:
    assert [cell.cell_type for cell in parameter_cells(read(path))] == ["code"]


@each_notebook
def test_its_links_lead_somewhere(path: Path) -> None:
    text = "\n".join(cell.source for cell in read(path).cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)#]+)", text):
        if not link.startswith("http"):
            assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", RENDERED, ids=[path.stem for path in RENDERED])
def test_what_is_rendered_stands_alone_and_is_of_this_notebook(path: Path) -> None:
    text = path.read_text()
    assert path.stat().st_size < 1_000_000
    assert "<script" not in text
    assert not re.findall(r'(?:src|href)="(?!data:|#)\w+:[^"]*', text)  # it loads nothing from elsewhere
    for link in re.findall(r'href="([^"#]+)', text):
        assert (path.parent / link).exists(), link
    cells = read(FOLDER / f"{path.stem}.ipynb").cells
    for heading in re.findall(r"^#+ (.*)", "\n".join(cell.source for cell in cells), flags=re.MULTILINE):
        assert heading in text
    assert not re.search(r"/(?:home|root|work)/", text)  # nothing of the machine where it ran


def test_two_are_rendered() -> None:
    assert [path.stem for path in RENDERED] == ["02_kv_splits_live", "05_study_dashboard"]


# ---------------------------------------------------------------------------------------- running


@pytest.fixture(autouse=True)
def _logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GLMLAB_LOGS", str(tmp_path / "logs"))


def run(stem: str, folder: Path, **parameters: object) -> Run:
    """A run that wrote nothing to stderr and left no process behind."""
    done = Run(stem, folder, **parameters)
    assert done.noise == []
    # What vLLM has to say stands in its log, not in the notebook.
    assert not re.search(r"WARNING|INFO \d\d-\d\d", done.text())
    deadline = time.monotonic() + 20
    while (left := processes_in(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == []
    return done


in_full = pytest.mark.notebook
patient = pytest.mark.timeout(1500)


@in_full
@patient
def test_the_quickstart_runs_twice(tmp_path: Path) -> None:
    first = run("00_quickstart", tmp_path)
    files = _contents(tmp_path / "quickstart-bundle")
    assert "evidence: measured" in first.text("summary")
    same = re.search(r"same tokens: ([0-9.]+)%", first.text("live"))
    assert same is not None
    assert float(same[1]) > 90
    assert "max_num_seqs" in first.text("start")
    assert list((tmp_path / "logs").glob("kernel-*.log"))
    assert set(files) == {"README.md", "env.sh", "evidence.json", "recipe.yaml", "serve.yaml"}
    for name in ("env.sh", "serve.yaml"):
        assert files[name].decode().strip() in first.text("export")
    second = run("00_quickstart", tmp_path)
    assert "starting" not in second.text("study")  # nothing was left to do
    assert second.text("summary") == first.text("summary")
    assert _contents(tmp_path / "quickstart-bundle") == files


@in_full
@pytest.mark.parametrize(
    ("gpu", "count", "fits"), [("rtx-pro-6000", 4, False), ("h200", 8, True)], ids=["as it is", "8 x h200"]
)
def test_01_says_what_fits_and_what_breaks(tmp_path: Path, gpu: str, count: int, fits: bool) -> None:
    other = {"GPU": gpu, "COUNT": count} if fits else {}
    done = run("01_fit_and_check", tmp_path, **other)
    wish = glmlab.fit("glm-5.1-nvfp4", gpu, count)
    wished, taken, pace, breaks, changes = done.text("answer").strip().splitlines()
    assert wish.fits is fits
    told = (
        f"fits, with {wish.kv_tokens:,}"
        if fits
        else f"does not fit, by {wish.short_bytes / 1e9:.1f} GB a GPU"
    )
    assert told in wished
    assert "glm-5.1-reap-160" in taken
    assert wished.endswith("(predicted)")
    assert re.search(r"\d+ tokens/s \(\d+ to \d+, predicted\)", pace)
    assert re.search(rf"\d+ of \d+ models fit {count} x {gpu} \(predicted\)", done.text("which"))
    # Kernels of Hopper run on an H200, and nowhere on compute capability 12.
    assert ("attention-backend-not-for-this-gpu" in breaks) is not fits
    assert ("attention_backend = None (was FLASHMLA_SPARSE)" in changes) is not fits
    assert "none of which blocks" in done.text("mend")
    assert "seed" in done.text("fast")
    assert WIDGET in done.kinds("hand")


@in_full
@patient
def test_02_holds_the_claim_against_the_recording_and_plays_with_an_engine(tmp_path: Path) -> None:
    done = run("02_kv_splits_live", tmp_path)
    assert done.text("claim").count("(replayed)") == 3
    for cell_id in ("claim", "chart", "map"):
        assert [title.count("(replayed)") for title in done.titles(cell_id)] == [1], cell_id
    assert WIDGET in done.kinds("workbench")
    rounds = done.text("played").strip().splitlines()
    assert [bool(re.search(r"cpu_split_kv = (True|False)", line)) for line in rounds] == [True] * 3
    assert all(line.endswith("(measured)") for line in rounds)
    same = re.findall(r"same tokens (\d+)%", done.text("played"))
    assert len(same) == 2
    assert min(map(int, same)) > 90
    assert "the engine is closed" in done.text("play").lower()
    assert "evidence: replayed" in done.text("sweep")
    answer = done.text("answer")
    ratio = re.search(r"8 splits against vLLM's own: .* x ([0-9.]+) \(([0-9.]+) to ([0-9.]+)\)", answer)
    assert ratio is not None
    assert 3 < float(ratio[2]) < float(ratio[1]) < float(ratio[3])
    assert "better than the baseline" in answer


@in_full
def test_03_finds_tiles_and_writes_what_vllm_reads(tmp_path: Path) -> None:
    first = run("03_tiles", tmp_path)
    assert "evidence: replayed" in first.text("study")
    assert ["(replayed)" in title for title in first.titles("chart")] == [True]
    assert "the name that vLLM looks for: True" in first.text("json")
    assert "the same tiles when read back: True" in first.text("json")
    assert "cannot be launched on: rtx-5090, rtx-pro-6000" in first.text("tables")
    assert re.search(r"best -[0-9.]+%, worst \+[0-9.]+%, of 12 \(replayed\)", first.text("answer"))
    assert first.text("experts").count("replayed") == 5  # four batch sizes, and the table
    second = run("03_tiles", tmp_path)
    assert second.text("study") == first.text("study")


@in_full
@patient
def test_04_starts_three_plans_and_every_rank_proves_its_state(tmp_path: Path) -> None:
    done = run("04_parallelism", tmp_path)
    assert len(re.findall(r": started in \d+ s, changed live in", done.text("engines"))) == 3
    proof = done.words("proof")
    assert proof.count("'cpu_split_kv': False") == 2 * 5  # in force, and ran with: one, two and two ranks
    assert "True" not in proof
    costs = re.findall(r"(?:one rank|(?:tensor|pipeline) parallel 2) ([0-9. ]+)", done.words("cost"))
    assert [float(cells.split()[-1]) > 90 for cells in costs] == [True] * 3  # the same tokens, in percent
    assert ["(measured)" in title for title in done.titles("compare")] == [True]
    assert "TP2 x PP2" in done.words("four")
    assert done.text("twin").count("(replayed)") == 2
    assert "(measured once, so no verdict)" in done.text("answer")


@in_full
def test_04_without_an_engine_keeps_to_what_can_be_computed(tmp_path: Path) -> None:
    done = run("04_parallelism", tmp_path, ENGINE="replay")
    assert "nothing was measured" in done.text("compare")
    assert "(measured" not in done.text("answer")
    assert re.search(r"fastest: TP4, \d+ tokens/s", done.text("answer"))


@in_full
@patient
@pytest.mark.parametrize("engine", ["cpu", "replay"])
def test_05_steers_a_study_and_finds_it_again(tmp_path: Path, engine: str) -> None:
    evidence = {"cpu": "measured", "replay": "replayed"}[engine]
    first = run("05_study_dashboard", tmp_path, ENGINE=engine)
    assert WIDGET in first.kinds("start")
    assert "refused" not in first.text("steer")
    assert "the engine is kept" in first.text("steer")
    assert "the same session: True" in first.text("attach")
    assert evidence in first.text("attach")
    _, *states, again, result = first.text("answer").strip().splitlines()
    assert re.search(
        "Running; Pausing.*; Paused.*; Running; Finished, 6 trials done", "; ".join(map(str.strip, states))
    )
    assert again == f"found again: True; trials: 6 ({evidence})"
    assert "not confirmed yet" not in result
    assert all(f"({evidence})" in title for title in first.titles("charts"))
    report = (tmp_path / "steered.html").read_text()
    assert f"steered-{engine}" in report
    assert f"with steered-{engine}" in first.text("share")

    if engine == "replay":
        return  # once is enough
    second = run("05_study_dashboard", tmp_path, ENGINE=engine)
    assert second.text("summary") == first.text("summary")
    assert "was tried as trial" in second.text("steer")


@in_full
@patient
def test_06_serves_the_bundle_and_sees_it_in_force(tmp_path: Path) -> None:
    done = run("06_export_and_verify", tmp_path)
    files = _contents(tmp_path / "export-bundle")
    assert set(files) == {"README.md", "env.sh", "evidence.json", "recipe.yaml", "serve.yaml"}
    for name in set(files) - {"evidence.json"}:
        assert files[name].decode().strip() in done.text("bundle")
    assert json.loads(files["evidence.json"])["evidence"] == "measured"
    assert "recipe.yaml is what was found: True" in done.text("evidence")
    assert re.search(r"--config serve.yaml .*: up after \d+ s", done.text("serve"))
    checks = done.words("did")
    assert checks.count("True") == 4
    assert "False" not in checks
    assert '{"cpu_attn_isa":"vec16"}' in checks
    assert "in force: True, by 4 checks" in done.text("answer")


@in_full
def test_06_serves_nothing_that_was_not_measured(tmp_path: Path) -> None:
    done = run("06_export_and_verify", tmp_path, ENGINE="replay")
    assert "REPLAYED, NOT MEASURED" in (tmp_path / "export-bundle" / "serve.yaml").read_text()
    assert "Nothing was measured when this was tuned" in done.text("bundle")
    assert "what the numbers are: replayed" in done.text("evidence")
    assert "not served" in done.text("serve")
    assert "in force" not in done.text("answer")
    assert "(replayed from a recording)" in done.text("answer")


def _contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()} if folder.is_dir() else {}
