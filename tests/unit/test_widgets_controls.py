"""Controls: what each click does, at once, and what each button says when it can do nothing."""

from __future__ import annotations

import pytest

from glmlab.session import Action, Session, SessionState
from glmlab.study_lock import study_lock
from glmlab.widgets.controls import Controls
from glmlab.widgets.look import is_shown
from glmlab.widgets.why_not import why_not
from tests.doubles import scripted_start
from tests.studies import LIVE, SAMPLED, TWO_PLANS, bowl, spec
from tests.watched import until, words


@pytest.fixture
def make(url, gate):
    made = []

    def make(space=LIVE, **changes):
        session = Session(spec(space, **changes), url, start=scripted_start(gate))
        made.append(session)
        return session, Controls(session)

    yield make
    for session in made:
        gate.open(10_000)
        session.close()


def enabled(controls: Controls) -> set[str]:
    return {action for action, button in controls.buttons.items() if not button.disabled}


def click(controls: Controls, action: Action) -> None:
    assert not controls.buttons[action].disabled
    controls.buttons[action].click()


def test_without_a_session_every_button_is_there_and_says_why_it_can_do_nothing():
    controls = Controls()
    assert enabled(controls) == set()
    for button in controls.buttons.values():
        assert is_shown(button)
        assert button.tooltip.startswith("Not now: no study has been started or attached here yet. ")
    assert words(controls.state) == "No study has been started or attached here yet."


@pytest.mark.parametrize("state", SessionState)
def test_in_every_state_what_cannot_be_done_has_a_reason(state):
    for action in ("start", "pause", "resume", "stop", "abort", "extend", "enqueue"):
        assert why_not(action, state)


def test_every_control_has_a_description_and_a_tooltip(make):
    _, controls = make()
    for control in (*controls.buttons.values(), controls.more_trials, controls.more_time):
        assert control.description
        assert control.tooltip


def test_start_then_stop_answers_with_the_click_itself(make, gate):
    session, controls = make()
    click(controls, "start")
    assert session.is_active
    until(lambda: gate.waiting)
    controls.paint()
    assert words(controls.state) == "Study unit: Running trial 0"
    click(controls, "stop")
    # The trial still runs: the click has been answered before anything else happened.
    assert gate.waiting == 1
    assert controls.buttons["stop"].description == "Stopping after trial 0"
    assert controls.buttons["stop"].disabled
    assert words(controls.state) == "Study unit: Stopping after trial 0"
    gate.open()
    until(lambda: not session.is_active)
    controls.paint()
    assert (controls.buttons["start"].description, controls.buttons["stop"].description) == (
        "Continue",
        "Stop",
    )
    assert session.status.state is SessionState.STOPPED


def test_pause_and_resume(make, gate):
    session, controls = make()
    click(controls, "start")
    until(lambda: gate.waiting)
    controls.paint()
    click(controls, "pause")
    assert controls.buttons["pause"].description == "Pausing after trial 0"
    gate.open()
    until(lambda: session.status.state is SessionState.PAUSED)
    controls.paint()
    assert words(controls.state) == "Study unit: Paused, 1 trial done; the engine is kept"
    assert "it is paused already" in controls.buttons["pause"].tooltip
    click(controls, "resume")
    assert session.status.state is SessionState.RUNNING
    gate.open(1000)
    session.wait()


def test_abort_asks_once_more_and_says_what_it_kills(make, gate):
    session, controls = make()
    click(controls, "start")
    until(lambda: gate.waiting)
    controls.paint()
    assert controls.buttons["abort"].description == "Abort: kill the engine"
    click(controls, "abort")
    assert session.status.state == "running"
    assert controls.buttons["abort"].description == "Kill it now, trial 0 is lost"
    assert "the engine is killed" in words(controls.state)
    click(controls, "abort")
    assert session.status.state in {"aborting", "aborted"}
    gate.open(10)
    until(lambda: session.status.state == "aborted")
    controls.paint()
    # The double cannot be killed in the middle of its trial.
    assert words(controls.state) == "Study unit: Aborted, 1 trial done; the engine is gone"
    assert enabled(controls) == {"start", "extend", "enqueue"}


def test_another_click_disarms_abort(make, gate):
    session, controls = make()
    click(controls, "start")
    until(lambda: gate.waiting)
    controls.paint()
    click(controls, "abort")
    click(controls, "pause")
    assert controls.buttons["abort"].description == "Abort: kill the engine"
    click(controls, "abort")
    assert session.status.state is SessionState.PAUSING


def test_abort_that_was_asked_for_long_ago_is_forgotten(make, gate, monkeypatch):
    _, controls = make()
    click(controls, "start")
    until(lambda: gate.waiting)
    controls.paint()
    click(controls, "abort")
    monkeypatch.setattr("glmlab.widgets.controls._ARMED_S", 0.0)
    controls.paint()
    assert controls.buttons["abort"].description == "Abort: kill the engine"


def test_the_budget_is_extended_while_it_runs(make, gate):
    session, controls = make(SAMPLED, budget={"trials": 3})
    click(controls, "start")
    until(lambda: gate.waiting)
    controls.more_trials.value = 4
    click(controls, "extend")
    assert session.status.total == 7
    assert "extended" in controls.notice.text


def test_only_a_budget_that_there_is_can_be_extended(make):
    _, controls = make(budget={"seconds": 60})
    assert controls.more_trials.disabled
    assert not controls.more_time.disabled
    controls.more_time.value = "1 week"
    click(controls, "extend")
    assert controls.notice.text == "time = '1 week': expected seconds, or a time such as 90s, 10m or 1h30m"


def test_a_point_of_ones_own_comes_next(make, gate):
    session, controls = make(TWO_PLANS)
    click(controls, "start")
    gate.open()
    until(lambda: session.status.done == 1 and gate.waiting)
    controls.further.selected_index = 1
    fields = controls.point.fields
    assert {name: field.value for name, field in fields.items()} == {"cpu_split_kv": True, "block_size": 32}
    fields["cpu_split_kv"].value = False
    fields["block_size"].value = 64
    click(controls, "enqueue")
    assert controls.notice.text == "Next: cpu_split_kv = false, block_size = 64"
    gate.open(2)
    until(lambda: session.status.done == 3)
    assert session.records()[2].params == {"cpu_split_kv": False, "block_size": 64}


def test_a_point_that_was_tried_is_refused_in_words(make, gate):
    session, controls = make(TWO_PLANS)
    click(controls, "start")
    gate.open()
    until(lambda: session.status.done == 1 and gate.waiting)
    click(controls, "enqueue")
    assert "was tried as trial #0" in controls.notice.text
    assert session.is_active


def test_a_range_of_many_values_is_a_number_within_its_bounds(make):
    _, controls = make(SAMPLED)
    controls.further.selected_index = 1
    field = controls.point.fields["max_num_batched_tokens"]
    assert (field.min, field.max, field.step, field.value) == (256, 1024, 8, 1024)


def test_a_study_that_another_process_runs_cannot_be_steered(url):
    with study_lock("unit", url):
        first = Session(spec(LIVE), url, start=scripted_start(bowl))
        controls = Controls(first)
        with pytest.raises(Exception, match="another process runs it"):
            first.start()
        controls.paint()
        assert enabled(controls) == set()
        assert "another process runs this study" in controls.buttons["stop"].tooltip


def test_an_error_of_the_run_is_said_where_the_state_is(make, gate, url):
    session = Session(
        spec(LIVE), url, start=scripted_start(start_fails=lambda recipe: "no memory for <this>")
    )
    controls = Controls(session)
    click(controls, "start")
    until(lambda: not session.is_active)
    controls.paint()
    assert words(controls.state) == "Study unit: Failed: no memory for <this>"
    assert "<this>" not in controls.state.value
    session.close()
