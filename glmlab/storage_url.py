"""Storage URLs: the file behind one, how it may be shown, and what other tools call it."""

from __future__ import annotations

import re
from pathlib import Path

from sqlalchemy.engine.url import make_url
from sqlalchemy.exc import SQLAlchemyError

from glmlab.errors import StorageError

_JOURNAL = "journal://"
_PASSWORD = re.compile(r"(?<=://)([^:/@]*):.*@")  # up to the last @
_QUERY_SECRET = re.compile(r"([?&][^=&]*(?:pass|pwd|secret|token|key)[^=&]*=)[^&]*", re.IGNORECASE)


def file_of(url: str) -> Path | None:
    """The file behind a URL; ``None`` for a server.

    Raises
    ------
    StorageError
        If it is no URL, or one of a database in memory.
    """
    if url.startswith(_JOURNAL):
        return Path(url.removeprefix(_JOURNAL))
    try:
        parsed = make_url(url)
    except (SQLAlchemyError, ValueError):
        raise StorageError(
            f"storage = {shown(url)!r}: is no URL; for example sqlite:///studies.db,"
            " journal://studies.log or postgresql://user@host/database"
        ) from None
    if parsed.get_backend_name() != "sqlite":
        return None
    if parsed.database in (None, "", ":memory:"):
        raise StorageError(f"storage = {url!r}: is in memory, so that a study would be lost; name a file")
    return Path(parsed.database)


def exists(url: str) -> bool:
    """Whether there is something to read; of a server that is not known."""
    path = file_of(url)
    return path is None or path.exists()


def must_exist(url: str) -> None:
    """Refuse a storage of which it is known that it is not there.

    Raises
    ------
    StorageError
        In one line.
    """
    if not exists(url):
        raise StorageError(
            f"storage {shown(url)}: does not exist; run `glmlab tune` first, or name another storage"
        )


def shown(url: str) -> str:
    """A URL as it may be printed and stored elsewhere: without its password.

    Nothing is taken apart for it: a password with an @ in it, or a URL that is wrong, is hidden too.
    """
    return _QUERY_SECRET.sub(r"\1***", _PASSWORD.sub(r"\1:***@", url))


def from_anywhere(url: str) -> str:
    """The same storage for a process that stands in another folder, password included.

    Of a journal this is its file alone: the scheme ``journal://`` is glmlab's, Optuna's own tools take
    the path.
    """
    path = file_of(url)
    if path is None:
        return url
    whole = Path(path).absolute()
    if url.startswith(_JOURNAL):
        return str(whole)
    return make_url(url).set(database=str(whole)).render_as_string(hide_password=False)
