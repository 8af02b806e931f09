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
        Called when the run begins to wait, and after each turn while it does, in the run's thread.
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
            while self._must_wait():
                self._on_pause()  # at each turn: one that went on and paused again waits anew
                self._changed.wait()
            return self._is_stopped or self.handle.is_ended

    def _must_wait(self) -> bool:
        return self._is_paused and not self._is_stopped and not self.handle.is_ended

    def has_wish(self) -> bool:
        return bool(self._wishes)

    def wish(self) -> Params | None:
        return self._wishes.popleft() if self._wishes else None

    def give_back(self, wish: Params) -> None:
        self._wishes.appendleft(wish)

    def budget(self, asked: Budget) -> Budget:
        return self._budget(asked)

    # ------------------------------------------------------------------ the session's side
    # These take no lock, so that the session can turn the wheel and say so at once, under its own:
    # a wheel that is turned after others have turned it would be where nobody says it is.
    def pause(self) -> None:
        """Wait after the trial under way."""
        self._is_paused = True

    def resume(self) -> None:
        """Go on."""
        self._is_paused = False

    def stop(self) -> None:
        """End after the trial under way."""
        self._is_stopped = True

    def tell(self) -> None:
        """Have a run that waits look where the wheel is now."""
        with self._changed:
            self._changed.notify_all()

    def abort(self) -> None:
        """End the engine, now; returns at once where there can be a thread for it."""
        ending = threading.Thread(target=self._end, name="glmlab-abort", daemon=True)
        try:
            ending.start()
        except RuntimeError:  # no thread is to be had, e.g. in an interpreter that ends
            self._end()

    def _end(self) -> None:
        self.handle.end()
        self.tell()
