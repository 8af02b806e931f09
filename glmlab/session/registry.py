"""The sessions of this process, by study: a view finds its session again, and no study runs twice."""

from __future__ import annotations

import atexit
import logging
import threading
import weakref
from typing import TYPE_CHECKING

from glmlab.errors import SessionError
from glmlab.storage_url import file_of, shown

if TYPE_CHECKING:
    from glmlab.session.session import Session

_log = logging.getLogger(__name__)
_guard = threading.Lock()
_sessions: weakref.WeakValueDictionary[tuple[str, str], Session] = weakref.WeakValueDictionary()


def claim(session: Session) -> None:
    """Make a session that of its study.

    Raises
    ------
    SessionError
        If another one of this process runs it.
    """
    key = _key(session.name, session.storage)
    with _guard:
        other = _sessions.get(key)
        if other is not None and other is not session and other.is_active:
            raise SessionError(
                f"study {session.name!r} runs in this process already: glmlab.attach({session.name!r},"
                f" {shown(session.storage)!r}) gives its session"
            )
        _sessions[key] = session


def living(name: str, storage: str) -> Session | None:
    """The session of a study in this process, if there is one."""
    with _guard:
        return _sessions.get(_key(name, storage))


def forget(session: Session) -> None:
    """A session that is closed is not given out again."""
    key = _key(session.name, session.storage)
    with _guard:
        if _sessions.get(key) is session:
            del _sessions[key]


def _key(name: str, storage: str) -> tuple[str, str]:
    path = file_of(storage)
    return name, storage if path is None else str(path.resolve())


@atexit.register
def _close_all() -> None:
    """An interpreter that ends leaves no engine behind."""
    for session in list(_sessions.values()):
        if session.is_active:
            try:
                session.close()
            except Exception:  # noqa: BLE001 (the others have engines too)
                _log.exception("study %s could not be closed", session.name)
