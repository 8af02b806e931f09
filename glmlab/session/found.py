"""Found: what a session's study has found so far, read from memory where it can be."""

from __future__ import annotations

from glmlab.knobs import Params
from glmlab.session.progress import SessionProgress
from glmlab.storage import StudyStore
from glmlab.study import Study
from glmlab.summary import Summary, best_record, show_values, summarize
from glmlab.trial_record import Visit


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
        self._summary: tuple[object, Summary] | None = None
        self._visits: tuple[object, list[Visit]] | None = None

    @property
    def store(self) -> StudyStore | None:
        """The stored study; ``None`` before there is one."""
        return self._study.stored or self._store

    def reload(self) -> None:
        """Read the stored study anew.

        Raises
        ------
        StorageError
            If the storage cannot be read.
        """
        self._store = StudyStore.open(self._study.spec.study, self._study.storage)
        if self._store is None:
            return
        records = self._store.records()
        best = best_record(records, self._study.spec)
        shown = show_values(best, self._study.spec) if best else ""
        self._progress.restore(records, best=shown)
        self._summary = self._visits = None

    @property
    def baseline(self) -> Params | None:
        """The baseline's values, once an engine has said what they are."""
        return None if self.store is None else self.store.baseline

    @property
    def is_complete(self) -> bool:
        """Whether as many trials are done as there can be, and the best has been confirmed."""
        if not self._progress.is_complete:
            return False
        best = best_record(self._progress.records, self._study.spec)
        known = None if self.store is None else self.store.verdict
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
