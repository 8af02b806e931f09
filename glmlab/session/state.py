"""Where a session stands, in words, and what can be done with it there."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from glmlab.session.progress import SessionProgress

Action = Literal["start", "pause", "resume", "stop", "abort", "enqueue", "extend"]


class SessionState(StrEnum):
    """States of a session; ``elsewhere``: another process runs the study."""

    NEW = "new"
    RUNNING = "running"
    PAUSING = "pausing"
    PAUSED = "paused"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FINISHED = "finished"
    FAILED = "failed"
    ABORTING = "aborting"
    ABORTED = "aborted"
    ELSEWHERE = "elsewhere"

    @property
    def is_active(self) -> bool:
        """Whether this process runs the study now."""
        return self in _ACTIVE


_ACTIVE = {
    SessionState.RUNNING,
    SessionState.PAUSING,
    SessionState.PAUSED,
    SessionState.STOPPING,
    SessionState.ABORTING,
}
_AT_REST: frozenset[Action] = frozenset({"start", "enqueue", "extend"})
_CAN: dict[SessionState, frozenset[Action]] = {
    SessionState.RUNNING: frozenset({"pause", "stop", "abort", "enqueue", "extend"}),
    SessionState.PAUSING: frozenset({"resume", "stop", "abort", "enqueue", "extend"}),
    SessionState.PAUSED: frozenset({"resume", "stop", "abort", "enqueue", "extend"}),
    SessionState.STOPPING: frozenset({"abort"}),
    SessionState.ABORTING: frozenset(),
    SessionState.ELSEWHERE: frozenset(),
}


def actions(state: SessionState) -> frozenset[Action]:
    """What can be done with a session in this state."""
    return _CAN.get(state, _AT_REST)


@dataclass(frozen=True)
class SessionStatus:
    """Where a session stands.

    Attributes
    ----------
    state : SessionState
        One of its values.
    text : str
        The state in words, e.g. ``Stopping after trial 12``.
    trial : int or None
        Number of the trial under way; ``None`` between trials and while the best is confirmed.
    done, total : int, int or None
        Trials with a result, and how many there can be; ``None`` where only time is limited.
    spent_s, left_s : float, float or None
        Seconds spent on trials over all runs (as recorded, in a replay), and an estimate of those left.
    best : str
        The best values so far with their units.
    error : str
        Why it failed, in one line.
    can : frozenset of str
        What can be done now: ``start``, ``pause``, ``resume``, ``stop``, ``abort``, ``enqueue``, ``extend``.
    """

    state: SessionState
    text: str
    trial: int | None
    done: int
    total: int | None
    spent_s: float
    left_s: float | None
    best: str
    error: str
    can: frozenset[Action]

    @classmethod
    def of(cls, state: SessionState, shown: SessionProgress, *, text: str, error: str) -> SessionStatus:
        """That of a session in this state."""
        return cls(
            state=state,
            text=text,
            trial=shown.trial_number if state.is_active else None,
            done=shown.done,
            total=shown.total,
            spent_s=shown.spent_s,
            left_s=shown.left_s if state.is_active else None,
            best=shown.best,
            error=error,
            can=actions(state),
        )


def in_words(state: SessionState, *, doing: str, done: int, error: str) -> str:
    """The state as a sentence.

    Parameters
    ----------
    state : SessionState
        What to tell.
    doing : str
        What is under way, e.g. ``trial 12``; empty between two things.
    done : int
        Trials with a result.
    error : str
        Why it failed.
    """
    after = f" after {doing}" if doing else ""
    trials = f"{done} trial{'' if done == 1 else 's'}"
    return {
        SessionState.NEW: f"Not running, {trials} stored" if done else "Not started",
        SessionState.RUNNING: f"Running {doing}" if doing else "Running",
        SessionState.PAUSING: f"Pausing{after}",
        SessionState.PAUSED: f"Paused, {trials} done; the engine is kept",
        SessionState.STOPPING: f"Stopping{after}",
        SessionState.STOPPED: f"Stopped, {trials} done",
        SessionState.FINISHED: f"Finished, {trials} done",
        SessionState.FAILED: f"Failed: {error}",
        SessionState.ABORTING: "Aborting",
        SessionState.ABORTED: f"Aborted, {trials} done; the engine is gone",
        SessionState.ELSEWHERE: f"Another process runs this study, {trials} done so far",
    }[state]
