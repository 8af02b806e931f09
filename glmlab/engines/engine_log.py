"""The output of an engine: where it goes, and what of it is worth showing."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import logging
import os
import re
import shutil
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from platformdirs import user_cache_path

from glmlab.engines.stacks import stacks_folder

_KEPT = 50  # log files; older ones are removed
_serial = itertools.count(1)
_ERROR = re.compile(r"^(?:\([^)]*\)\s*)?(?:\[rank\d+\]:\s*)?((?:[A-Za-z_.]+)?(?:Error|Exception)\b.*)")
_DEAD_WORKER = re.compile(r"Worker proc (\S+) died unexpectedly(?: \(exit code: (-?\d+)\))?")
_OF_DEVICE = re.compile(r"((?:CUDA|NCCL|HIP) error: .*)")
_LAST_WORDS = 60  # lines before a death in which its cause is looked for
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
            shutil.rmtree(stacks_folder(old), ignore_errors=True)  # of a driver that was killed
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return folder / f"{name}-{stamp}-{os.getpid()}-{next(_serial)}.log"


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def tail(path: Path, lines: int = 25, *, since: int = 0) -> str:
    """The last lines of a log from a byte on, empty where there is none."""
    try:
        with path.open("rb") as log:
            log.seek(max(since, path.stat().st_size - 64_000))
            return "\n".join(log.read().decode(errors="replace").splitlines()[-lines:])
    except OSError:
        return ""


def problem_line(path: Path) -> str:
    """The last line that names an exception, without vLLM's process prefix; empty without one."""
    for line in reversed(tail(path, 400).splitlines()):
        if found := _ERROR.match(line.strip()):
            return _PREFIX.sub("", found.group(1))[:300]
    return ""


def worker_death(path: Path, since: int = 0) -> str:
    """Which worker of vLLM died first, and of what, as far as the log says; empty if none did.

    Its engine only learns that an answer will not come, and says "cancelled". What others say after a
    death is its consequence, and a worker that was killed by a signal has no cause of its own to tell.

    Parameters
    ----------
    path : Path
        The log.
    since : int
        Its size in bytes when the engine started: engines of one process share a log.
    """
    lines = tail(path, 400, since=since).splitlines()
    deaths = ((index, found) for index, line in enumerate(lines) if (found := _DEAD_WORKER.search(line)))
    index, dead = next(deaths, (0, None))
    if dead is None:
        return ""
    if dead[2] and int(dead[2]) < 0:
        return f"{dead[1]} was killed by signal {-int(dead[2])}"
    how = f" with exit code {dead[2]}" if dead[2] else ""
    before = lines[max(0, index - _LAST_WORDS) : index]
    cause = next((found[1].strip() for line in before if (found := _OF_DEVICE.search(line))), "")
    return f"{dead[1]} died{how}" + (f": {cause[:300]}" if cause else "")


@functools.cache
def kernel_log_path() -> Path:
    """The file for all engines of this very process: some vLLM settle only once where they log."""
    return new_log_path("kernel")


@contextlib.contextmanager
def vllm_log_in(path: Path) -> Iterator[dict[str, str]]:
    """While an engine starts in this process: send what vLLM and its imports say to a file.

    Yields
    ------
    dict
        Variables to start with, which take vLLM's workers along. vLLM's log stays where it is for
        whoever has set it up in the environment.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    own = os.environ.get("VLLM_LOGGING_CONFIG_PATH") or os.environ.get("VLLM_CONFIGURE_LOGGING") == "0"
    log = logging.getLogger("vllm")
    early = logging.FileHandler(path, delay=True)  # until vLLM has read the configuration
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        configuration = Path(folder) / "logging.json"
        configuration.write_text(json.dumps(_configuration(path)), encoding="utf-8")
        warnings.showwarning = lambda message, category, *_, **__: log.warning(
            "%s: %s", category.__name__, message
        )
        log.addHandler(early)
        try:
            variables = {"TORCH_CPP_LOG_LEVEL": os.environ.get("TORCH_CPP_LOG_LEVEL", "ERROR")}
            if not own:
                variables["VLLM_LOGGING_CONFIG_PATH"] = str(configuration)
            yield variables
        finally:
            log.removeHandler(early)
            early.close()


def _configuration(path: Path) -> dict[str, Any]:
    """For logging.config.dictConfig, which is what vLLM takes."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"plain": {"format": "%(levelname)s %(asctime)s %(process)d %(name)s: %(message)s"}},
        "handlers": {
            "file": {
                "class": "logging.FileHandler",
                "filename": str(path.absolute()),
                "formatter": "plain",
            }
        },
        "loggers": {
            "vllm": {
                "handlers": ["file"],
                "level": os.environ.get("VLLM_LOGGING_LEVEL", "INFO").upper(),
                "propagate": False,
            }
        },
    }
