"""What a study found, as HTML: the verdict in a sentence, what changed, what it cost."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from glmlab.dimension import same_value
from glmlab.figures.quantity import Spread, whole_spread, with_unit
from glmlab.knob_table import KNOBS
from glmlab.knobs import word
from glmlab.session import SessionStatus
from glmlab.study_spec import StudySpec
from glmlab.summary import Point, Summary, took
from glmlab.trial_record import TrialRecord
from glmlab.units import format_duration

_OUTCOMES = {"win": ("Win", "good"), "tie": ("Tie", "notes"), "loss": ("Loss", "warns")}


def verdict_html(summary: Summary | None, status: SessionStatus) -> str:
    """The result in one sentence, with its interval, its evidence and on how much it rests.

    Parameters
    ----------
    summary : Summary or None
        ``None`` before there is a stored study.
    status : SessionStatus
        Says what to do while there is no verdict.
    """
    if summary is None and not status.state.is_active:
        return _card("notes", "No result yet", f"{status.text}. Start the study, or continue it.")
    verdict = summary.verdict if summary is not None else None
    if summary is None or verdict is None:
        what = (
            "The verdict comes after the last trial, when best and baseline are measured again, in turn."
            if status.state.is_active
            else "Continue the study: once its budget is spent, best and baseline are measured again."
        )
        return _card("notes", "Not confirmed yet", f"{status.text}. {what}")
    name, kind = _OUTCOMES[verdict.outcome]
    interval = (
        f"{verdict.confidence:.0%} interval, from {verdict.rounds} interleaved rounds of best and baseline"
        if verdict.low is not None and verdict.high is not None
        else "no interval, since nothing had to be confirmed"
    )
    return _card(kind, name, f"{summary.headline}.", f"{interval}; evidence: {summary.evidence}")


def changes_html(summary: Summary, records: Sequence[TrialRecord], spec: StudySpec) -> str:
    """Every knob that differs, and what the two points gave when they were searched."""
    baseline, best = summary.baseline, summary.best
    if baseline is None or best is None:
        return "<p class='glmlab-dim'>No trial has a result yet.</p>"
    changed = [
        name
        for name in dict.fromkeys([*best.params, *baseline.params])
        if not same_value(best.params.get(name), baseline.params.get(name))
    ]
    rows = [
        (name, _word(baseline, name), _word(best, name), _REACH[KNOBS[name].reach] if name in KNOBS else "")
        for name in changed
    ] or [("nothing: the best is the baseline", "", "", "")]
    rows += [
        (
            f"{metric}, when searched",
            _value(baseline, metric, records, spec),
            _value(best, metric, records, spec),
            "",
        )
        for metric in baseline.values
    ]
    head = (f"baseline (trial #{baseline.trial})", f"best (trial #{best.trial})", "reach")
    return _table(("what changed", *head), rows)


def cost_html(summary: Summary) -> str:
    """What a live trial cost against a restart, and what a reader must know."""
    cost, lines = summary.cost_s, []
    if cost.times_cheaper is not None and cost.live_trial is not None and cost.restart_trial is not None:
        lines.append(
            f"A live trial {took(summary.evidence)} {format_duration(cost.live_trial)}; with a restart it"
            f" takes {format_duration(cost.restart_trial)}: {cost.times_cheaper:.0f} times as long."
        )
    counts = ", ".join(f"{count} {status}" for status, count in summary.trials.items() if count)
    lines.append(f"Trials: {counts or 'none'}.")
    lines += [f"Note: {note}." for note in summary.notes]
    return "".join(f"<p class='glmlab-dim'>{escape(line)}</p>" for line in lines)


_REACH = {"live": "live, in the running engine", "rebuild": "needs a new engine"}


def _card(kind: str, word_: str, *lines: str) -> str:
    body = "".join(f"<p>{escape(line)}</p>" for line in lines)
    return f"<div class='glmlab-card glmlab-{kind}' role='status'><b>{escape(word_)}</b>{body}</div>"


def _word(point: Point, name: str) -> str:
    return word(point.params[name]) if name in point.params else "not active"


def _value(point: Point, metric: str, records: Sequence[TrialRecord], spec: StudySpec) -> str:
    """A value with its spread: it is never shown without."""
    record = next((r for r in records if r.number == point.trial), None)
    measured = record.measurement if record else None
    spread = whole_spread(measured, metric, spec.effective_workload) if measured else None
    found = spread or Spread(point.values[metric])
    return f"{with_unit(found.value, metric)} ({found.words})"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    heads = "".join(f"<th scope='col'>{escape(cell)}</th>" for cell in head)
    body = "".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    table = f"<table><thead><tr>{heads}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class='glmlab-scroll'>{table}</div>"
