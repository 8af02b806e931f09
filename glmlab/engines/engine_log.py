"""The output of a child engine: where it goes, and what of it is worth showing."""

from __future__ import annotations

import itertools
import os
import re
import time
from pathlib import Path

from platformdirs import user_cache_path

_KEPT = 50  # log files; older ones are removed
_serial = itertools.count(1)
_ERROR = re.compile(r"^(?:\([^)]*\)\s*)?(?:\[rank\d+\]:\s*)?((?:[A-Za-z_.]+)?(?:Error|Exception)\b.*)")
_PREFIX = re.compile(r"^\([^)]*\)\s*")


def log_folder() -> Path:
    """Folder of engine logs; ``GLMLAB_LOGS`` overrides the user's cache folder."""
    named = os.environ.get("GLMLAB_LOGS")
    return Path(named) if named else user_cache_path("glmlab") / "logs"


def new_log_path(name: str) -> Path:
    """A file that no other engine writes; the oldest logs go."""
    folder = log_folder()
    if folder.is_dir():
        for old in sorted(folder.glob("*.log"), key=_modified)[: -_KEPT + 1]:
            old.unlink(missing_ok=True)
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return folder / f"{name}-{stamp}-{os.getpid()}-{next(_serial)}.log"


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def tail(path: Path, lines: int = 25) -> str:
    """The last lines of a log, empty where there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(0, path.stat().st_size - 64_000))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def problem_line(path: Path) -> str:
    """The last line that names an exception, without vLLM's process prefix; empty without one."""
    for line in reversed(tail(path, 400).splitlines()):
        if found := _ERROR.match(line.strip()):
            return _PREFIX.sub("", found.group(1))[:300]
    return ""
