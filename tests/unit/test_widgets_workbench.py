"""Workbench: four tabs, one recipe, one engine at a time; and everything found again by attach."""

from __future__ import annotations

from typing import Any

import pytest
from ipywidgets import Widget

import glmlab
from glmlab.engines.base import KnobStatus
from glmlab.errors import StorageError
from glmlab.session import Session, attach
from glmlab.widgets.look import is_shown
from glmlab.widgets.workbench import TABS, Workbench
from tests.doubles import Knobs, ScriptedEngine, scripted_start
from tests.studies import LIVE, ROOT, spec, split_helps
from tests.watched import Gate, threads, until, words

REPLAY = ROOT / "glmlab" / "data" / "studies" / "replay-kv-splits.yaml"


def seqs_cost(knobs: Knobs) -> Any:
    """Fewer sequences at once are quicker each; so is no split of KV."""
    return 10.0 + knobs["max_num_seqs"] + bool(knobs["cpu_split_kv"])


@pytest.fixture
def gate():
    made = Gate(seqs_cost)
    yield made
    made.open(10_000)


@pytest.fixture
def engines(monkeypatch, gate):
    """Engines of Play and of studies, counted together; no real one is started."""
    script = scripted_start(seqs_cost)

    def start_play(recipe, place, log_path, handle):
        del place, log_path, handle
        return ScriptedEngine(recipe, script, {})

    def start_study(self, recipe, ceilings):
        del self
        return script(recipe, ceilings)

    monkeypatch.setattr("glmlab.widgets.workbench.start_engine", start_play)
    monkeypatch.setattr("glmlab.study.Study._start_real", start_study)
    return script


@pytest.fixture
def make(url):
    made = []

    def make(recipe="tiny-glm4-moe", **more):
        bench = Workbench(recipe, **{"storage": url, **more})
        made.append(bench)
        return bench

    yield make
    for bench in made:
        if bench.session is not None:
            bench.session.close()
        bench.close()
    until(lambda: not threads())


def move(bench: Workbench, name: str, text: str) -> None:
    row = bench.sweep.editor.space.rows[name]
    row.tick.value = True
    row.move(text)


def turn(bench: Workbench, tab: str) -> None:
    """Turn to a tab of a workbench whose session rests; what is there is then drawn."""
    bench.tabs.selected_index = TABS.index(tab)
    if bench.session is not None and bench.session.status.state != "new":
        until(lambda: not bench.painter.is_running)


def run(bench: Workbench) -> Any:
    until(lambda: bench.session is not None)
    assert bench.session is not None
    return bench.session.wait()


def play(bench: Workbench) -> None:
    bench.play.start_engine()
    until(lambda: bench.play.status.state == "ready")


def test_it_is_glmlabs_own_name():
    assert glmlab.Workbench is Workbench


def test_there_are_four_tabs(make):
    bench = make()
    assert bench.tabs.titles == TABS == ("Setup", "Play", "Sweep", "Results")
    assert bench.tabs.children == (bench.setup, bench.play, bench.sweep, bench.results)


def test_one_recipe_is_shared(make):
    bench = make()
    changed = bench.recipe.replace(max_num_seqs=4)
    bench.recipe = changed
    until(lambda: bench.sweep.recipe == changed)
    move(bench, "max_num_seqs", "1, 4")
    assert bench.sweep.spec.base_recipe == changed


def test_an_engine_in_play_tells_sweep_and_setup_what_it_can_change(make, engines):
    engines.live = {"kv_splits": KnobStatus(live=False, why="no TRITON backend")}
    bench = make()
    play(bench)
    until(lambda: bench.sweep.editor.space.rows["kv_splits"].locked == "no TRITON backend")
    bench.play.close_engine()
    until(lambda: not bench.sweep.editor.space.rows["kv_splits"].locked)


def test_a_sweep_asks_to_close_the_engine_of_play_and_then_starts(make, engines):
    bench = make()
    play(bench)
    move(bench, "max_num_seqs", "4, 8")
    assert not is_shown(bench.gate)
    bench.sweep.button.click()
    assert "the engine of Play runs" in bench.gate.notice.text
    assert is_shown(bench.gate)
    assert bench.session is None
    assert engines.running == 1
    bench.gate.button.click()
    run(bench)
    assert bench.play.status.state == "none"
    assert engines.running == 0
    assert not is_shown(bench.gate)


def test_no_two_engines_run_at_any_time(make, engines):
    most = []
    init = ScriptedEngine.__init__

    def counted(self, *args):
        init(self, *args)
        most.append(engines.running)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ScriptedEngine, "__init__", counted)
        bench = make()
        play(bench)
        move(bench, "max_num_seqs", "4, 8")
        bench.sweep.button.click()
        bench.gate.button.click()
        run(bench)
    assert most == [1, 1]


def test_continuing_and_confirming_ask_too(make, engines):
    bench = make()
    move(bench, "max_num_seqs", "4, 8")
    bench.sweep.button.click()
    run(bench)
    until(lambda: not bench.painter.is_running)
    play(bench)
    bench.sweep.board.controls.buttons["start"].click()
    assert "the engine of Play runs" in bench.gate.notice.text
    assert not bench.session.is_active
    bench.gate.button.click()
    until(lambda: bench.play.status.state == "none")
    until(lambda: not bench.session.is_active)


def test_play_does_not_start_beside_a_sweep(make, engines, gate):
    engines.latency = gate
    bench = make()
    move(bench, "max_num_seqs", "4, 8")
    bench.sweep.button.click()
    until(lambda: gate.waiting)
    bench.play.start_engine()
    until(lambda: bench.play.status.state == "none" and bench.play.notice.text)
    assert "runs in Sweep, and two engines would share one memory" in bench.play.notice.text
    assert bench.session.is_active
    gate.open(1000)
    bench.session.wait()


def test_a_replay_needs_no_engine_to_be_closed(make, engines):
    bench = make()
    play(bench)
    bench.sweep.load(REPLAY)
    bench.sweep.button.click()
    assert run(bench).verdict.outcome == "win"
    assert bench.play.status.state == "ready"


def test_only_the_tab_that_is_shown_is_drawn(make, engines):
    bench = make()
    bench.sweep.load(REPLAY)
    bench.sweep.button.click()
    run(bench)
    until(lambda: not bench.painter.is_running)
    board, results = bench.sweep.board, bench.results
    assert (board.chart_box.painted, results.chart_box.painted) == (0, 0)
    turn(bench, "Results")
    assert (board.chart_box.painted, results.chart_box.painted) == (0, 1)
    assert words(results.verdict).startswith("Win")
    turn(bench, "Sweep")
    assert (board.chart_box.painted, results.chart_box.painted) == (1, 1)


# ------------------------------------------------------------------------------ attach
def test_attach_shows_a_running_study_in_every_view(make, gate, url):
    with Session(spec(LIVE), url, start=scripted_start(gate)) as session:
        session.start()
        gate.open()
        until(lambda: session.status.done == 1 and gate.waiting)
        found = attach("unit", url)
        assert found is session
        bench = make(None, session=found)
        assert bench.recipe == session.spec.base_recipe
        assert bench.sweep.spec.identity() == session.spec.identity()
        assert bench.sweep.editor.storage == url
        assert bench.sweep.board.progress.bar.description == "1 of 2 trials"
        assert bench.tabs.selected_index == TABS.index("Sweep")
        gate.open(1000)
        session.wait()
        until(lambda: not bench.painter.is_running)
        turn(bench, "Results")
        until(lambda: words(bench.results.verdict).startswith("Win"))


def test_after_a_restart_the_views_come_back_from_the_storage(make, url):
    with Session(spec(LIVE), url, start=scripted_start(split_helps)) as session:
        session.start()
        session.wait()
    found = attach("unit", url)
    assert found is not session
    bench = make(None, session=found)
    turn(bench, "Results")
    until(lambda: words(bench.results.verdict).startswith("Win"))
    turn(bench, "Sweep")
    until(lambda: bench.sweep.board.chart_box.data is not None)
    assert bench.sweep.board.chart_box.data.trial == (0, 1)
    assert bench.sweep.board.progress.bar.description == "2 of 2 trials"


def test_a_storage_that_is_not_there_is_said_in_one_line(url):
    with pytest.raises(StorageError, match="does not exist; run `glmlab tune` first"):
        attach("unit", url)


# ------------------------------------------------------------------------------ its end
def test_closing_it_ends_what_it_has_and_leaves_the_session(make, engines, gate, url):
    engines.latency = gate
    bench = make()
    move(bench, "max_num_seqs", "4, 8")
    bench.sweep.button.click()
    until(lambda: gate.waiting)
    session = bench.session
    bench.close()
    until(lambda: threads() == [f"glmlab-session-{session.name}"])
    gate.open(1000)
    session.wait()
    until(lambda: not threads())


def test_a_page_that_is_cleared_leaves_no_thread(make, engines):
    bench = make()
    play(bench)
    Widget.close_all()
    until(lambda: engines.running == 0)
    until(lambda: not threads())
