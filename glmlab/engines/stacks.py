"""Where the processes of an engine are stuck: each is asked for its stacks; who does not answer is named."""

from __future__ import annotations

import contextlib
import os
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import psutil

from glmlab.live.stack_dump import STACKS_SIGNAL

_ANSWER_S = 2.0
_FRAME = re.compile(r'\s+File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<name>\S+)')
_LOOP, _QUEUE = "worker_busy_loop", "dequeue"  # of vLLM's workers: there they take what they are to do
_SHOWN = 12  # frames of the main thread that are worth reading


@dataclass(frozen=True)
class Stack:
    """Where one process is.

    Attributes
    ----------
    name : str
        As the process calls itself, e.g. ``VLLM::Worker_TP1``.
    frames : tuple of str
        ``function (file:line)`` of its main thread, innermost first; empty where it did not answer.
    """

    pid: int
    name: str
    frames: tuple[str, ...]

    @property
    def where(self) -> str:
        """In a few words."""
        names = [frame.partition(" ")[0] for frame in self.frames]
        if _LOOP in names and _QUEUE in names[: names.index(_LOOP)]:
            return "waits for its next call"
        return f"in {self.frames[0]}" if self.frames else "does not answer"

    def __str__(self) -> str:
        lines = [f"{self.name} (process {self.pid}) {self.where}"]
        return "\n".join([*lines, *(f"  from {frame}" for frame in self.frames[1:_SHOWN])])


def stacks_folder(log_path: Path) -> Path:
    """Where the processes of the engine with this log write their stacks."""
    return log_path.with_suffix(".stacks").absolute()


def collect_stacks(pids: Iterable[int], folder: Path) -> list[Stack]:
    """Ask processes where they are.

    Parameters
    ----------
    pids : iterable of int
        Processes of one engine.
    folder : Path
        Where those that can answer have a file; the others, e.g. vLLM's resource trackers, are left out.
    """
    asked = []
    for pid in pids:
        path = folder / f"{pid}.txt"
        if not path.exists():
            continue  # the signal would end a process that has no handler for it
        with contextlib.suppress(ProcessLookupError):
            asked.append((pid, path, path.stat().st_size))
            os.kill(pid, STACKS_SIGNAL)
    deadline = time.monotonic() + _ANSWER_S
    while time.monotonic() < deadline and any(path.stat().st_size == size for _, path, size in asked):
        time.sleep(0.05)
    time.sleep(0.1)  # the last lines of who has begun
    return [Stack(pid, _name(pid), _frames(path, size)) for pid, path, size in asked]


def _frames(path: Path, begin: int) -> tuple[str, ...]:
    """Frames of the main thread, which faulthandler writes last."""
    text = path.read_bytes()[begin:].decode(errors="replace")
    threads = re.split(r"(?m)^(?:Current thread|Thread) ", text)[1:]
    if not threads:
        return ()
    found = [_FRAME.match(line) for line in threads[-1].splitlines()]
    return tuple(f"{m['name']} ({Path(m['file']).name}:{m['line']})" for m in found if m)


def _name(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        title = " ".join(psutil.Process(pid).cmdline()).strip()
        if title.startswith("VLLM"):
            return title.split()[0]
    return "engine"
