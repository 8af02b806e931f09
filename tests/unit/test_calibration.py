"""The predictor's constants: each with its source, replaceable by a user's own; and what they reproduce."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from glmlab.decode.all_reduce import AllReduceTable, all_reduce_tables, all_reduce_us
from glmlab.decode.attention import attention_floor_us
from glmlab.decode.constants import CASES, Constant, constants
from glmlab.errors import RecipeError
from glmlab.predictor import predict
from glmlab.recipe_book import find_recipe
from glmlab.recorded import load_recording


def every_constant(part: object) -> Iterator[Constant]:
    if isinstance(part, Constant):
        yield part
    elif isinstance(part, BaseModel):
        for name in type(part).model_fields:
            yield from every_constant(getattr(part, name))
    elif isinstance(part, dict):
        for each in part.values():
            yield from every_constant(each)


def table(name: str) -> AllReduceTable:
    link, method, ranks = name.split("/")
    return next(t for t in all_reduce_tables() if (t.link, t.method, str(t.ranks)) == (link, method, ranks))


# ---------------------------------------------------------------------- the files
def test_each_constant_says_where_it_is_from():
    found = list(every_constant(constants()))
    assert len(found) > 25
    assert all(len(each.source) > 8 for each in found)


def test_each_table_says_where_it_is_from():
    assert len({(t.link, t.method, t.ranks) for t in all_reduce_tables()}) == len(all_reduce_tables())
    assert all(len(each.source) > 40 for each in all_reduce_tables())
    assert {each.link for each in all_reduce_tables()} == {"pcie", "nvlink"}


@pytest.mark.parametrize("known", all_reduce_tables(), ids=lambda t: f"{t.link}/{t.method}/{t.ranks}")
def test_time_grows_with_the_message_and_the_table_is_met(known):
    for size, microseconds in known.us.items():
        smaller = max(taken for other, taken in known.us.items() if other <= size)
        assert known.microseconds(size, "value") == pytest.approx(smaller)
        assert smaller <= 1.2 * microseconds  # a table's own noise
    times = [known.microseconds(size, "value") for size in (1, 2**14, 2**17, 2**20, 2**24)]
    assert times == sorted(times)
    best, value, worst = (known.microseconds(12_288, case) for case in CASES)
    assert best <= value <= worst


def test_ranks_between_tables_take_the_larger_and_beyond_them_more():
    pcie = [each for each in all_reduce_tables() if each.link == "pcie"]

    def nccl(ranks: int) -> float:
        return all_reduce_us(pcie, ("nccl",), ranks, 12_288, "value")

    assert nccl(1) == 0
    assert nccl(2) < nccl(3) == nccl(4) < nccl(6) == nccl(8) < nccl(16)


def test_the_faster_of_two_methods_is_taken_for_each_size():
    pcie = [each for each in all_reduce_tables() if each.link == "pcie"]
    for size in (8192, 2**20):
        each = [all_reduce_us(pcie, (method,), 4, size, "value") for method in ("one-shot", "nccl")]
        assert all_reduce_us(pcie, ("one-shot", "nccl"), 4, size, "value") == min(each)
    assert table("pcie/one-shot/4").us[8192] < table("pcie/nccl/4").us[8192]


# ---------------------------------------------------------------------- a user's own
def test_a_users_file_takes_the_place_of_ours(tmp_path: Path, monkeypatch):
    ours = Path(str(constants.__globals__["data_folders"]("calibration")[0])) / "decode.yaml"
    own = tmp_path / "calibration" / "decode.yaml"
    own.parent.mkdir()
    text = ours.read_text(encoding="utf-8")
    own.write_text(text.replace("host_step_ms:\n  value: 2.1", "host_step_ms:\n  value: 3"), encoding="utf-8")
    monkeypatch.setenv("GLMLAB_DATA", str(tmp_path))
    assert constants().host_step_ms.value == 3


def test_a_users_table_goes_before_ours(tmp_path: Path, monkeypatch):
    folder = tmp_path / "calibration" / "all_reduce"
    folder.mkdir(parents=True)
    body = "link: pcie\nmethod: nccl\nranks: 4\nus: {1024: 1, 1048576: 2}\nbest: 1\nworst: 1\nsource: mine\n"
    (folder / "pcie-nccl-4.yaml").write_text(body, encoding="utf-8")
    monkeypatch.setenv("GLMLAB_DATA", str(tmp_path))
    assert table("pcie/nccl/4").us[1024] == 1
    found = predict("glm-4.7-nvfp4", "rtx-pro-6000", contexts=(256,)).points[0]
    assert found.terms["collectives"].value < 0.5


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("value: 2.1", "value: 5"), "outside of best"),
        (("host_step_ms:", "host_step:"), "host_step"),
        (("  value: 2.1", "  value: fast"), "host_step_ms.value"),
    ],
)
def test_a_wrong_file_is_refused_in_one_line(tmp_path: Path, monkeypatch, change, said):
    ours = Path(str(constants.__globals__["data_folders"]("calibration")[0])) / "decode.yaml"
    own = tmp_path / "calibration" / "decode.yaml"
    own.parent.mkdir()
    own.write_text(ours.read_text(encoding="utf-8").replace(*change), encoding="utf-8")
    monkeypatch.setenv("GLMLAB_DATA", str(tmp_path))
    with pytest.raises(RecipeError) as error:
        constants()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------------- what they reproduce
@pytest.mark.parametrize("name", ["h100-glm-4.7-tp4-splits", "h100-glm-5.1-reap-160-tp4-splits"])
def test_the_recordings_that_the_constants_are_from(name):
    """Device time of a step over all splits, contexts and batches: benchmarks/predict_against_measured.py."""
    recording = load_recording(name)
    off = []
    for knobs in recording.points:
        recipe = recording.header.recipe.replace(**knobs)
        workload = recording.header.workload
        found = predict(recipe, "h100", contexts=workload.contexts, batch_sizes=workload.batch_sizes)
        layer = found.setup.constants.layer_us["gqa" if found.setup.shape.attention == "gqa" else "mla"]
        for point in found.points:
            visits = [v.measurement.point(point.context, point.batch) for v in recording.visits_of(knobs)]
            measured = statistics.median(statistics.median(v.device_step_ms or []) for v in visits)
            floor = (
                2 * (layer.value + attention_floor_us(found.setup, point.batch, "value"))
                + found.setup.constants.expert_layer_us.value
            )
            device = point.terms["weights"].value + point.terms["kv"].value + floor / 1e3
            off.append(abs(device / measured - 1))
    assert statistics.median(off) < 0.05
    assert max(off) < 0.4


def test_the_seeds_own_figures_lie_in_the_range():
    """None of the constants was fitted to them: 4 RTX PRO 6000, GLM-5.1 REAP-160, sglang, 64 splits."""
    published = {256: 46.5, 4096: 41.8, 16_384: 38.6, 150_000: 22.4}
    found = predict(find_recipe("glm-5.1-reap-160-sglang"), "rtx-pro-6000", 4, contexts=tuple(published))
    for point in found.points:
        measured_ms = 1e3 / published[point.context]
        assert point.tpot.low <= measured_ms <= point.tpot.high
        assert point.tpot_ms == pytest.approx(measured_ms, rel=0.15)


def test_eight_splits_are_what_the_seed_says_they_cost():
    recipe = find_recipe("glm-5.1-reap-160-sglang").replace(kv_splits=8)
    assert predict(recipe, "rtx-pro-6000", 4).point(150_000).tokens_per_s == pytest.approx(5, abs=1.5)
