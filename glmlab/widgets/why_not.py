"""Why a button of a session is disabled, in words: a button that is merely grey explains nothing."""

from __future__ import annotations

from glmlab.session import Action, SessionState

_DOING = {
    SessionState.NEW: "it has not been started",
    SessionState.RUNNING: "it runs already",
    SessionState.PAUSING: "it is about to pause",
    SessionState.PAUSED: "it is paused: resume it",
    SessionState.STOPPING: "it ends after the running trial",
    SessionState.STOPPED: "it has been stopped",
    SessionState.FINISHED: "it has finished",
    SessionState.FAILED: "it has failed",
    SessionState.ABORTING: "it is being aborted",
    SessionState.ABORTED: "it has been aborted",
    SessionState.ELSEWHERE: "another process runs this study, and only that one can steer it",
}


def why_not(action: Action, state: SessionState | None) -> str:
    """Why an action cannot be had in a state.

    Parameters
    ----------
    action : str
        One that is not among those of the state.
    state : SessionState or None
        ``None`` where there is no session yet.
    """
    if state is None:
        return "no study has been started or attached here yet"
    if action == "resume" and state is SessionState.RUNNING:
        return "it is not paused"
    if action == "pause" and state is SessionState.PAUSED:
        return "it is paused already"
    if action in ("pause", "resume", "stop", "abort") and not state.is_active:
        return f"nothing runs: {_DOING[state]}"
    return _DOING[state]
