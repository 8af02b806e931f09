"""SessionProgress: what a run tells, kept where any view can read it."""

from __future__ import annotations

from collections.abc import Sequence

from glmlab.progress import Silent, trial_line
from glmlab.session.events import EventLog
from glmlab.trial_record import TrialRecord, Visit


class SessionProgress(Silent):
    """Written by one thread at a time, read by any.

    Attributes
    ----------
    records : list of TrialRecord
        Trials so far; only ever appended to, or replaced as a whole.
    visits : int
        Visits of a confirmation that were heard of so far.
    done, total : int, int or None
        Trials with a result, and how many there can be.
    spent_s, left_s : float, float or None
        On trials so far, and an estimate of what is left.
    doing : str
        What is under way, e.g. ``trial 12``.
    trial_number : int or None
        Of the trial under way.
    best : str
        The best values so far, with their units.
    """

    def __init__(self, events: EventLog) -> None:
        self._events = events
        self.restore([], best="")
        self.total: int | None = None
        self.visits = 0
        self.end()

    def restore(self, records: Sequence[TrialRecord], *, best: str) -> None:
        """Take over what is stored."""
        counted = [record for record in records if record.status != "interrupted"]
        self.records = list(records)
        self.done = len(counted)
        self.spent_s = sum((record.cost.total_s for record in counted), 0.0)
        self.best = best

    @property
    def is_complete(self) -> bool:
        """Whether as many trials are done as there can be."""
        return self.total is None or self.done >= self.total

    def end(self) -> None:
        """Nothing is under way any more."""
        self.doing = ""
        self.trial_number: int | None = None
        self.left_s: float | None = None

    # ------------------------------------------------------------------ Progress
    def start(self, study: str, done: int, total: int | None, seconds: float | None) -> None:
        del study, seconds
        self.done, self.total = done, total

    def message(self, text: str) -> None:
        self._events.add("message", text)

    def running(self, what: str, trial: int | None = None) -> None:
        self.trial_number = trial
        self.doing = what if trial is None else f"{what} {trial}"

    def trial(self, record: TrialRecord, best: str, left_s: float | None) -> None:
        self.records.append(record)
        self.done += 1
        self.spent_s += record.cost.total_s
        self.best, self.left_s = best, left_s
        self.end_of_trial()
        self._events.add("trial", trial_line(record), record.number)

    def end_of_trial(self) -> None:
        """Between two trials, or where a run waits."""
        self.doing, self.trial_number = "", None

    def visit(self, visit: Visit, done: int, total: int) -> None:
        self.visits += 1
        self._events.add("visit", f"confirmation: visit {done} of {total}, to the {visit.side}")
