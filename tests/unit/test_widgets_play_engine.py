"""Play: an engine's life: how it dies, how it is noticed, and how it is ended."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from glmlab.errors import EngineDiedError, InputError
from tests.doubles import scripted_start
from tests.plays import Starts, apply, bench_is_shown, line, start


# ---------------------------------------------------------------------------------------- deaths
def test_an_engine_that_dies_is_shown_with_its_log_and_can_be_started_again(make_play):
    error = EngineDiedError("the engine died by SIGKILL during 'measure'", log_tail="out of memory")
    play = make_play(Starts(scripted_start(measure_fails={2: error})))
    start(play)
    apply(play, cpu_split_kv=False)
    assert play.status.state == "died"
    assert "died by SIGKILL" in play.notice.text
    assert "out of memory" in play.notice._area.value
    assert play.engine.start.description == "Start again"
    assert not bench_is_shown(play)
    assert play._history.value, "what was measured stays"
    start(play)
    assert play.status.state == "ready"
    assert [each.number for each in play.rounds] == [1, 2]


def test_an_engine_that_does_not_come_up_is_told(make_play):
    play = make_play(Starts(scripted_start(start_fails=lambda recipe: "no such backend")))
    start(play)
    assert play.status.state == "died"
    assert "no such backend" in play.notice.text
    assert "the last line of the log" in play.notice._area.value
    assert play.engine.start.description == "Start again"
    assert play.rounds == []


def test_bad_input_at_the_start_is_told_in_one_line(make_play):
    def refuse(handle):
        raise InputError("serving_engine = 'sglang': glmlab starts vLLM only")

    play = make_play(Starts(during={"start": refuse}))
    start(play)
    assert play.status.state == "none"
    assert play.notice.text == "serving_engine = 'sglang': glmlab starts vLLM only"


def test_an_idle_engine_that_is_gone_is_noticed(make_play):
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        play = make_play(Starts(pids=(process.pid,)))
        start(play)
        play._look()
        assert play.wait().state == "ready"
        process.kill()
        process.wait()
        play.player._engine._dead = True
        play._look()
        assert play.wait().state == "died"
        assert play.engine.start.description == "Start again"


# ---------------------------------------------------------------------------------------- the close button
def test_closing_a_ready_engine_gives_it_back(make_play):
    starts = Starts()
    play = make_play(starts)
    start(play)
    play.engine.stop.click()
    assert play.wait().state == "none"
    assert starts.script.running == 0
    assert not bench_is_shown(play)
    assert play.engine.start.description == "Start engine"
    start(play)
    assert play.status.state == "ready"


@pytest.mark.parametrize("what", ["start", "measure"])
def test_the_button_ends_an_engine_that_is_busy(make_play, what):
    busy = threading.Event()

    def wait_for_the_end(handle):
        busy.set()
        handle.sleep(60)

    starts = Starts(during={what: wait_for_the_end})
    play = make_play(starts)
    play.engine.start.click()
    assert busy.wait(30)
    assert not play.engine.stop.disabled
    play.engine.stop.click()
    assert play.wait(30).state == "none"
    assert starts.script.running == 0
    assert "ended" in line(play)
    assert play.notice.text == "", "it is what was asked for"


def test_pressed_again_it_kills_an_engine_that_does_not_close(make_play):
    def close_only_when_killed(handle):
        if not handle.is_ended:
            threading.Event().wait(0.01)
            while not handle.is_ended:
                threading.Event().wait(0.01)

    play = make_play(Starts(closing=close_only_when_killed))
    start(play)
    play.engine.stop.click()
    assert play.status.state == "closing"
    assert play.engine.stop.description == "Kill it now"
    play.engine.stop.click()
    assert play.wait(30).state == "none"


def test_clicks_return_while_the_engine_works(make_play):
    may_go = threading.Event()
    play = make_play(Starts(during={"start": lambda handle: may_go.wait(60)}))
    play.engine.start.click()
    assert play.status.state == "starting"
    assert play.engine.start.description == "Starting ..."
    assert play.engine.log_button.value, "while one waits, the log is shown"
    assert "Nothing is logged yet" in play.engine._log.value
    play._look()
    assert "so far" in line(play)
    may_go.set()
    assert play.wait().state == "ready"
    assert not play.engine.log_button.value


def test_the_end_of_the_log_is_shown_as_it_reads(make_play):
    may_go = threading.Event()
    play = make_play(Starts(during={"start": lambda handle: may_go.wait(60)}))
    play.engine.start.click()
    play.status.log_path.parent.mkdir(exist_ok=True)
    play.status.log_path.write_text("\x1b[0;36mloading <weights>\x1b[0m\n", encoding="utf-8")
    play._look()
    assert "<pre>loading &lt;weights&gt;</pre>" in play.engine._log.value
    may_go.set()
    play.wait()


def test_a_second_play_takes_over_so_that_no_engine_is_left_behind(make_play):
    first, second = Starts(), Starts()
    one, other = make_play(first), make_play(second)
    start(one)
    start(other)
    assert other.status.state == "ready"
    assert one.wait().state == "none"
    assert first.script.running == 0
    assert "another Play" in line(one)


def test_taken_off_the_page_it_ends_its_engine(make_play):
    starts = Starts()
    play = make_play(starts)
    start(play)
    play.close()
    play.wait()
    assert starts.script.running == 0
