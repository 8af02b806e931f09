"""Steering: what a run asks, between trials and visits, of whoever steers it."""

from __future__ import annotations

from collections.abc import Callable

from glmlab.engines.handle import EngineHandle
from glmlab.knobs import Params
from glmlab.study_spec import Budget


class Steering:
    """Lets a run go where it would go by itself; :mod:`glmlab.session` has one with a wheel.

    Parameters
    ----------
    stop : callable, optional
        True ends the run after the current trial.

    Attributes
    ----------
    handle : EngineHandle
        Of the run's engine, for ending it from another thread.
    """

    def __init__(self, stop: Callable[[], bool] = lambda: False) -> None:
        self._stop = stop
        self.handle = EngineHandle()

    def stops(self) -> bool:
        """Whether the run is to end here. May take its time: a paused run waits in this call."""
        return self.handle.is_ended or self._stop()

    def has_wish(self) -> bool:
        """Whether :meth:`wish` has a point."""
        return False

    def wish(self) -> Params | None:
        """Knobs and values of the point to try next; the others are the baseline's."""
        return None

    def give_back(self, wish: Params) -> None:
        """Take back a wish whose trial was cut off."""

    def budget(self, asked: Budget) -> Budget:
        """The budget in force, given the one that the run was started with."""
        return asked
