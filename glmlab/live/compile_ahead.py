"""Compile what a change would launch, all of it at once, before anything of the engine is touched.

A new value of a knob is a new constant of several kernels, and Triton compiles each of them for each
kind of batch: one sequence, a multiple of 16, any other number. Compiled where they are launched first,
inside the captures, they would follow one after another. Triton lets go of the interpreter in its
passes, in LLVM and in ptxas, which are most of its time, so threads are enough.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from glmlab.live.error_line import error_line

_MOST_THREADS = 16


@dataclass(frozen=True)
class Attempt:
    """One kernel to be compiled.

    Parameters
    ----------
    what : str
        The setting, for the message.
    compile : callable
        Gives a compiled kernel, or ``None`` where there is nothing to compile.
    """

    what: str
    compile: Callable[[], Any]


def refuse_what_cannot_run(attempts: Iterable[Attempt], limits: Mapping[str, int]) -> None:
    """Compile all, and hold each against the device's limits.

    What was compiled stays in Triton's caches, so the launches themselves will not compile again.

    Parameters
    ----------
    attempts : iterable of Attempt
        In the order in which a refusal is looked for.
    limits : mapping
        As :func:`device_limits` gives them.

    Raises
    ------
    ValueError
        In one line, for the first that does not compile or could not be launched.
    """
    attempts = list(attempts)
    for attempt, done in zip(attempts, _compiled(attempts), strict=True):
        try:
            kernel = done.result()
        except Exception as error:  # Triton raises many kinds, MLIR's PassManager plain RuntimeErrors
            raise ValueError(f"{attempt.what}: the kernel does not compile: {error_line(error)}") from error
        if kernel is None:
            continue
        needs = int(kernel.metadata.shared)
        allowed = limits["shared_memory_bytes"]
        if needs > allowed:
            raise ValueError(
                f"{attempt.what}: the kernel needs {needs:,} bytes of shared memory, a block of this GPU has"
                f" {allowed:,}; take a smaller tile or fewer stages"
            )


def _compiled(attempts: list[Attempt]) -> list[Future[Any]]:
    """All of them, done; threads see the device that the caller sees."""
    import torch

    def same_device() -> None:
        if device is not None:
            torch.cuda.set_device(device)  # of a thread: Triton compiles for the current one

    device = torch.cuda.current_device() if torch.cuda.is_available() else None
    threads = max(1, min(len(attempts), _MOST_THREADS, len(os.sched_getaffinity(0))))
    with ThreadPoolExecutor(threads, "glmlab-compile", initializer=same_device) as pool:
        return [pool.submit(attempt.compile) for attempt in attempts]


def device_limits(device: Any) -> dict[str, int]:
    """What one thread block of a CUDA device may take.

    Returns
    -------
    dict
        ``shared_memory_bytes`` (the opt-in limit: 101,376 on SM120, 232,448 on Hopper).
    """
    import torch

    properties = torch.cuda.get_device_properties(device)
    return {"shared_memory_bytes": int(properties.shared_memory_per_block_optin)}
