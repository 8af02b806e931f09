"""Sessions: studies that run in the background, with a wheel."""

from __future__ import annotations

from glmlab.session.attaching import attach
from glmlab.session.events import Event, EventKind
from glmlab.session.session import Session
from glmlab.session.state import Action, SessionState, SessionStatus

__all__ = ["Action", "Event", "EventKind", "Session", "SessionState", "SessionStatus", "attach"]
