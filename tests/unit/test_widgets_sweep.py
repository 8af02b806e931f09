"""Sweep: fields in, a study file out; each refusal beside its field; started in the background."""

from __future__ import annotations

from typing import Any

import pytest

from glmlab import find_recipe
from glmlab.engines.base import KnobStatus
from glmlab.errors import EngineStartError, StudyError
from glmlab.knob_table import KNOBS
from glmlab.session import Session
from glmlab.study_spec import StudySpec
from glmlab.widgets.knob_entry import KnobEntry, suggested
from glmlab.widgets.known_reach import recorded_reach
from glmlab.widgets.study_draft import StudyDraft
from glmlab.widgets.sweep import Sweep
from tests.doubles import scripted_start
from tests.studies import LIVE, ROOT, TWO_PLANS, spec, split_helps
from tests.watched import Gate, threads, until, words

STUDIES = sorted((ROOT / "glmlab" / "data" / "studies").glob("*.yaml"))
REPLAY = ROOT / "glmlab" / "data" / "studies" / "replay-kv-splits.yaml"
TINY = find_recipe("tiny-glm4-moe")


@pytest.fixture
def gate():
    made = Gate(split_helps)
    yield made
    made.open(10_000)


@pytest.fixture
def make(url):
    made = []

    def make(recipe="tiny-glm4-moe", *, storage=url, **more):
        sweep = Sweep(recipe, storage=storage, live=False, **more)
        made.append(sweep)
        return sweep

    yield make
    for sweep in made:
        if sweep.session is not None:
            sweep.session.close()
        sweep.close()


def choose(sweep: Sweep, **values: str) -> None:
    for name, text in values.items():
        row = sweep.editor.space.rows[name]
        row.tick.value = True
        row.move(text)


def put(sweep: Sweep, **values) -> None:
    for name, value in values.items():
        sweep.editor.fields[name].control.value = value


def started(sweep: Sweep) -> Any:
    until(lambda: sweep.session is not None or sweep.notice.text)
    assert sweep.notice.text == ""
    return sweep.session


# ------------------------------------------------------------------------------ the study file
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_file_comes_out_as_it_went_in(make, path):
    given = StudySpec.load(path)
    sweep = make(spec=path)
    assert sweep.editor.refusals == {}
    back = StudySpec.parse_text(sweep.text)
    assert back.identity() == given.identity()
    assert back.base_recipe == given.base_recipe
    assert (back.budget, back.confirm, back.home, back.study) == (
        given.budget,
        given.confirm,
        given.home,
        given.study,
    )


def test_what_has_no_field_is_carried_along(make):
    given = StudySpec.parse(
        spec(
            {
                "cpu_split_kv": [True, False],
                "cpu_attn_isa": {"values": ["vec", "amx"], "when": {"cpu_split_kv": True}},
            },
            workload={"contexts": [64, 128], "new_tokens": 4, "warmup_tokens": 3, "weights": {64: 2.0}},
            start_timeout_s=60.0,
            constraints={"kv_tokens": ">= 100"},
            objective=["tpot_ms", "tokens_per_s"],
        )
    )
    sweep = make(spec=given)
    assert sweep.editor.refusals == {}
    back = StudySpec.parse_text(sweep.text)
    assert back.identity() == given.identity()
    assert back.start_timeout_s == 60.0


def test_the_file_is_one_that_people_would_write(make):
    sweep = make()
    choose(sweep, block_size="32, 64", max_num_seqs="2, 4, 8")
    put(sweep, study="first", contexts="256, 1024", seconds="10m", constraints="kv_tokens >= 200000")
    assert sweep.text == (
        "study: first\n"
        "recipe: tiny-glm4-moe\n"
        "engine: vllm\n"
        "home: child\n"
        "workload: {contexts: [256, 1024], batch_sizes: [1], new_tokens: 32}\n"
        "space:\n"
        "  max_num_seqs: [2, 4, 8]               # live\n"
        "  block_size: [32, 64]                  # rebuild\n"
        "objective: tpot_ms\n"
        "constraints: {kv_tokens: '>= 200000'}\n"
        "budget: {trials: 20, seconds: 600}\n"
        "seed: 0\n"
    )
    assert "<pre>study: first" in sweep.file.shown.value
    assert "glmlab tune first.yaml" in words(sweep.file.children[1].children[2])


def test_a_recipe_that_was_changed_stands_in_the_file_in_full(make):
    sweep = make(TINY.replace(max_num_seqs=4))
    choose(sweep, cpu_split_kv="true, false")
    assert StudySpec.parse_text(sweep.text).base_recipe == TINY.replace(max_num_seqs=4)


def test_the_file_is_saved_and_never_over_somebody_elses(make, tmp_path):
    sweep = make()
    choose(sweep, max_num_seqs="2, 4")
    path = tmp_path / "mine.yaml"
    sweep.file.file.value = str(path)
    sweep.file.save.click()
    assert StudySpec.load(path).space == {"max_num_seqs": [2, 4]}
    put(sweep, seed=7)
    sweep.file.save.click()
    assert StudySpec.load(path).seed == 7
    path.write_text("mine: own\n")
    sweep.file.save.click()
    assert "exists already" in sweep.file.notice.text
    assert path.read_text() == "mine: own\n"
    sweep.file.file.value = str(tmp_path / "nowhere" / "x.yaml")
    sweep.file.save.click()
    assert "cannot be written" in sweep.file.notice.text


def test_while_a_field_is_refused_there_is_no_file_and_which_is_said(make):
    sweep = make()
    choose(sweep, max_num_seqs="2, 4")
    put(sweep, trials="many")
    assert sweep.text == ""
    assert sweep.file.save.disabled
    assert "trials = 'many'" in words(sweep.file.shown)


@pytest.mark.parametrize(
    ("chosen", "said"),
    [
        ({"max_num_seqs": "2, 4"}, "3 points, one engine"),
        (
            {"max_num_seqs": "2, 8", "block_size": "16, 32, 64"},
            "6 points in 3 plans, each an engine of its own",
        ),
    ],
)
def test_what_a_full_grid_costs_is_said(make, chosen, said):
    sweep = make()
    choose(sweep, **chosen)
    put(sweep, contexts="64, 128", batch_sizes="1, 4", trials="2")
    assert said in words(sweep.grid)
    assert "measured at 4 points of the workload" in words(sweep.grid)
    assert "The budget measures 2 of them" in words(sweep.grid)


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
        ("constraints", "kv >= 1", "constraints.kv: unknown; known:"),
        ("constraints", "kv_tokens about 5", "constraints = 'kv_tokens about 5': expected a line such as"),
        ("constraints", "kv_tokens > 1\nkv_tokens > 2", "constraints.kv_tokens: is given twice"),
        ("trials", "0", "trials = '0': expected a whole number from 1 on"),
        ("seconds", "soon", "time = 'soon': expected seconds, or a time such as"),
        ("seconds", "nan", "time = 'nan': expected seconds"),
        ("rounds", 2, "confirm.rounds = 2: Input should be greater than or equal to 3"),
        ("seed", -1, "seed = -1: Input should be greater than or equal to 0"),
        ("storage", "memory", "storage = 'memory': is no URL"),
        ("storage", "sqlite:////no/such/folder/x.db", "folder /no/such/folder does not exist; make it first"),
    ],
)
def test_a_field_is_refused_in_one_line_beside_it(make, field, value, said):
    sweep = make()
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


def test_an_empty_budget_is_said_at_both_fields(make):
    sweep = make()
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
def test_a_knob_is_refused_beside_it_and_the_others_are_not(make, name, text, said):
    sweep = make()
    choose(sweep, block_size="32, 64", **{name: text})
    row = sweep.editor.space.rows[name]
    assert said in row.refusal
    assert said in words(row.children[-1])
    assert sweep.editor.space.rows["block_size"].refusal == ""
    row.tick.value = False
    assert row.refusal == ""
    assert sweep.spec is not None


def test_a_range_is_given_by_its_ends(make):
    sweep = make()
    row = sweep.editor.space.rows["max_num_batched_tokens"]
    row.tick.value = True
    row.set(KnobEntry(how="range, logarithmic", low=256, high=2048))
    sweep.editor._changed()
    assert sweep.spec.space == {"max_num_batched_tokens": {"low": 256, "high": 2048, "log": True}}
    row.set(KnobEntry(how="range", low=512, high=1024, step=512))
    sweep.editor._changed()
    assert "the recipe's own value 2048 lies outside 512..1024" in row.refusal


def test_a_limit_whose_default_is_left_to_vllm_is_refused_before_an_engine_is_paid_for(make):
    bare = find_recipe({"name": "bare", "model": "tiny/glm4-moe"})
    sweep = make(bare)
    choose(sweep, max_num_batched_tokens="256, 512")
    assert "the recipe leaves it to vLLM" in sweep.editor.space.rows["max_num_batched_tokens"].refusal


def test_before_anybody_chose_a_knob_nothing_is_called_wrong(make):
    sweep = make()
    assert "Tick the knobs" in words(sweep.editor.space._refusal)
    assert "tick at least one knob" in words(sweep.grid)
    sweep.button.click()
    assert sweep.notice.text == "not started: space: no knob is chosen; tick at least one and give its values"


# ------------------------------------------------------------------------------ what can be changed
def test_live_knobs_come_first_and_every_knob_of_the_table_is_there(make):
    rows = list(make().editor.space.rows.values())
    reaches = [row.knob.reach for row in rows]
    assert [row.knob.name for row in rows] == list(KNOBS)
    assert reaches == sorted(reaches)


def test_what_an_engine_cannot_change_is_locked_with_its_reason(make):
    sweep = make()
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


def test_a_knob_that_is_moved_and_then_locked_is_refused_but_can_be_let_go(make):
    sweep = make()
    choose(sweep, cpu_split_kv="true, false", max_num_seqs="2, 4")
    sweep.reach = {"cpu_split_kv": KnobStatus(live=False, why="this is a GPU")}
    row = sweep.editor.space.rows["cpu_split_kv"]
    assert "this engine cannot change it: this is a GPU" in row.refusal
    assert not row.tick.disabled
    row.tick.value = False
    assert row.tick.disabled
    assert sweep.spec is not None


def test_values_that_an_engine_does_not_allow_are_refused(make):
    sweep = make()
    sweep.reach = {"cpu_attn_isa": KnobStatus(live=True, values=("vec", "amx"))}
    row = sweep.editor.space.rows["cpu_attn_isa"]
    row.tick.value = True
    assert sweep.spec.space == {"cpu_attn_isa": ["vec", "amx"]}
    row.move("vec, neon")
    assert row.refusal == "space.cpu_attn_isa = 'neon': this engine allows vec, amx"


def test_a_replay_can_move_what_its_recording_moved(make):
    sweep = make(spec=REPLAY)
    rows = sweep.editor.space.rows
    assert not rows["kv_splits"].tick.disabled
    assert rows["attn_decode_tile"].locked == "was not moved in h100-glm-4.7-tp4-splits"
    rows["kv_splits"].move("1, 3")
    assert "this engine allows" in rows["kv_splits"].refusal
    assert sweep.editor.fields["home"].control.disabled


def test_a_recipe_without_a_recording_cannot_be_replayed(make):
    sweep = make()
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


def test_the_machines_vllm_is_asked_in_the_background(make, monkeypatch):
    monkeypatch.setattr(
        "glmlab.widgets.sweep.probed_reach", lambda: {"kv_splits": KnobStatus(live=False, why="no GPU here")}
    )
    sweep = make()
    sweep.probe.click()
    until(lambda: sweep.editor.space.rows["kv_splits"].locked == "no GPU here")
    until(lambda: not sweep.probe.disabled)
    assert "locked, each with its reason" in sweep.notice.text


def test_a_machine_without_vllm_is_said_so(make, monkeypatch):
    def fails():
        raise EngineStartError("vLLM cannot be imported: no module named vllm")

    monkeypatch.setattr("glmlab.widgets.sweep.probed_reach", fails)
    sweep = make()
    sweep.probe.click()
    until(lambda: sweep.notice.text)
    assert sweep.notice.text == "vLLM cannot be imported: no module named vllm"
    assert not sweep.probe.disabled


# ------------------------------------------------------------------------------ starting
def test_start_makes_a_session_that_the_board_shows(make, gate, url):
    sweep = make(spec=spec(TWO_PLANS), start=scripted_start(gate))
    seen: list[Session] = []
    sweep.on_session(seen.append)
    sweep.button.click()
    session = started(sweep)
    until(lambda: seen == [session])
    assert session.storage == url
    assert sweep.board.session is session
    until(lambda: gate.waiting)
    sweep.paint()
    assert sweep.button.disabled
    assert "study unit runs here; stop it first" in sweep.button.tooltip
    assert sweep.folds.selected_index is None
    gate.open(1000)
    assert session.wait().trials["complete"] == 4
    until(lambda: not sweep.button.disabled)


def test_a_replay_runs_from_the_form_to_its_verdict(make):
    sweep = make(spec=REPLAY)
    sweep.button.click()
    verdict = started(sweep).wait().verdict
    assert verdict is not None
    assert verdict.outcome == "win"


def test_a_study_that_changed_under_its_name_is_refused_where_its_state_is_said(make, gate):
    gate.open(10_000)
    sweep = make(spec=spec(LIVE), start=scripted_start(gate))
    sweep.button.click()
    started(sweep).wait()
    put(sweep, contexts="128")
    sweep.button.click()
    until(lambda: "Failed" in words(sweep.board.controls.state))
    assert "changed since its first run: workload" in words(sweep.board.controls.state)
    assert "give the changed study another name" in words(sweep.board.controls.state)


def test_a_study_that_runs_elsewhere_in_this_process_is_named_with_what_to_do(make, gate, url):
    with Session(spec(LIVE), url, start=scripted_start(gate)) as other:
        other.start()
        until(lambda: gate.waiting)
        sweep = make(spec=spec(LIVE), start=scripted_start(gate))
        sweep.button.click()
        until(lambda: sweep.notice.text)
        assert "glmlab.attach('unit'" in sweep.notice.text
        assert sweep.session is None
        gate.open(1000)
        other.wait()


def test_while_a_study_runs_no_second_one_is_started(make, gate):
    sweep = make(spec=spec(LIVE), start=scripted_start(gate))
    sweep.button.click()
    started(sweep)
    until(lambda: gate.waiting)
    put(sweep, study="another")
    with pytest.raises(Exception, match="study 'unit' runs here; stop it before another one is started"):
        sweep.start()


def test_a_session_is_shown_with_its_study(make, gate, url):
    with Session(spec(LIVE), url, start=scripted_start(gate)) as session:
        gate.open(1000)
        session.start()
        session.wait()
        sweep = make(session=session)
        assert sweep.spec.identity() == session.spec.identity()
        assert sweep.board.progress.bar.description == "2 of 2 trials"


def test_a_password_in_the_storage_is_neither_shown_nor_lost():
    from glmlab.widgets.study_editor import StudyEditor

    url = "postgresql://me:secret@host/studies"
    editor = StudyEditor(TINY, storage=url)
    assert editor.fields["storage"].control.value == "postgresql://me:***@host/studies"
    assert editor.storage == url
    editor.fields["storage"].control.value = "sqlite:///other.db"
    assert editor.storage == "sqlite:///other.db"


def test_a_closed_sweep_leaves_no_thread(make, gate):
    sweep = make(spec=spec(LIVE), start=scripted_start(gate))
    sweep.button.click()
    session = started(sweep)
    gate.open(1000)
    session.wait()
    sweep.close()
    until(lambda: not threads())


def test_every_control_has_a_description_and_a_tooltip(make):
    sweep = make(spec=spec(TWO_PLANS))
    controls = [field.control for field in sweep.editor.fields.values()]
    for row in sweep.editor.space.rows.values():
        controls += [row.tick, *row._fields.values()]
    controls += [sweep.button, sweep.probe, sweep.file.file, sweep.file.save, sweep.board.choice]
    for control in controls:
        assert control.description, control
        assert control.tooltip, control


def test_a_draft_without_a_knob_is_no_study():
    judged = StudyDraft(recipe=TINY).judge()
    assert (judged.spec, judged.text, judged.grid) == (None, "", "")
    with pytest.raises(StudyError, match="expected keys and values"):
        StudySpec.parse_text(judged.text)
