"""The workbench on a real CPU engine: a sweep from its form to the exported files, steered on the way."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from glmlab.session import SessionState, attach
from glmlab.study_spec import StudySpec
from glmlab.widgets.workbench import TABS, Workbench
from tests.processes import alive, wait_until_gone
from tests.watched import threads, until, words


@pytest.fixture(scope="module")
def storage(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('workbench')}/studies.db"


@pytest.fixture(scope="module")
def bench(storage: str) -> Iterator[Workbench]:
    made = Workbench("tiny-glm4-moe", storage=storage)
    yield made
    if made.session is not None:
        made.session.close()
    made.close()


def board(bench: Workbench) -> Any:
    return bench.sweep.board


def click(bench: Workbench, action: str) -> None:
    button = board(bench).controls.buttons[action]
    until(lambda: not button.disabled)
    button.click()


def test_play_answers_and_its_engine_makes_way_for_a_sweep(bench):
    bench.tabs.selected_index = TABS.index("Play")
    for name, text in (("contexts", "64"), ("batch_sizes", "2")):
        bench.play.workload.fields[name].value = text
    bench.play.start_engine()
    until(lambda: bench.play.rounds and bench.play.status.state == "ready")
    assert len(bench.play.rounds) == 1
    rows = bench.sweep.editor.space.rows
    assert rows["kv_splits"].locked
    assert not rows["cpu_split_kv"].locked
    bench.tabs.selected_index = TABS.index("Sweep")
    for name, value in (
        ("contexts", "64"),
        ("batch_sizes", "2"),
        ("new_tokens", 8),
        ("trials", "6"),
        ("rounds", 3),
    ):
        bench.sweep.editor.fields[name].control.value = value
    for name, text in (("cpu_split_kv", "true, false"), ("max_num_seqs", "2, 4, 8")):
        rows[name].tick.value = True
        rows[name].move(text)
    assert bench.sweep.editor.refusals == {}
    bench.sweep.button.click()
    assert "the engine of Play runs" in bench.gate.notice.text
    pids = bench.play.status.pids
    bench.gate.button.click()
    until(lambda: bench.session is not None)
    assert not wait_until_gone(pids)


def test_the_sweep_moves_and_stops_when_told(bench):
    session = bench.session
    until(lambda: session.status.done >= 1)
    until(lambda: board(bench).chart_box.data is not None and not board(bench).chart_box.data.is_empty)
    assert "measured" in board(bench).chart_box.data.evidence
    click(bench, "pause")
    assert board(bench).controls.buttons["pause"].description.startswith("Pausing")
    until(lambda: session.status.state is SessionState.PAUSED)
    done = session.status.done
    click(bench, "resume")
    until(lambda: session.status.done > done)
    if session.is_active and session.status.trial is not None:
        click(bench, "stop")
        assert words(board(bench).controls.state).startswith("Study tiny-glm4-moe-sweep: Stopping")
    until(lambda: not session.is_active)


def test_it_continues_to_a_verdict(bench, storage):
    session = bench.session
    if session.status.state is SessionState.STOPPED:
        click(bench, "start")
    summary = session.wait()
    assert summary.verdict is not None
    assert (summary.trials["complete"], summary.evidence) == (6, "measured")
    until(lambda: not bench.painter.is_running)
    assert board(bench).progress.bar.description == "6 of 6 trials"
    bench.tabs.selected_index = TABS.index("Results")
    # A win or a tie of rivals has its evidence; a tie without a rival needs none.
    until(lambda: re.search("evidence: measured|nothing had to be confirmed", words(bench.results.verdict)))


def test_the_exported_files_are_there(bench, tmp_path):
    target = tmp_path / "bundle"
    bench.results.export.field.value = str(target)
    bench.results.export.button.click()
    until(lambda: not bench.results.export.is_busy)
    assert bench.results.export.notice.text == ""
    assert sorted(path.name for path in target.iterdir()) == sorted(
        ["recipe.yaml", "serve.yaml", "env.sh", "evidence.json", "README.md"]
    )


def test_the_study_file_is_what_was_run(bench):
    assert StudySpec.parse_text(bench.sweep.text).identity() == bench.session.spec.identity()


def test_an_aborted_engine_is_gone_and_the_study_is_intact(bench, storage):
    session = bench.session
    session.extend(trials=6)
    bench.sweep.editor.fields["study"].control.value = "aborted"
    bench.sweep.button.click()
    until(lambda: bench.session is not session)
    second = bench.session
    until(lambda: second.status.done >= 1 and second.is_active)
    pids = second.engine_pids
    assert pids
    click(bench, "abort")
    assert board(bench).controls.buttons["abort"].description.startswith("Kill it now")
    click(bench, "abort")
    until(lambda: second.status.state is SessionState.ABORTED)
    until(lambda: not alive(pids))
    found = attach("aborted", storage)
    assert [record.status for record in found.records()][:1] == ["complete"]
    second.close()


def test_a_new_kernel_finds_everything_again(bench, storage):
    bench.session.close()
    again = Workbench(session=attach("tiny-glm4-moe-sweep", storage))
    again.tabs.selected_index = TABS.index("Sweep")
    assert again.sweep.board.progress.bar.value == 6
    until(lambda: board(again).chart_box.data is not None)
    assert board(again).chart_box.data.trial
    again.close()
    bench.close()
    until(lambda: not threads())


def test_nothing_is_written_beside_the_storage(storage):
    folder = Path(storage.removeprefix("sqlite:///")).parent
    assert all(path.name.lstrip(".").startswith("studies.db") for path in folder.iterdir())
