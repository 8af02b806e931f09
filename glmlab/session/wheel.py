"""Wheel: how a session steers its run from other threads."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from glmlab.knobs import Params
from glmlab.steering import Steering
from glmlab.study_spec import Budget


class Wheel(Steering):
    """Steering of one run.

    Parameters
    ----------
    wishes : deque of dict
        Points to try next; it outlives the run.
    budget : callable
        The budget in force, given the one asked for.
    on_pause : callable
        Called when the run begins to wait, in the run's thread.
    """

    def __init__(
        self,
        wishes: deque[Params],
        budget: Callable[[Budget], Budget],
        on_pause: Callable[[], None],
    ) -> None:
        super().__init__()
        self._wishes, self._budget, self._on_pause = wishes, budget, on_pause
        self._changed = threading.Condition()
        self._is_paused = self._is_stopped = False

    # ------------------------------------------------------------------ the run's side
    def stops(self) -> bool:
        """Whether to end here; waits while the run is paused."""
        with self._changed:
            if self._must_wait():
                self._on_pause()
                self._changed.wait_for(lambda: not self._must_wait())
            return self._is_stopped or self.handle.is_ended

    def _must_wait(self) -> bool:
        return self._is_paused and not self._is_stopped and not self.handle.is_ended

    def has_wish(self) -> bool:
        return bool(self._wishes)

    def wish(self) -> Params | None:
        return self._wishes.popleft() if self._wishes else None

    def budget(self, asked: Budget) -> Budget:
        return self._budget(asked)

    # ------------------------------------------------------------------ the session's side
    def pause(self) -> None:
        """Wait after the trial under way."""
        self._is_paused = True  # without the lock: nobody is woken by it

    def resume(self) -> None:
        """Go on."""
        self._turn(lambda: setattr(self, "_is_paused", False))

    def stop(self) -> None:
        """End after the trial under way."""
        self._turn(lambda: setattr(self, "_is_stopped", True))

    def abort(self) -> None:
        """End the engine, now."""
        self.handle.end()
        self._turn(lambda: None)

    def _turn(self, change: Callable[[], None]) -> None:
        with self._changed:
            change()
            self._changed.notify_all()
