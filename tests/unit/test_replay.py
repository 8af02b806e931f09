"""A recording in place of an engine: the same samples, the same costs, and nothing that was not recorded."""

from __future__ import annotations

import time
from typing import Any

import pytest

from glmlab.engines import Engine
from glmlab.engines.replay import ReplayEngine
from glmlab.engines.visit_order import VisitOrder
from glmlab.errors import ApplyError, EngineError, InputError, KnobError, MeasureError
from glmlab.knobs import params_key
from glmlab.recipe import Recipe
from glmlab.recorded import load_recording
from glmlab.workload import Workload
from tests.doubles import scripted_start
from tests.recordings import (
    GRID,
    PREFILL_MS,
    WORKLOAD,
    MeasuringDouble,
    bowl,
    record,
    recording,
    with_failures_of,
    wobble,
)
from tests.studies import RECIPE

HERE = {"cpu_split_kv": True, "max_num_seqs": 16}  # where the recipe starts
SPLIT_OFF: dict[str, Any] = {"cpu_split_kv": False, "max_num_seqs": 8}


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    script = scripted_start(bowl, drift=wobble, device=True)
    return recording(tmp_path_factory.mktemp("recordings") / "grid.jsonl.gz", script)


def recipe(**changes: Any) -> Recipe:
    return Recipe.parse({**RECIPE, **changes})


# ------------------------------------------------------------------------------ the engine
def test_it_keeps_the_contract_of_an_engine_and_says_everywhere_that_it_replays(grid):
    with ReplayEngine(grid) as engine:
        assert isinstance(engine, Engine)
        assert engine.evidence == engine.measure(WORKLOAD).evidence == "replayed"
        assert "replayed: grid, recorded on" in repr(engine)
        assert "grid, recorded on" in engine.state()._repr_html_()
        assert engine.started.notes == [f"replayed: {grid.header.origin}"]
        assert engine.measure(WORKLOAD).notes[0].startswith("replayed: visit 2 of 5 to cpu_split_kv = true")
    with pytest.raises(EngineError, match="closed"):
        engine.measure(WORKLOAD)


def test_each_measurement_is_the_next_recorded_visit_with_its_samples(grid):
    expected = [v.measurement for v in grid.visits_of(SPLIT_OFF)]
    with ReplayEngine(grid) as engine:
        engine.apply(**SPLIT_OFF)
        given = [engine.measure(WORKLOAD) for _ in range(6)]
    for measurement, visit in zip(given, [*expected, expected[0]], strict=True):
        for point, recorded in zip(measurement.points, visit.points, strict=True):
            assert point.token_gap_ms == recorded.token_gap_ms
            assert point.wall_step_ms == recorded.wall_step_ms
            assert point.device_step_ms == recorded.device_step_ms
            assert point.tokens == recorded.tokens
            assert point.elapsed_ms == recorded.elapsed_ms
    assert len({m.point(64, 1).tpot_ms for m in given[:5]}) == 5
    assert ["no new sample" in " ".join(m.notes) for m in given] == [False] * 5 + [True]


def test_engines_that_share_an_order_go_on_where_the_last_one_stopped(grid):
    order = VisitOrder()
    seen = []
    for _ in range(5):
        with ReplayEngine(grid, order=order) as engine:
            seen.append(engine.measure(WORKLOAD).point(64, 1).tpot_ms)
    assert seen == [v.measurement.point(64, 1).tpot_ms for v in grid.visits_of(HERE)]


def test_a_seed_shuffles_all_points_alike(grid):
    def visits(seed: int, point: dict[str, Any]) -> list[int]:
        with ReplayEngine(grid, order=VisitOrder(seed)) as engine:
            engine.apply(**point)
            notes = [engine.measure(WORKLOAD).notes[0] for _ in range(5)]
        return [int(note.split("visit ")[1][0]) for note in notes]

    assert visits(0, HERE) == [1, 2, 3, 4, 5]
    assert visits(1, HERE) == visits(1, SPLIT_OFF) == visits(1, HERE) != visits(2, HERE)
    assert sorted(visits(1, HERE)) == [1, 2, 3, 4, 5]


# ------------------------------------------------------------------------------ what it costs
def test_the_first_measurement_after_a_start_pays_the_recorded_prefill_and_no_later_one_does(grid):
    prefill_ms = grid.visits[0].measurement.prefill_ms
    assert prefill_ms > 256 * PREFILL_MS
    first_point = dict(grid.visits[0].knobs)
    for _ in range(2):  # of a new engine, too
        with ReplayEngine(grid) as engine:
            engine.apply(**SPLIT_OFF)
            paid = [engine.measure(WORKLOAD).prefill_ms, engine.measure(WORKLOAD).prefill_ms]
            # The visit that was recorded cold comes warm here, since the prompts are in the cache by now.
            engine.apply(**first_point)
            paid.append(engine.measure(WORKLOAD).prefill_ms)
            assert paid == [prefill_ms, 0, 0]


def test_a_change_that_emptied_the_cache_pays_the_prefill_wherever_it_comes(tmp_path):
    path = tmp_path / "a.jsonl"
    record(path, visits=2, points=[{"cpu_attn_isa": "vec"}, {"cpu_attn_isa": "amx"}])
    found = load_recording(path)
    cold = found.visits[0].measurement
    lost = found.visits[-1].model_copy(update={"kv_kept": False, "measurement": cold})
    again = type(found)(found.header, [*found.visits[:-1], lost], path=path, fingerprint="changed")
    with ReplayEngine(again) as engine:
        here = engine.point["cpu_attn_isa"]
        reports, prefills = [], []
        for value in ("amx", "vec", "amx", "vec") if here == "vec" else ("vec", "amx", "vec", "amx"):
            reports.append(engine.apply(cpu_attn_isa=value))
            prefills.append(engine.measure(WORKLOAD).prefill_ms)
    assert [r.kv_kept for r in reports].count(False) == 1
    assert [p > 0 for p in prefills] == [True] + [not r.kv_kept for r in reports[1:]]


def test_costs_are_the_recorded_ones_and_nobody_waits_for_them(grid):
    begin = time.perf_counter()
    with ReplayEngine(grid) as engine:
        report = engine.apply(**SPLIT_OFF)
        measurement = engine.measure(WORKLOAD)
        assert engine.started.seconds == 30.0
        assert report.seconds == grid.visits_of(SPLIT_OFF)[0].apply_s
        assert report.changed == {"cpu_split_kv": (True, False), "max_num_seqs": (16, 8)}
        assert engine.apply(**SPLIT_OFF).seconds == 0
        wall_s = time.perf_counter() - begin
        charged = engine.started.seconds + report.seconds + measurement.duration_s
        assert engine.ahead_s + wall_s == pytest.approx(charged, abs=1.0)
    assert wall_s < 30, "nobody waits for the 30 s of the recorded start"


def test_going_back_to_where_it_was_started_costs_what_it_did_later(grid):
    first, second = grid.visits_of(HERE)[:2]
    assert first.order == 0
    assert first.apply_s < 0.01 < second.apply_s
    with ReplayEngine(grid) as engine:
        engine.apply(**SPLIT_OFF)
        assert engine.apply(**HERE).seconds == second.apply_s


def test_each_recorded_start_has_its_turn(grid):
    order = VisitOrder()
    starts = [ReplayEngine(grid, order=order).started.seconds for _ in range(3)]
    assert starts == [30.0, 40.0, 30.0]


def test_real_time_can_be_watched(tmp_path):
    found = recording(tmp_path / "quick.jsonl", start_s=(0.2,), visits=1)
    begin = time.perf_counter()
    with ReplayEngine(found, speed=2.0) as engine:
        engine.apply(**SPLIT_OFF)
        waited = time.perf_counter() - begin
        assert waited >= (0.2 + 0.2) / 2
        assert engine.ahead_s == pytest.approx(0.4 - waited, abs=0.15)
        assert engine.started.seconds == 0.2


@pytest.mark.parametrize("speed", [0, -1.0, float("nan")])
def test_a_speed_that_is_none_is_refused(grid, speed):
    with pytest.raises(InputError, match=r"speed = .*: expected a number above 0"):
        ReplayEngine(grid, speed=speed)


# ------------------------------------------------------------------------------ what it refuses
@pytest.mark.parametrize(
    ("knobs", "message"),
    [
        ({"max_num_seqs": 5}, "max_num_seqs = 5: not recorded; recorded were 4, 8, 16"),
        ({"max_num_batched_tokens": 512}, "recording grid did not move it, only cpu_split_kv, max_num_seqs"),
        ({"block_size": 64}, "block_size: needs a new engine"),
        ({"kv_splits": 8}, "kv_splits: cannot be changed in this engine, since it was not recorded"),
        ({"kv_split": 8}, "kv_split: no such knob; did you mean kv_splits"),
        ({"cpu_split_kv": 1}, "cpu_split_kv = 1: not recorded; recorded were True, False"),
    ],
)
def test_a_knob_or_value_that_was_not_recorded_is_refused_and_nothing_changes(grid, knobs, message):
    with ReplayEngine(grid) as engine:
        with pytest.raises(KnobError) as error:
            engine.apply(**{"cpu_split_kv": False, **knobs})
        assert message in str(error.value)
        assert engine.point == HERE


def test_a_combination_that_was_not_recorded_is_refused_with_its_neighbours(tmp_path):
    cross = [p for p in GRID if p["cpu_split_kv"] or p["max_num_seqs"] == 16]
    with ReplayEngine(recording(tmp_path / "cross.jsonl", points=cross, visits=1)) as engine:
        engine.apply(cpu_split_kv=False)
        with pytest.raises(KnobError) as error:
            engine.apply(max_num_seqs=4)
    assert str(error.value) == (
        "cpu_split_kv = false, max_num_seqs = 4: this combination was not recorded; recorded nearby:"
        " cpu_split_kv = true, max_num_seqs = 4; cpu_split_kv = false, max_num_seqs = 16"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"contexts": [64, 128]}, "workload.contexts: 128 is not in recording grid, which has 64, 256"),
        ({"batch_sizes": [4]}, "workload.batch_sizes: 4 is not in recording grid, which has 1, 2"),
        ({"new_tokens": 8}, "workload.new_tokens = 8: recording grid was made with 4"),
        ({"warmup_tokens": 2}, "workload.warmup_tokens = 2"),
        ({"seed": 1}, "workload.seed = 1"),
        ({"cold_prefill": True}, "workload.cold_prefill = True: recording grid was made with False"),
    ],
)
def test_a_workload_that_was_not_recorded_is_refused(grid, change, message):
    wanted = Workload.parse({**WORKLOAD.model_dump(), "weights": {}, **change})
    with ReplayEngine(grid) as engine, pytest.raises(InputError) as error:
        engine.measure(wanted)
    assert message in str(error.value)


def test_a_part_of_the_recorded_workload_is_cut_out(grid):
    part = Workload(contexts=(256,), batch_sizes=(2,), new_tokens=4)
    with ReplayEngine(grid) as engine:
        engine.measure(WORKLOAD)
        measurement = engine.measure(part)
    whole = grid.visits_of(HERE)[1].measurement
    assert [(p.context, p.batch) for p in measurement.points] == [(256, 2)]
    assert measurement.points[0].token_gap_ms == whole.point(256, 2).token_gap_ms
    point = whole.point(256, 2)
    passes_s = (point.warmup_ms + point.elapsed_ms) / 1e3
    assert measurement.duration_s == pytest.approx(passes_s + MeasuringDouble.BETWEEN_S / 4, abs=1e-3)


def test_a_prefill_that_is_known_in_part_only_is_said_to_be(grid):
    part = Workload(contexts=(256,), batch_sizes=(1, 2), new_tokens=4)
    with ReplayEngine(grid) as engine:
        cold, warm = engine.measure(part), engine.measure(part)
    assert any("the prefill was recorded with 128 prompt tokens in the cache" in note for note in cold.notes)
    assert not any("prefill" in note for note in warm.notes)
    with ReplayEngine(grid) as engine:
        assert not any("prefill" in note for note in engine.measure(WORKLOAD).notes)


def test_a_recorded_failure_fails_again_with_its_reason_and_its_cost(tmp_path):
    script = scripted_start(
        bowl, apply_fails=lambda knobs: "no room for graphs" if knobs.get("max_num_seqs") == 8 else None
    )
    path = tmp_path / "failing.jsonl"
    record(path, script, visits=1)
    with_failures_of(path, 7.0)
    found = load_recording(path)
    with ReplayEngine(found) as engine:
        before = engine.ahead_s
        with pytest.raises(ApplyError) as error:
            engine.apply(**SPLIT_OFF)
        assert str(error.value).endswith("failed when it was recorded: no room for graphs")
        assert engine.point == HERE
        assert engine.ahead_s == pytest.approx(before + 7.0, abs=0.05)
    with ReplayEngine(found, recipe(max_num_seqs=8)) as engine:
        before = engine.ahead_s
        with pytest.raises(MeasureError, match="no room for graphs"):
            engine.measure(WORKLOAD)
        assert engine.ahead_s == pytest.approx(before + 7.0, abs=0.05)


def test_what_can_be_moved_is_what_was_recorded(grid):
    with ReplayEngine(grid, recipe(max_num_seqs=8)) as engine:
        knobs = engine.knobs()
        assert knobs["max_num_seqs"].live
        assert (knobs["max_num_seqs"].value, knobs["max_num_seqs"].values) == (8, (4, 8, 16))
        assert not knobs["cpu_attn_isa"].live
        engine.apply(max_num_seqs=4)
        state = engine.state()
        assert state.knobs["max_num_seqs"] == state.workers[0].values["max_num_seqs"] == 4
        assert engine.knobs()["max_num_seqs"].value == 4


def test_every_point_of_the_recording_can_be_reached(grid):
    with ReplayEngine(grid) as engine:
        reached = []
        for point in grid.points:
            engine.apply(**point)
            reached.append(params_key(engine.point))
            assert engine.measure(WORKLOAD).evidence == "replayed"
    assert len(set(reached)) == len(GRID)
