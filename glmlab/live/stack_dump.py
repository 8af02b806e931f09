"""Every engine process can be asked where it is: on a signal it writes its stacks, whatever it is stuck in.

Python's faulthandler answers from the signal handler itself, so that a thread which waits in NCCL or in a
kernel launch for ever is seen as well.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
from pathlib import Path
from typing import IO

STACKS_VARIABLE = "GLMLAB_STACKS"  # folder of the files; set by a child home for all below it
STACKS_SIGNAL = signal.SIGUSR2

_answers: tuple[Path, IO[str]] | None = None  # faulthandler writes to it later: it must stay open


def answer_with_stacks() -> None:
    """Have this process write its stacks to a file of its own when it is asked; safe to call again."""
    global _answers  # noqa: PLW0603 (one per process, as the signal's handler is)
    folder = os.environ.get(STACKS_VARIABLE)
    if not folder:
        return
    path = _path(folder, os.getpid())
    if _answers is not None and _answers[0] == path:
        return
    # Without it an engine runs as well: a full disk is no reason not to.
    with contextlib.suppress(OSError):
        made = path.with_suffix(".new")
        file = made.open("w", encoding="utf-8")
        faulthandler.register(STACKS_SIGNAL, file=file, all_threads=True, chain=False)
        _answers = path, file
        made.replace(path)  # last: who has such a file is asked, and the signal ends one without a handler


def _path(folder: str, pid: int) -> Path:
    return Path(folder) / f"{pid}.txt"
