"""One run per study: a lock file beside the storage, which goes with the process that holds it."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout
from platformdirs import user_cache_path

from glmlab.errors import StorageError
from glmlab.storage_url import exists, file_of, shown

_LOOKED_AT_S = 0.3  # one who looks whether it is held has it for a moment


def is_held(name: str, url: str) -> bool:
    """Whether a run holds a study now, in this process or another; writes nothing."""
    try:
        with _lock_path(name, url).open("rb") as file:
            # Shared, and on a file that need not be writable: one who looks holds nothing against another.
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is no such file, or it cannot be told: a run would say so
        return False
    return False


@contextlib.contextmanager
def study_lock(name: str, url: str) -> Iterator[None]:
    """Hold a study for this process; the lock goes with the process, however it ends.

    Raises
    ------
    StorageError
        If another run holds it.
    """
    path = _lock_path(name, url)
    lock = FileLock(path, timeout=_LOOKED_AT_S)
    try:
        lock.acquire()
    except Timeout:
        if not path.exists():  # filelock takes a folder that refuses files for one that is held
            raise StorageError(
                f"study {name!r} in {shown(url)}: the folder {path.parent} cannot be written"
            ) from None
        raise StorageError(
            f"study {name!r} in {shown(url)}: another run holds it (lock {path.name}); wait for it or stop it"
        ) from None
    except OSError as error:
        raise StorageError(f"study {name!r} in {shown(url)}: cannot be locked ({error.strerror})") from None
    try:
        yield
    finally:
        # The file stays beside a study, since removing it could take the lock of one who has just
        # got it; but a run that was refused leaves nothing behind.
        if not exists(url):
            path.unlink(missing_ok=True)
        lock.release()


def _lock_path(name: str, url: str) -> Path:
    path = file_of(url)
    if path is not None:
        return path.with_name(f".{path.name}.{name}.lock")
    folder = user_cache_path("glmlab") / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return folder / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}.{name}.lock"
