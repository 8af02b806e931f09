"""Extension: budget that was added to a study's own, before it ran or while it runs."""

from __future__ import annotations

from glmlab.errors import SessionError
from glmlab.knobs import KnobSpace
from glmlab.study_spec import Budget
from glmlab.units import format_duration


class Extension:
    """What comes on top of a budget; it outlives a run, but not the process."""

    def __init__(self) -> None:
        self._trials, self._seconds = 0, 0.0

    def add(self, own: Budget, *, trials: object, seconds: object) -> str:
        """Add to it.

        Parameters
        ----------
        own : Budget
            The study's: only what it limits can be extended.

        Returns
        -------
        str
            What was added, in words; empty where it was nothing.

        Raises
        ------
        SessionError
            For less than nothing, or a kind of budget that the study has not.
        """
        if isinstance(trials, bool) or not isinstance(trials, int) or trials < 0:
            raise SessionError(f"trials = {trials!r}: expected a whole number, 0 or more")
        if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not seconds >= 0:
            raise SessionError(f"seconds = {seconds!r}: expected a number, 0 or more")
        for name, more, limit in (("trials", trials, own.trials), ("seconds", seconds, own.seconds)):
            if more and limit is None:
                raise SessionError(f"{name} = {more}: this study has no limit of {name} to extend")
        self._trials += trials
        self._seconds += seconds
        parts = [f"{trials} trial{'' if trials == 1 else 's'}"] * bool(trials)
        return " and ".join(parts + [format_duration(seconds)] * bool(seconds))

    def total(self, own: Budget, space: KnobSpace) -> int | None:
        """Trials that there can be: what the budget allows, or all points where those are fewer."""
        trials = self.of(own).trials
        return trials if trials is None or trials < space.upper_count else space.upper_count

    def of(self, asked: Budget) -> Budget:
        """The budget in force."""
        return Budget(
            trials=None if asked.trials is None else asked.trials + self._trials,
            seconds=None if asked.seconds is None else asked.seconds + self._seconds,
        )
