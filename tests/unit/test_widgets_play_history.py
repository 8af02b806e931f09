"""Rounds in words and as columns: each number with unit, evidence and spread."""

from __future__ import annotations

import pytest

from glmlab.engines.base import ApplyReport
from glmlab.measurement import Measurement
from glmlab.recipe import Recipe
from glmlab.widgets.play_history import history_columns, label, metric_for, result_line, settings_text
from glmlab.widgets.player import Round
from glmlab.workload import Workload
from tests.doubles import ScriptedEngine, scripted_start

RECIPE = Recipe(name="unit", model="tiny/glm4-moe")
WORKLOAD = Workload(contexts=(64, 256), batch_sizes=(1, 4), new_tokens=4)


def measured(ms: float, *, device: bool = False, workload: Workload = WORKLOAD) -> Measurement:
    return ScriptedEngine(RECIPE, scripted_start(lambda knobs: ms, device=device)).measure(workload)


def made(number: int, ms: float, splits: int, report: ApplyReport | None = None, **changes) -> Round:
    fields = {
        "number": number,
        "recipe": RECIPE,
        "values": {"kv_splits": splits, "cpu_split_kv": True},
        "report": report,
        "workload": WORKLOAD,
        "measurement": measured(ms),
        "same_tokens": 1.0 if number > 1 else None,
    }
    return Round(**{**fields, **changes})


CHANGE = ApplyReport(changed={"kv_splits": (16, 64)}, seconds=0.14, kv_kept=True, graphs_captured=5)
FIRST = made(1, 10.0, 16)
SECOND = made(2, 8.0, 64, CHANGE)


def test_a_round_in_words():
    assert result_line(SECOND, FIRST) == (
        "kv_splits 16 → 64: 10 ms before, 8 ms (× 0.8) time per output token, median, at 256 tokens of"
        " context and batch 1; p10 to p90 8 ms to 8 ms of 3 samples (simulated); changed in 140 ms, KV kept,"
        " 5 graphs captured anew; 100.0% of the tokens as in the round before."
    )


def test_the_first_round_has_nothing_before_it():
    said = result_line(FIRST, None)
    assert said.startswith("#1, as started: unit: 10 ms time per output token")
    assert "before" not in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"kv_kept": False}, "KV dropped"),
        ({"seconds": 3.25}, "changed in 3.2 s"),
        ({"graphs_captured": 0}, "KV kept;"),
    ],
)
def test_what_a_change_cost(change, said):
    assert said in result_line(made(2, 8.0, 64, CHANGE.model_copy(update=change)), FIRST)


def test_a_point_that_was_not_measured_before_is_not_compared():
    elsewhere = measured(8.0, workload=Workload(contexts=(512,)))
    other = made(2, 8.0, 64, CHANGE, measurement=elsewhere, same_tokens=None)
    said = result_line(other, FIRST)
    assert "before" not in said
    assert "at 512 tokens" in said


def test_device_time_counts_where_every_point_has_it():
    assert metric_for(measured(8.0)) == "tpot_ms"
    assert metric_for(measured(8.0, device=True)) == "device_ms"
    assert metric_for(measured(8.0, device=True), measured(8.0)) == "tpot_ms"


def test_settings_and_labels_name_what_differs():
    assert settings_text(SECOND, FIRST) == "kv_splits 16 → 64"
    assert settings_text(FIRST, None) == "as started: unit"
    assert settings_text(made(3, 8.0, 64), SECOND) == "nothing changed"
    assert (label(FIRST, SECOND), label(SECOND, FIRST)) == ("#1 kv_splits 16", "#2 kv_splits 64")
    assert label(made(3, 8.0, 64), SECOND) == "#3 same settings"
    other = made(3, 8.0, 64, recipe=RECIPE.replace(name="other"))
    assert label(other, SECOND) == "#3 other"
    assert settings_text(other, SECOND) == "as started: other"


def test_the_history_has_a_row_a_round_the_newest_first_with_units():
    columns = history_columns([FIRST, SECOND])
    assert {len(values) for values in columns.values()} == {2}
    assert columns["#"] == [2, 1]
    assert columns["settings"] == ["kv_splits 16 → 64", "as started: unit"]
    assert columns["tpot_ms, median"] == [8.0, 10.0]
    assert columns["p10 to p90"] == ["8 to 8", "10 to 10"]
    assert columns["context (tokens)"] == [256, 256]
    assert columns["batch"] == [1, 1]
    assert columns["same tokens (%)"] == [100.0, None]
    assert columns["change (s)"] == [0.14, None]
    assert columns["KV"] == ["kept", ""]
    assert columns["evidence"] == ["simulated", "simulated"]
