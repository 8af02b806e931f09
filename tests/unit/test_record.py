"""Recording a grid: what is visited, in which order, what is kept when something fails."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import pytest

from glmlab.engines.base import KnobStatus
from glmlab.engines.replay import ReplayEngine
from glmlab.errors import (
    EngineDiedError,
    GraphsLostError,
    InputError,
    KnobError,
    MeasureError,
    RecordingError,
)
from glmlab.knobs import params_key
from glmlab.recipe import Recipe
from glmlab.record import record_grid
from glmlab.recorded import load_recording, read_recording, salvage_recording
from tests.doubles import ScriptedEngine, scripted_start
from tests.recordings import GRID, WORKLOAD, MeasuringDouble, bowl, record, recording, wobble
from tests.studies import RECIPE, ROOT


@pytest.fixture
def path(tmp_path):
    return tmp_path / "grid.jsonl"


def test_every_visit_comes_back_as_it_was_measured(path):
    script = scripted_start(bowl, drift=wobble, device=True)
    outcome = record(path, script, visits=3, decimals=None)
    assert (outcome.visits, outcome.failed, outcome.ended) == (18, 0, "")
    found = load_recording(path)
    assert len(found.points) == 6
    for n, visit in enumerate(found.visits, start=1):
        in_force = {name: script.measured[n - 1][name] for name in visit.knobs}
        assert visit.knobs == in_force
        expected = bowl(script.measured[n - 1]) * wobble(n)
        assert visit.measurement.point(256, 2).token_gap_ms == [expected] * 6
        assert visit.measurement.point(256, 2).device_step_ms == [expected / 2] * 4
        assert visit.measurement.point(64, 1).tokens == [[0, 1, 2, 3]]
        assert visit.order == n - 1
    for point in GRID:
        assert [v.visit for v in found.visits_of(point)] == [0, 1, 2]


def test_the_header_says_what_was_recorded_and_on_what(path):
    header = recording(path, title="a title", notes=["no MTP"], commit="abc1234", visits=1).header
    assert (header.name, header.title, header.commit) == ("grid", "a title", "abc1234")
    assert header.knobs == {"cpu_split_kv": (True, False), "max_num_seqs": (4, 8, 16)}
    assert header.knob_status["cpu_split_kv"].live
    assert header.state.versions == {"double": "tests"}
    assert header.start_s == (30.0, 40.0)
    assert header.notes == ("no MTP",)
    assert header.workload == WORKLOAD
    # What the recipe left to vLLM stays left: a default that is written down would be a demand.
    assert header.recipe.model_fields_set == set(RECIPE)


def test_visits_are_interleaved_from_the_engines_own_point_on_and_each_enters_from_another_one(path):
    script = scripted_start(bowl)
    record(path, script, visits=4)
    keys = [params_key({n: k[n] for n in GRID[0]}) for k in script.measured]
    rounds = [keys[i : i + 6] for i in range(0, 24, 6)]
    assert all(len(set(round_)) == 6 for round_ in rounds)
    assert len({tuple(round_) for round_ in rounds}) > 1
    assert keys[0] == params_key({"cpu_split_kv": True, "max_num_seqs": 16})
    assert all(a != b for a, b in itertools.pairwise(keys))
    assert all(visit.apply_s > 0.2 for visit in load_recording(path).visits[1:])


def test_the_order_comes_from_the_seed(tmp_path):
    def order(name: str, seed: int) -> list[Any]:
        return [v.knobs for v in recording(tmp_path / name, visits=2, seed=seed).visits]

    assert order("a.jsonl", 1) == order("b.jsonl", 1) != order("c.jsonl", 2)


def test_a_visit_is_on_the_disk_before_the_next_is_measured(path):
    seen = []

    def latency(knobs):
        seen.append(len(path.read_text().splitlines()))
        return 10.0

    record(path, scripted_start(latency), visits=1)
    assert seen == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_a_recording_that_is_killed_keeps_every_line_it_wrote(tmp_path, suffix):
    path = tmp_path / f"grid{suffix}"
    code = (
        "import os, sys, pathlib\n"
        "from tests.doubles import scripted_start\n"
        "from tests.recordings import record\n"
        "script = scripted_start(lambda knobs: os._exit(9) if len(script.measured) == 5 else 10.0)\n"
        "record(pathlib.Path(sys.argv[1]), script)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT, check=False)
    assert killed.returncode == 9
    saved = tmp_path / "saved.jsonl.gz"
    assert salvage_recording(path, saved) == 1 + 4
    assert len(read_recording(saved).visits) == 4
    if suffix == ".jsonl.gz":
        with pytest.raises(RecordingError, match=r"grid\.jsonl\.gz:5: is cut off"):
            read_recording(path)


def test_a_point_that_fails_is_written_as_failed_and_not_tried_again(path):
    def refuse(knobs):
        return "amx is missing here" if knobs.get("max_num_seqs") == 8 else None

    told = []
    script = scripted_start(bowl, apply_fails=refuse, measure_fails={1: MeasureError("stuck")})
    outcome = record(path, script, visits=2, progress=lambda *what: told.append(what))
    assert outcome.failed == 3
    found: Any = load_recording(path)
    assert {found.failure_of(point).error for point in found.points if found.failure_of(point)} == {
        "amx is missing here",
        "stuck",
    }
    assert len(found.visits) == 3 * 2
    assert [done for done, _, _ in told][-1] == told[-1][1] == 6
    assert sum("failed: amx is missing here" in text for _, _, text in told) == 2


@pytest.mark.parametrize("error", [EngineDiedError("out of memory"), GraphsLostError("no graphs")])
def test_an_engine_that_dies_ends_the_recording_and_keeps_what_there_is(path, error):
    outcome = record(path, scripted_start(bowl, measure_fails={4: error}))
    assert (outcome.visits, outcome.failed) == (3, 1)
    assert str(error) in outcome.ended
    assert len(load_recording(path).visits) == 3


def test_a_point_that_worked_before_is_not_blamed_for_the_engines_death(path):
    outcome = record(path, scripted_start(bowl, measure_fails={9: EngineDiedError("killed")}))
    assert (outcome.visits, outcome.failed) == (8, 0)
    assert load_recording(path).fewest_visits == 1


def test_a_recording_that_is_stopped_is_whole_up_to_there(path):
    script = scripted_start(bowl)
    outcome = record(path, script, stop=lambda: len(script.measured) >= 8)
    assert (outcome.visits, outcome.ended) == (8, "stopped")
    assert len(load_recording(path).visits) == 8


def test_values_of_the_engine_itself_that_were_not_visited_are_noted(path):
    points = [{"cpu_split_kv": False, "max_num_seqs": seqs} for seqs in (4, 8)]
    assert (
        "cpu_split_kv = true, max_num_seqs = 16) were not visited"
        in recording(path, points=points).header.notes[0]
    )


def test_decimals_make_it_small_but_leave_the_times(path):
    visit = recording(path, visits=1, decimals=2).visits[0]
    gap = visit.measurement.points[0].token_gap_ms[0]
    assert gap == round(gap, 2) > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": []}, "points: is empty"),
        ({"visits": 0}, "visits = 0: expected at least 1"),
        ({"points": [{"block_size": 32}]}, "points[0].block_size: needs a new engine"),
        ({"points": [{"cpu_split": True}]}, "cpu_split: no such knob; did you mean cpu_split_kv"),
        (
            {"points": [{"cpu_split_kv": True}, {"max_num_seqs": 4}]},
            "points[1].cpu_split_kv: all points must name the same knobs",
        ),
        (
            {"points": [{"cpu_split_kv": True}, {"cpu_split_kv": True}]},
            "points[1]: cpu_split_kv = true is listed twice",
        ),
        ({"name": "a name"}, "header: name = 'a name'"),
        ({"start_s": (0.0,)}, "header: start_s.0 = 0.0"),
    ],
)
def test_a_recording_that_cannot_be_made_is_refused_before_anything_is_measured(path, changes, message):
    script = scripted_start(bowl)
    with pytest.raises(InputError) as error:
        record(path, script, **changes)
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert script.measured == []
    assert not path.exists()


def test_a_text_is_recorded_as_a_recipe_has_it(path):
    tiles = [
        {"moe_tiles": "16x64x128 g1 w4 s3"},
        {"moe_tiles": " 64: 64x64x64 g1 w4 s3;1: 16x64x128 g1 w4 s3"},
    ]
    status = KnobStatus(live=True, form="a tile")
    found = recording(path, scripted_start(bowl, live={"moe_tiles": status}), points=tiles, visits=1)
    assert found.header.knobs["moe_tiles"] == tuple(
        Recipe.parse({"name": "x", "model": "x", **tile}).moe_tiles for tile in tiles
    )
    with ReplayEngine(found) as engine:
        engine.apply(moe_tiles=found.header.knobs["moe_tiles"][1])
        with pytest.raises(KnobError, match="not recorded; recorded were 16x64x128 g1 w4 s3, 1: 16x64x128"):
            engine.apply(moe_tiles="32x64x128 g1 w4 s3")


def test_only_what_was_measured_can_be_recorded(path):
    with (
        ScriptedEngine(Recipe.parse(RECIPE)) as engine,
        pytest.raises(RecordingError, match="simulated numbers; only what is measured"),
    ):
        record_grid(engine, WORKLOAD, GRID, 1, path, name="x", title="x", start_s=(1.0,))


def test_the_double_of_these_tests_pays_prefill_once():
    with MeasuringDouble(Recipe.parse(RECIPE), scripted_start(bowl)) as engine:
        assert engine.measure(WORKLOAD).prefill_ms > 500
        assert engine.measure(WORKLOAD).prefill_ms == 0


def test_a_knob_error_of_a_single_point_does_not_end_the_recording(path):
    points = [{"cpu_attn_isa": "vec"}, {"cpu_attn_isa": "vec16"}]
    outcome = record(path, points=points, visits=2)
    assert (outcome.visits, outcome.failed) == (2, 1)
    failure: Any = load_recording(path).failure_of({"cpu_attn_isa": "vec16"})
    assert failure.error == "cpu_attn_isa = 'vec16': this engine allows vec, amx"
    assert isinstance(failure.seconds, float)
