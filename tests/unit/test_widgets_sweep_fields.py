"""Sweep: each refusal beside its field, and what can be moved at all."""

from __future__ import annotations

import pytest

from glmlab import find_recipe
from glmlab.engines.base import KnobStatus
from glmlab.errors import EngineStartError
from glmlab.knob_table import KNOBS
from glmlab.study_spec import StudySpec
from glmlab.widgets.knob_entry import KnobEntry, suggested
from glmlab.widgets.known_reach import recorded_reach
from glmlab.workload import Workload
from tests.sweeps import REPLAY, TINY, choose, put
from tests.watched import until, words


# ------------------------------------------------------------------------------ refusals
@pytest.mark.parametrize(
    ("field", "value", "said"),
    [
        ("study", "two words", "study = 'two words': expected a name of up to 100 letters"),
        ("contexts", "1k", "contexts = '1k': expected whole numbers"),
        ("contexts", "", "workload: contexts: is empty"),
        ("contexts", "64, 64", "workload: contexts: 64 is listed twice"),
        ("batch_sizes", "0", "workload.batch_sizes.0 = 0: Input should be greater than or equal to 1"),
        ("new_tokens", 1, "workload.new_tokens = 1: Input should be greater than or equal to 2"),
        ("most_tokens", "lots", "most_tokens = 'lots': expected a whole number, or nothing for no limit"),
        ("most_tokens", "10", "workload: contexts: 256 has no point within most_tokens = 10"),
        ("constraints", "kv >= 1", "constraints.kv: unknown; known:"),
        ("constraints", "kv_tokens about 5", "constraints = 'kv_tokens about 5': expected a line such as"),
        ("constraints", "kv_tokens > 1\nkv_tokens > 2", "constraints.kv_tokens: is given twice"),
        ("trials", "0", "trials = '0': expected a whole number from 1 on"),
        ("seconds", "soon", "time = 'soon': expected seconds, or a time such as"),
        ("seconds", "nan", "time = 'nan': expected seconds"),
        ("rounds", 2, "confirm.rounds = 2: Input should be greater than or equal to 3"),
        ("seed", -1, "seed = -1: Input should be greater than or equal to 0"),
        ("storage", "memory", "storage = 'memory': is no URL"),
        (
            "storage",
            "sqlite:////no/such/folder/x.db",
            "folder /no/such/folder does not exist; make it first",
        ),
    ],
)
def test_a_field_is_refused_in_one_line_beside_it(make_sweep, field, value, said):
    sweep = make_sweep()
    choose(sweep, max_num_seqs="2, 4")
    put(sweep, **{field: value})
    shown = sweep.editor.fields[field]
    assert said in shown.refusal
    assert said in words(shown.children[1])
    assert "Refused:" in words(shown.children[1])
    assert "\n" not in shown.refusal
    others = [name for name, each in sweep.editor.fields.items() if each.refusal and name != field]
    assert others == []
    assert sweep.spec is None


def test_a_limit_of_tokens_is_judged_beside_the_points_and_kept_in_the_study_file(make_sweep):
    sweep = make_sweep()
    choose(sweep, max_num_seqs="2, 4")
    put(sweep, contexts="64, 256", batch_sizes="1, 4", most_tokens="1,000")
    assert sweep.spec.workload.points == ((64, 1), (64, 4), (256, 1))
    assert StudySpec.parse_text(sweep.editor.judged.text).workload == sweep.spec.workload
    sweep.editor.load(sweep.spec)
    assert sweep.editor.fields["most_tokens"].value == "1000"
    put(sweep, most_tokens="")
    assert sweep.spec.workload.most_tokens is None
    brief = {"contexts": [64], "new_tokens": 2, "warmup_tokens": 2, "most_tokens": 66}
    exact = sweep.spec.model_copy(update={"workload": Workload.parse(brief)})
    sweep.editor.load(exact)
    assert sweep.spec.workload == exact.workload


def test_an_empty_budget_is_said_at_both_fields(make_sweep):
    sweep = make_sweep()
    put(sweep, trials="")
    for name in ("trials", "seconds"):
        assert sweep.editor.fields[name].refusal == "budget: give trials, a time or both"
    put(sweep, seconds="90s")
    assert not sweep.editor.fields["trials"].refusal


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("max_num_seqs", "2, x", "space.max_num_seqs = 'x': expected whole numbers"),
        ("max_num_seqs", "0, 2", "space.max_num_seqs = 0: Input should be greater than or equal to 1"),
        ("max_num_seqs", "", "space.max_num_seqs: the list of values is empty"),
        ("max_num_seqs", "4, 4", "space.max_num_seqs: 4 is listed twice"),
        ("cpu_split_kv", "yes", "space.cpu_split_kv = 'yes': expected true, false or both"),
        ("kv_cache_dtype", "fp9", "space.kv_cache_dtype = 'fp9'"),
        ("moe_tiles", "16x16", "space.moe_tiles"),
    ],
)
def test_a_knob_is_refused_beside_it_and_the_others_are_not(make_sweep, name, text, said):
    sweep = make_sweep()
    choose(sweep, block_size="32, 64", **{name: text})
    row = sweep.editor.space.rows[name]
    assert said in row.refusal
    assert said in words(row.children[-1])
    assert sweep.editor.space.rows["block_size"].refusal == ""
    row.tick.value = False
    assert row.refusal == ""
    assert sweep.spec is not None


def test_a_range_is_given_by_its_ends(make_sweep):
    sweep = make_sweep()
    row = sweep.editor.space.rows["max_num_batched_tokens"]
    row.tick.value = True
    row.set(KnobEntry(how="range, logarithmic", low=256, high=2048))
    sweep.editor._changed()
    assert sweep.spec.space == {"max_num_batched_tokens": {"low": 256, "high": 2048, "log": True}}
    row.set(KnobEntry(how="range", low=512, high=1024, step=512))
    sweep.editor._changed()
    assert "the recipe's own value 2048 lies outside 512..1024" in row.refusal


def test_a_limit_whose_default_is_left_to_vllm_is_refused_before_an_engine_is_paid_for(make_sweep):
    bare = find_recipe({"name": "bare", "model": "tiny/glm4-moe"})
    sweep = make_sweep(bare)
    choose(sweep, max_num_batched_tokens="256, 512")
    assert "the recipe leaves it to vLLM" in sweep.editor.space.rows["max_num_batched_tokens"].refusal


def test_before_anybody_chose_a_knob_nothing_is_called_wrong(make_sweep):
    sweep = make_sweep()
    assert "Tick the knobs" in words(sweep.editor.space._refusal)
    assert "tick at least one knob" in words(sweep.grid)
    sweep.button.click()
    assert sweep.notice.text == "not started: space: no knob is chosen; tick at least one and give its values"


# ------------------------------------------------------------------------------ what can be changed
def test_live_knobs_come_first_and_every_knob_of_the_table_is_there(make_sweep):
    rows = list(make_sweep().editor.space.rows.values())
    reaches = [row.knob.reach for row in rows]
    assert [row.knob.name for row in rows] == list(KNOBS)
    assert reaches == sorted(reaches)


def test_what_an_engine_cannot_change_is_locked_with_its_reason(make_sweep):
    sweep = make_sweep()
    why = "no TRITON backend & no <GPU>"
    sweep.reach = {
        "kv_splits": KnobStatus(live=False, why=why),
        "max_num_seqs": KnobStatus(live=True, low=1, high=8),
    }
    row = sweep.editor.space.rows["kv_splits"]
    assert row.tick.disabled
    assert row.tick.tooltip.endswith(f"locked: {why}")
    assert f"locked: {why}" in words(row.children[-1])
    assert "<GPU>" not in row.children[-1].value
    assert not sweep.editor.space.rows["max_num_seqs"].tick.disabled
    sweep.reach = {}
    assert not row.tick.disabled


def test_a_knob_that_is_moved_and_then_locked_is_refused_but_can_be_let_go(make_sweep):
    sweep = make_sweep()
    choose(sweep, cpu_split_kv="true, false", max_num_seqs="2, 4")
    sweep.reach = {"cpu_split_kv": KnobStatus(live=False, why="this is a GPU")}
    row = sweep.editor.space.rows["cpu_split_kv"]
    assert "this engine cannot change it: this is a GPU" in row.refusal
    assert not row.tick.disabled
    row.tick.value = False
    assert row.tick.disabled
    assert sweep.spec is not None


def test_values_that_an_engine_does_not_allow_are_refused(make_sweep):
    sweep = make_sweep()
    sweep.reach = {"cpu_attn_isa": KnobStatus(live=True, values=("vec", "amx"))}
    row = sweep.editor.space.rows["cpu_attn_isa"]
    row.tick.value = True
    assert sweep.spec.space == {"cpu_attn_isa": ["vec", "amx"]}
    row.move("vec, neon")
    assert row.refusal == "space.cpu_attn_isa = 'neon': this engine allows vec, amx"


def test_a_replay_can_move_what_its_recording_moved(make_sweep):
    sweep = make_sweep(spec=REPLAY)
    rows = sweep.editor.space.rows
    assert not rows["kv_splits"].tick.disabled
    assert rows["attn_decode_tile"].locked == "was not moved in h100-glm-4.7-tp4-splits"
    rows["kv_splits"].move("1, 3")
    assert "this engine allows" in rows["kv_splits"].refusal
    assert sweep.editor.fields["home"].control.disabled


def test_a_recipe_without_a_recording_cannot_be_replayed(make_sweep):
    sweep = make_sweep()
    put(sweep, engine="replay")
    assert "no recording is of this plan" in sweep.editor.fields["recording"].refusal
    put(sweep, recording="nothing-of-the-kind")
    assert "nothing-of-the-kind" in sweep.editor.fields["recording"].refusal
    put(sweep, engine="vllm")  # its field is out of reach then, so it is not read
    assert not sweep.editor.fields["recording"].refusal
    assert "recording" not in sweep.editor.refusals


def test_what_a_recording_moved_is_known_without_an_engine():
    reach = recorded_reach(StudySpec.load(REPLAY).base_recipe, ["h100-glm-4.7-tp4-splits"])
    assert [name for name, status in reach.items() if status.live] == ["kv_splits"]
    assert 256 in (reach["kv_splits"].values or ())


@pytest.mark.parametrize(
    ("name", "status", "text"),
    [
        ("cpu_split_kv", None, "true, false"),
        ("max_num_seqs", None, "2, 4, 8"),
        ("block_size", None, "16, 32, 64"),
        ("cudagraph_mode", None, "NONE, PIECEWISE, FULL, FULL_DECODE_ONLY, FULL_AND_PIECEWISE"),
        ("cpu_attn_isa", KnobStatus(live=True, values=("vec", "amx")), "vec, amx"),
        ("kv_splits", None, ""),
        ("attn_decode_tile", KnobStatus(live=True, low=16, high=64, value=32), "16, 32, 64"),
    ],
)
def test_values_to_begin_with_are_known_ones_or_none(name, status, text):
    assert suggested(KNOBS[name], TINY, status) == text


def test_the_machines_vllm_is_asked_in_the_background(make_sweep, monkeypatch):
    monkeypatch.setattr(
        "glmlab.widgets.sweep.probed_reach", lambda: {"kv_splits": KnobStatus(live=False, why="no GPU here")}
    )
    sweep = make_sweep()
    sweep.probe.click()
    until(lambda: sweep.editor.space.rows["kv_splits"].locked == "no GPU here")
    until(lambda: "locked, each with its reason" in sweep.notice.text)
    assert not sweep.probe.disabled


def test_a_machine_without_vllm_is_said_so(make_sweep, monkeypatch):
    def fails():
        raise EngineStartError("vLLM cannot be imported: no module named vllm")

    monkeypatch.setattr("glmlab.widgets.sweep.probed_reach", fails)
    sweep = make_sweep()
    sweep.probe.click()
    until(lambda: sweep.notice.text)
    assert sweep.notice.text == "vLLM cannot be imported: no module named vllm"
    assert not sweep.probe.disabled


def test_an_answer_that_cannot_be_taken_is_not_called_good(make_sweep, monkeypatch):
    monkeypatch.setattr("glmlab.widgets.sweep.probed_reach", lambda: 5)
    sweep = make_sweep()
    sweep.probe.click()
    until(lambda: sweep.notice.text)
    assert "TypeError" in sweep.notice.text
