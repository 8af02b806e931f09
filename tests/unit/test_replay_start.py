"""Which recording a replayed engine is made of: the one of its recipe's plan, and no other."""

from __future__ import annotations

from typing import Any

import pytest

from glmlab.engines.base import KnobStatus
from glmlab.engines.replay import ReplayEngine
from glmlab.engines.replay_start import Replay
from glmlab.errors import RecordingError
from glmlab.recipe import Recipe
from glmlab.record import record_grid
from glmlab.recorded import load_recording
from tests.doubles import scripted_start
from tests.recordings import WORKLOAD, MeasuringDouble, bowl, record, recording
from tests.studies import RECIPE


@pytest.fixture(scope="module")
def grid(tmp_path_factory):
    return recording(tmp_path_factory.mktemp("recordings") / "grid.jsonl.gz", visits=1)


def recipe(**changes: Any) -> Recipe:
    return Recipe.parse({**RECIPE, **changes})


# ------------------------------------------------------------------------------ the plan
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"block_size": 64}, "block_size = 32, not 64"),
        ({"max_model_len": 2048}, "max_model_len = 4096, not 2048"),
        ({"weights": "random"}, "weights = auto, not random"),
        ({"cpu_attn_isa": "amx"}, "cpu_attn_isa = vec, not amx"),
        ({"enforce_eager": True}, "enforce_eager = false, not true"),
    ],
)
def test_a_recipe_of_another_plan_is_refused_with_the_difference(grid, changes, message):
    with pytest.raises(RecordingError, match=message):
        ReplayEngine(grid, recipe(**changes))
    with pytest.raises(RecordingError, match=f"no recording is of this plan: grid has {message}"):
        Replay([grid])(recipe(**changes), {})


@pytest.mark.parametrize(
    "changes", [{"name": "other"}, {"max_num_seqs": 4}, {"cpu_attn_isa": "vec"}, {"cpu_threads": 1}, {}]
)
def test_what_the_recorded_engine_really_ran_is_of_its_plan(grid, changes):
    # cpu_attn_isa and cpu_threads: left open in the recorded recipe, chosen by its engine.
    with Replay([grid])(recipe(**changes), {"max_num_seqs": 16}) as engine:
        assert engine.recording is grid


def test_a_value_left_to_vllm_is_not_that_of_a_recording_that_demanded_it(grid):
    open_recipe = {k: v for k, v in RECIPE.items() if k != "block_size"}
    with pytest.raises(RecordingError, match="block_size = 32, not None"):
        ReplayEngine(grid, Recipe.parse(open_recipe))


@pytest.fixture
def facts(tmp_path, monkeypatch):
    """A folder of recordings laid over the packaged ones, which are out of sight."""
    folder = tmp_path / "facts" / "recorded"
    folder.mkdir(parents=True)
    monkeypatch.setattr("glmlab.data_folders.PACKAGED_DATA", tmp_path / "nothing")
    monkeypatch.setenv("GLMLAB_DATA", str(folder.parent))
    return folder


def test_recordings_are_found_by_the_plan_of_the_recipe(facts):
    for size in (32, 64, 128):
        record(facts / f"b{size}.jsonl", recipe={**RECIPE, "block_size": size}, visits=1)
    assert [r.name for r in Replay.find(recipe()).recordings] == ["b32"]
    family = Replay.find(recipe(), free=("block_size",))
    assert sorted(r.name for r in family.recordings) == ["b128", "b32", "b64"]
    assert family.recording_for(recipe(block_size=64)).name == "b64"
    with pytest.raises(RecordingError, match="b32 has block_size = 32, not 256"):
        family.recording_for(recipe(block_size=256))
    with pytest.raises(RecordingError, match="no recording is of this plan"):
        Replay.find(recipe(block_size=256), free=())
    with pytest.raises(
        RecordingError, match="recording b64: is of another plan: it has block_size = 64, not 32"
    ):
        Replay.find(recipe(), named=["b64"])


def test_two_recordings_of_one_plan_must_be_told_apart(facts):
    record(facts / "one.jsonl", visits=1)
    record(facts / "two.jsonl", visits=1, seed=1)
    with pytest.raises(RecordingError, match="recordings one and two are both of this plan; say which"):
        Replay.find(recipe())
    assert Replay.find(recipe(), named=["two"]).recordings[0].name == "two"


def test_of_two_recordings_of_one_plan_that_is_taken_which_moved_what_the_study_moves(facts):
    record(facts / "split.jsonl", points=[{"cpu_split_kv": True}, {"cpu_split_kv": False}], visits=1)
    record(facts / "both.jsonl", visits=1)

    def found(*moved: str) -> str:
        [one] = Replay.find(recipe(), moved=moved).recordings
        return one.name

    assert found("cpu_split_kv") == "split"
    assert found("max_num_seqs") == found("max_num_seqs", "cpu_split_kv") == "both"


def test_without_any_recording_it_says_how_to_name_one(facts):
    with pytest.raises(RecordingError, match="none is installed; name a file with recording: PATH"):
        Replay.find(recipe())


# ------------------------------------------------------------------------------ of an engine that was in use
@pytest.fixture
def later(tmp_path):
    """Recorded after others: the kernel variant was changed before, and the prompts were known."""
    path = tmp_path / "later.jsonl"
    own = KnobStatus(live=True, values=("vec", "amx"), default="vec")
    script = scripted_start(bowl, live={"cpu_attn_isa": own})
    recipe_ = Recipe.parse({**RECIPE, "max_num_seqs": 8})

    def record_with(points: Any, **before: Any) -> Any:
        with MeasuringDouble(recipe_, script) as engine:
            engine.apply(**before)
            engine.measure(WORKLOAD)
            record_grid(engine, WORKLOAD, points, 2, path, name="later", title="later", start_s=(1.0,))
        return load_recording(path)

    return record_with


def test_a_replayed_engine_starts_where_a_new_one_does_not_where_the_recording_began(later):
    found = later([{"cpu_attn_isa": "vec"}, {"cpu_attn_isa": "amx"}], cpu_attn_isa="amx")
    assert found.header.state.knobs["cpu_attn_isa"] == "amx"
    with ReplayEngine(found) as engine:
        assert engine.point == {"cpu_attn_isa": "vec"}


def test_a_knob_that_had_been_moved_before_is_part_of_the_plan(later):
    found = later([{"max_num_seqs": 4}, {"max_num_seqs": 8}], cpu_attn_isa="amx")
    with pytest.raises(RecordingError, match="recording later has cpu_attn_isa = amx, not vec"):
        ReplayEngine(found, found.header.recipe)
    assert ReplayEngine(found, recipe(max_num_seqs=8, cpu_attn_isa="amx")).point == {"max_num_seqs": 8}
    by_name = ReplayEngine(found)
    assert (by_name.recipe.cpu_attn_isa, by_name.point) == ("amx", {"max_num_seqs": 8})


def test_a_prefill_that_was_not_recorded_is_said_to_be_missing(later):
    found = later([{"max_num_seqs": 4}, {"max_num_seqs": 8}])
    with ReplayEngine(found) as engine:
        cold, warm = engine.measure(WORKLOAD), engine.measure(WORKLOAD)
    assert any("the prefill was not recorded" in note for note in cold.notes)
    assert not any("prefill" in note for note in warm.notes)
