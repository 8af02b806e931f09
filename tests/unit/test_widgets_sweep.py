"""Sweep: fields in, a study file out; started in the background."""

from __future__ import annotations

import pytest

from glmlab.errors import StudyError
from glmlab.session import Session
from glmlab.study_spec import StudySpec
from glmlab.widgets.study_draft import StudyDraft
from tests.doubles import scripted_start
from tests.studies import LIVE, ROOT, TWO_PLANS, spec
from tests.sweeps import REPLAY, TINY, choose, put, started
from tests.watched import threads, until, words

STUDIES = sorted((ROOT / "glmlab" / "data" / "studies").glob("*.yaml"))


# ------------------------------------------------------------------------------ the study file
@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_file_comes_out_as_it_went_in(make_sweep, path):
    given = StudySpec.load(path)
    sweep = make_sweep(spec=path)
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


def test_what_has_no_field_is_carried_along(make_sweep):
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
    sweep = make_sweep(spec=given)
    assert sweep.editor.refusals == {}
    back = StudySpec.parse_text(sweep.text)
    assert back.identity() == given.identity()
    assert back.start_timeout_s == 60.0


def test_the_file_is_one_that_people_would_write(make_sweep):
    sweep = make_sweep()
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


def test_a_recipe_that_was_changed_stands_in_the_file_in_full(make_sweep):
    sweep = make_sweep(TINY.replace(max_num_seqs=4))
    choose(sweep, cpu_split_kv="true, false")
    assert StudySpec.parse_text(sweep.text).base_recipe == TINY.replace(max_num_seqs=4)


def test_the_file_is_saved_and_never_over_somebody_elses(make_sweep, tmp_path):
    sweep = make_sweep()
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


def test_while_a_field_is_refused_there_is_no_file_and_which_is_said(make_sweep):
    sweep = make_sweep()
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
def test_what_a_full_grid_costs_is_said(make_sweep, chosen, said):
    sweep = make_sweep()
    choose(sweep, **chosen)
    put(sweep, contexts="64, 128", batch_sizes="1, 4", trials="2")
    assert said in words(sweep.grid)
    assert "measured at 4 points of the workload" in words(sweep.grid)
    assert "The budget measures 2 of them" in words(sweep.grid)


# ------------------------------------------------------------------------------ starting
def test_start_makes_a_session_that_the_board_shows(make_sweep, gate, url):
    sweep = make_sweep(spec=spec(TWO_PLANS), start=scripted_start(gate))
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


def test_a_replay_runs_from_the_form_to_its_verdict(make_sweep):
    sweep = make_sweep(spec=REPLAY)
    sweep.button.click()
    verdict = started(sweep).wait().verdict
    assert verdict is not None
    assert verdict.outcome == "win"


def test_a_study_that_changed_under_its_name_is_refused_where_its_state_is_said(make_sweep, gate):
    gate.open(10_000)
    sweep = make_sweep(spec=spec(LIVE), start=scripted_start(gate))
    sweep.button.click()
    started(sweep).wait()
    put(sweep, contexts="128")
    sweep.button.click()
    until(lambda: "Failed" in words(sweep.board.controls.state))
    assert "changed since its first run: workload" in words(sweep.board.controls.state)
    assert "give the changed study another name" in words(sweep.board.controls.state)


def test_a_study_that_runs_elsewhere_in_this_process_is_named_with_what_to_do(make_sweep, gate, url):
    with Session(spec(LIVE), url, start=scripted_start(gate)) as other:
        other.start()
        until(lambda: gate.waiting)
        sweep = make_sweep(spec=spec(LIVE), start=scripted_start(gate))
        sweep.button.click()
        until(lambda: sweep.notice.text)
        assert "glmlab.attach('unit'" in sweep.notice.text
        assert sweep.session is None
        gate.open(1000)
        other.wait()


def test_while_a_study_runs_no_second_one_is_started(make_sweep, gate):
    sweep = make_sweep(spec=spec(LIVE), start=scripted_start(gate))
    sweep.button.click()
    started(sweep)
    until(lambda: gate.waiting)
    put(sweep, study="another")
    with pytest.raises(Exception, match="study 'unit' runs here; stop it before another one is started"):
        sweep.start()


def test_a_session_is_shown_with_its_study(make_sweep, gate, url):
    with Session(spec(LIVE), url, start=scripted_start(gate)) as session:
        gate.open(1000)
        session.start()
        session.wait()
        sweep = make_sweep(session=session)
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


def test_a_closed_sweep_leaves_no_thread(make_sweep, gate):
    sweep = make_sweep(spec=spec(LIVE), start=scripted_start(gate))
    sweep.button.click()
    session = started(sweep)
    gate.open(1000)
    session.wait()
    sweep.close()
    until(lambda: not threads())


def test_every_control_has_a_description_and_a_tooltip(make_sweep):
    sweep = make_sweep(spec=spec(TWO_PLANS))
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
