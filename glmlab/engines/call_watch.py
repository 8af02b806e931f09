"""CallWatch: whether a call to a child engine has gone on for too long, and in which way."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from glmlab.engines.protocol import Beat


@dataclass
class CallWatch:
    """Watches one call.

    Parameters
    ----------
    what : str
        The call, e.g. ``measure``.
    limit_s : float
        For all of it.
    beat_timeout_s : float
        Without a sign of life.
    step_timeout_s : float
        Without a step of the engine, while it measures: ranks that wait for each other do so for ever, and
        their process beats on.
    """

    what: str
    limit_s: float
    beat_timeout_s: float
    step_timeout_s: float
    _begin_s: float = field(default_factory=time.monotonic)
    _steps: int = -1

    def __post_init__(self) -> None:
        self._last_sign_s = self._last_step_s = self._begin_s

    def heard(self, reply: Beat) -> None:
        """Take a sign of life."""
        self._last_sign_s = time.monotonic()
        if reply.steps != self._steps:
            self._steps, self._last_step_s = reply.steps, self._last_sign_s

    def too_long(self) -> str:
        """What took too long, in words that follow "the engine"; empty while all is well."""
        now = time.monotonic()
        if now - self._last_sign_s > self.beat_timeout_s:
            return f"gave no sign of life for {self.beat_timeout_s:.0f} s"
        if self.what == "measure" and now - self._last_step_s > self.step_timeout_s:
            return f"did not finish a step within {self.step_timeout_s:.0f} s"
        if now - self._begin_s > self.limit_s:
            return f"did not finish {self.what!r} within {self.limit_s:.0f} s"
        return ""
