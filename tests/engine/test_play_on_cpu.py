"""Play with a real engine: started, changed, refused, killed from outside, started again, and stopped."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from glmlab.widgets.play import Play
from tests.processes import alive, wait_until_gone


@pytest.fixture(scope="module")
def play() -> Iterator[Play]:
    play = Play("tiny-glm4-moe")
    play.workload.fields["contexts"].value = "64, 256"
    play.workload.fields["new_tokens"].value = "8"
    play.engine.start.click()
    play.wait()
    yield play
    pids = play.status.pids
    play.close()
    play.wait()
    assert wait_until_gone(pids) == []


def apply(play: Play, **choices) -> None:
    for name, value in choices.items():
        row = play._rows[name]
        (row.choice if row._is_list else row.entry).value = value
    play.apply.click()
    play.wait()


def test_it_is_changed_and_compared(play):
    assert play.status.state == "ready", play.notice.text
    before = play._rows["cpu_split_kv"].status.value
    apply(play, cpu_split_kv=not before)
    first, second = play.rounds[-2:]
    assert second.report.changed == {"cpu_split_kv": (before, not before)}
    assert second.measurement.evidence == "measured"
    assert 0 < second.same_tokens <= 1
    assert play._chart.data.labels[0].startswith(f"#{first.number} cpu_split_kv")
    assert list(play._chart.data.points[1]) == [(64, 1), (256, 1)]


def test_what_it_refuses_is_told_and_it_serves_on(play):
    pids = play.status.pids
    apply(play, max_num_seqs="999")
    assert play.notice.text == "max_num_seqs = 999: this engine allows 1 to 8"
    apply(play, max_num_seqs="4")
    assert play.rounds[-1].values["max_num_seqs"] == 4
    assert alive(pids) == list(pids)


def test_killed_from_outside_it_is_noticed_and_started_again(play):
    pids, rounds = play.status.pids, len(play.rounds)
    os.kill(pids[0], signal.SIGKILL)
    limit = time.monotonic() + 60
    while play.status.state != "died" and time.monotonic() < limit:
        time.sleep(0.1)
    assert play.status.state == "died"
    assert "SIGKILL" in play.notice.text
    assert wait_until_gone(pids) == []
    play.engine.start.click()
    assert play.wait().state == "ready"
    assert len(play.rounds) == rounds + 1


def test_stopped_while_it_starts_nothing_is_left(play):
    play.close_engine()
    play.wait()
    play.engine.start.click()
    limit = time.monotonic() + 60
    while not (pids := play.player._handle.pids) and time.monotonic() < limit:
        time.sleep(0.02)
    assert pids
    play.engine.stop.click()
    assert play.wait().state == "none"
    assert wait_until_gone(pids) == []


def test_in_this_kernel_it_is_played_with_too(play):
    play.engine.place.value = "kernel"
    play.workload.fields["contexts"].value = "64"
    play.engine.start.click()
    assert play.wait().state == "ready", play.notice.text
    assert play.status.pids == ()
    apply(play, max_num_seqs="2")
    assert play.rounds[-1].report.changed == {"max_num_seqs": (8, 2)}
    play.engine.stop.click()
    assert play.wait().state == "none"
