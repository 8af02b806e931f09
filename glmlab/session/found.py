"""Found: what a session's study has found so far, read from memory where it can be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glmlab.knobs import Params
from glmlab.session.progress import SessionProgress
from glmlab.storage import StudyStore
from glmlab.study import Study
from glmlab.summary import Summary, best_record, show_values, summarize
from glmlab.trial_record import TrialRecord, Visit


@dataclass(frozen=True)
class Stored:
    """A stored study as it was read."""

    store: StudyStore
    records: list[TrialRecord]
    verdict: dict[str, Any] | None


class Found:
    """Baseline, visits and summary of a study; what was computed is kept until something happens.

    Parameters
    ----------
    study : Study
        The study.
    progress : SessionProgress
        Its trials.
    """

    def __init__(self, study: Study, progress: SessionProgress) -> None:
        self._study, self._progress = study, progress
        self._store: StudyStore | None = None
        self._verdict: dict[str, Any] | None = None
        self._summary: tuple[object, Summary] | None = None
        self._visits: tuple[object, list[Visit]] | None = None

    @property
    def store(self) -> StudyStore | None:
        """The stored study; ``None`` before there is one."""
        return self._study.stored or self._store

    def read(self) -> Stored | None:
        """The stored study, read anew; ``None`` before there is one.

        Raises
        ------
        StorageError
            If the storage cannot be read.
        """
        store = StudyStore.open(self._study.spec.study, self._study.storage)
        return None if store is None else Stored(store, store.records(), store.verdict)

    def take(self, stored: Stored | None) -> None:
        """Go by what was read; not while a run adds to it in another thread."""
        self._store = None if stored is None else stored.store
        if stored is None:
            return
        best = best_record(stored.records, self._study.spec)
        shown = show_values(best, self._study.spec) if best else ""
        self._progress.restore(stored.records, best=shown)
        self._verdict = stored.verdict
        self._summary = self._visits = None

    @property
    def baseline(self) -> Params | None:
        """The baseline's values, once an engine has said what they are."""
        return None if self.store is None else self.store.baseline

    @property
    def is_complete(self) -> bool:
        """Whether as many trials were done as there can be, and the best confirmed, when it was read."""
        if not self._progress.is_complete:
            return False
        best = best_record(self._progress.records, self._study.spec)
        known = self._verdict
        return best is not None and known is not None and known["best"] == best.number

    def visits(self) -> list[Visit]:
        """Visits that confirm the present best, in order."""
        best = best_record(self._progress.records, self._study.spec)
        if self.store is None or best is None:
            return []
        state = (best.number, self._progress.visits)
        cached = self._visits
        if cached is None or cached[0] != state:
            cached = self._visits = (state, self.store.visits(best.number))
        return list(cached[1])

    def summary(self, stage: object) -> Summary | None:
        """The summary; ``None`` before there is a stored study.

        Parameters
        ----------
        stage : object
            Where the session is: a verdict comes without a trial or visit of its own.
        """
        if self.store is None:
            return None
        records = list(self._progress.records)
        state = (len(records), self._progress.visits, stage)
        cached = self._summary
        if cached is None or cached[0] != state:
            cached = self._summary = (state, summarize(self.store, records))
        return cached[1]
