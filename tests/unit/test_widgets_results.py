"""Results: the verdict in words, what changed, and everything that can be taken away."""

from __future__ import annotations

import json
import urllib.request

import pytest

from glmlab.session import Session
from glmlab.storage import StudyStore
from glmlab.study_lock import study_lock
from glmlab.widgets.results import Results
from glmlab.widgets.verdict_view import cost_html
from glmlab.widgets.workbench import Workbench
from tests.doubles import scripted_start
from tests.studies import LIVE, ROOT, TWO_PLANS, spec, split_helps
from tests.watched import Gate, threads, until, words

REPLAY = ROOT / "glmlab" / "data" / "studies" / "replay-kv-splits.yaml"


def wobble(n: int) -> float:
    """Visits that differ a little, so that the interval has a width."""
    return 1 + 0.01 * (n * 7 % 5)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/studies.db"


@pytest.fixture
def make(url):
    made = []

    def make(study=None, start=None, *, run=True):
        study = study or spec(LIVE)
        start = start or (None if study is REPLAY else scripted_start(split_helps, drift=wobble))
        session = Session(study, url, start=start)
        results = Results(session)
        made.append((session, results))
        if run:
            session.start()
            session.wait()
            settle(session, results)
        return session, results

    yield make
    for session, results in made:
        results.close()
        session.close()
    until(lambda: not threads())


def settle(session: Session, results: Results) -> None:
    until(lambda: not session.is_active and not results.painter.is_running)


def done(task) -> None:
    until(lambda: not task.is_busy)


# ------------------------------------------------------------------------------ what came out
def test_a_win_is_one_sentence_with_its_interval_and_evidence(make):
    session, results = make()
    said = words(results.verdict)
    verdict = session.summary().verdict
    assert said.startswith("Win cpu_split_kv = false: better than the baseline: tpot_ms x 0.7")
    assert f"({verdict.low:.3f} to {verdict.high:.3f})" in said
    assert "95% interval, from 3 interleaved rounds of best and baseline; evidence: simulated" in said


def test_a_replayed_verdict_says_so(make):
    _, results = make(REPLAY)
    assert "(replayed from a recording)" in words(results.verdict)
    assert "evidence: replayed" in words(results.verdict)
    assert "nothing was measured here" in words(results.cost)


def test_keeping_the_default_is_a_result(make):
    _, results = make(spec(LIVE), scripted_start(lambda knobs: 10.0 if knobs["cpu_split_kv"] else 12.0))
    assert words(results.verdict).startswith("Tie no trial was better than the baseline: keep the default.")
    assert results.confirm.disabled
    assert "nothing to confirm" in results.confirm.tooltip
    assert "nothing: the best is the baseline" in words(results.changes)


def test_what_changed_is_a_table_with_both_values_and_their_spread(make):
    _, results = make(spec(TWO_PLANS))
    said = words(results.changes)
    assert "cpu_split_kv true false live, in the running engine" in said
    assert "block_size 32 64 needs a new engine" in said
    assert "tpot_ms, when searched" in said
    assert said.count("p10") == 2


def test_before_there_is_a_verdict_it_is_said_when_it_comes(make):
    gate = Gate(split_helps)
    session, results = make(start=scripted_start(gate), run=False)
    assert "No result yet" in words(results.verdict)
    session.start()
    until(lambda: gate.waiting)
    results.painter.wake()
    until(lambda: "Not confirmed yet" in words(results.verdict))
    assert "The verdict comes after the last trial" in words(results.verdict)
    gate.open()
    until(lambda: session.status.done == 1 and gate.waiting)
    session.stop()
    gate.open()
    until(lambda: not session.is_active)
    until(lambda: "Continue the study" in words(results.verdict))
    for button in (results.confirm, results.export.button):
        assert button.disabled
        assert "Not now: the study has no verdict yet" in button.tooltip


def test_without_a_session_everything_is_there_and_says_why_it_can_do_nothing():
    results = Results()
    for button in (results.confirm, results.export.button, results.report.button, results.dashboard.button):
        assert button.disabled
        assert "no study has been started or attached here yet" in button.tooltip
    results.close()


def test_the_rounds_are_drawn_with_their_table(make):
    _, results = make()
    results.chart_box.children[-1].selected_index = 0
    assert "3 rows" in results.chart_box.table
    assert results.chart_box.data.title.startswith("Confirmation")


def test_values_from_a_study_are_escaped(make):
    session, _ = make()
    bad = session.summary().model_copy(update={"notes": ["<script>alert(1)</script>"]})
    assert "<script>" not in cost_html(bad)
    assert "&lt;script&gt;" in cost_html(bad)


# ------------------------------------------------------------------------------ confirm again
def test_confirming_again_adds_rounds_to_those_that_were_made(make, url):
    session, results = make()
    before = session.summary().verdict
    results.rounds.value = 4
    results.confirm.click()
    until(lambda: not session.is_active)
    settle(session, results)
    after = session.summary().verdict
    assert (before.rounds, after.rounds) == (3, 7)
    assert after.high - after.low != before.high - before.low
    assert "from 7 interleaved rounds" in words(results.verdict)
    store = StudyStore.load("unit", url)
    assert len(store.visits(session.summary().best.trial)) == 14
    assert results.notice.text == ""


def test_a_recording_that_has_no_more_visits_says_so(make):
    session, results = make(REPLAY)
    rounds = session.summary().verdict.rounds
    results.rounds.value = 50
    results.confirm.click()
    until(lambda: not session.is_active)
    settle(session, results)
    assert (
        f"{rounds + 50} rounds were asked for, {session.summary().verdict.rounds} could be had"
        in results.notice.text
    )


def test_no_further_round_is_no_confirmation(make):
    _, results = make()
    results.rounds.value = 0
    results.confirm.click()
    assert results.notice.text == "further rounds = 0: expected 1 or more"


# ------------------------------------------------------------------------------ taking it away
def test_the_bundle_is_written_and_its_files_and_command_are_shown(make, tmp_path):
    _, results = make()
    target = tmp_path / "bundle"
    results.export.field.value = str(target)
    results.export.button.click()
    done(results.export)
    assert results.export.notice.text == ""
    said = words(results.export.outcome)
    for name in ("recipe.yaml", "serve.yaml", "env.sh", "evidence.json", "README.md"):
        assert name in said
        assert (target / name).is_file()
    assert "source env.sh &&" in said
    assert "evidence: simulated" in said
    evidence = json.loads((target / "evidence.json").read_text())
    assert evidence["summary"]["verdict"]["outcome"] == "win"


def test_a_directory_that_is_not_empty_is_refused_beside_the_field(make, tmp_path):
    _, results = make()
    (tmp_path / "mine.txt").write_text("mine")
    results.export.field.value = str(tmp_path)
    results.export.button.click()
    done(results.export)
    assert "exists and is not empty; name a new directory" in results.export.notice.text
    assert results.export.outcome.value == ""
    assert not results.export.button.disabled


def test_the_report_is_one_file(make, tmp_path):
    _, results = make()
    target = tmp_path / "report.html"
    results.report.field.value = str(target)
    results.report.button.click()
    done(results.report)
    assert results.report.notice.text == ""
    assert str(target) in words(results.report.outcome)
    assert target.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_dashboard_is_served_until_the_display_is_closed(make, url):
    pytest.importorskip("optuna_dashboard")
    _, results = make()
    results.dashboard.button.click()
    done(results.dashboard)
    assert results.dashboard.notice.text == ""
    said = words(results.dashboard.outcome)
    address = results.dashboard._served.url
    assert address.startswith("http://127.0.0.1:")
    assert address in said
    assert url in said
    with urllib.request.urlopen(f"{address}api/studies") as answer:
        assert "unit" in [study["study_name"] for study in json.load(answer)["study_summaries"]]
    results.close()
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(f"{address}api/studies")


def test_a_storage_that_is_gone_is_said_where_it_was_asked_for(make, tmp_path):
    _, results = make()
    (tmp_path / "studies.db").unlink()
    results.export.field.value = str(tmp_path / "bundle")
    results.export.button.click()
    done(results.export)
    assert "does not exist" in results.export.notice.text


def test_a_study_that_another_process_runs_can_be_read_but_not_confirmed(make, url):
    session, results = make()
    results.close()
    session.close()
    with study_lock("unit", url):
        seen = Session(spec(LIVE), url, start=scripted_start(split_helps))
        other = Results(seen)
        assert words(other.verdict).startswith("Win")
        assert "another process runs this study" in other.confirm.tooltip
        assert not other.report.button.disabled
        other.close()


def test_the_workbench_shows_the_same_results(make, url):
    session, _ = make()
    bench = Workbench(session=session)
    bench.tabs.selected_index = 3
    until(lambda: words(bench.results.verdict).startswith("Win"))
    bench.close()
