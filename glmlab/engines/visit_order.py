"""VisitOrder: which recorded visit comes next. Engines that follow each other share one."""

from __future__ import annotations

import random
from collections import Counter

from glmlab.knobs import Params, params_key
from glmlab.recorded import Recording


class VisitOrder:
    """Counts what has been given out, so that no visit comes twice before all have come once.

    Parameters
    ----------
    seed : int
        0: as recorded. Otherwise shuffled, all points alike: the n-th visits of two points stay
        neighbours in time, which is what pairing them by round relies on.
    """

    def __init__(self, seed: int = 0) -> None:
        self._seed = seed
        self._given: Counter[tuple[str, str]] = Counter()
        self._started: Counter[str] = Counter()

    def index(self, recording: Recording, point: Params) -> int:
        """Which of the visits to a point is next."""
        places = list(range(len(recording.visits_of(point))))
        if self._seed:
            random.Random(f"glmlab/replay/{self._seed}").shuffle(places)
        return places[self.given(recording, point) % len(places)]

    def given(self, recording: Recording, point: Params) -> int:
        """How many visits to a point have been given out."""
        return self._given[recording.fingerprint, params_key(point)]

    def give(self, recording: Recording, point: Params) -> None:
        """Count one more."""
        self._given[recording.fingerprint, params_key(point)] += 1

    def forget(self) -> None:
        """As if no visit had been given out."""
        self._given.clear()

    def next_start(self, recording: Recording) -> float:
        """Seconds of the next start: each that was recorded, in turn."""
        starts = recording.header.start_s
        count = self._started[recording.fingerprint]
        self._started[recording.fingerprint] += 1
        return starts[count % len(starts)]
