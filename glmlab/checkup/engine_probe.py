"""Ask the installed vLLM, in a process of its own, what glmlab could change in it live."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from glmlab.errors import EngineDiedError, EngineStartError

PROBE_COMMAND = (sys.executable, "-m", "glmlab.live.seams")
PROBE_TIMEOUT_S = 120.0
_TAIL_LINES = 20


class KnobProbe(BaseModel):
    """Whether the installed vLLM has the seam that a live knob needs, and why not."""

    model_config = ConfigDict(frozen=True)

    live: bool
    why: str = ""


class EngineProbe(BaseModel):
    """What the installed vLLM says of itself.

    Attributes
    ----------
    vllm : str
        Version, as the imported module gives it.
    device : str
        ``cpu``, or the name of the GPU that it would use.
    knobs : dict
        Live knob -> whether it can be live. A running engine is probed again, for its own model.
    """

    model_config = ConfigDict(frozen=True)

    vllm: str
    device: str
    knobs: dict[str, KnobProbe]


def probe_engine(command: Sequence[str] = PROBE_COMMAND, timeout_s: float = PROBE_TIMEOUT_S) -> EngineProbe:
    """Import vLLM in a child and report what it finds.

    Parameters
    ----------
    command : sequence of str
        What to run; it prints one JSON object as its last line.
    timeout_s : float
        The child, with all that it started, is killed after that.

    Raises
    ------
    EngineDiedError
        If it did not answer in time.
    EngineStartError
        If it failed, or printed something else; the message ends with its last line of stderr.
    """
    child = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        errors="replace",
        env=_environment(),
        # A group of its own: vLLM starts helpers, which would hold the pipes open after a kill.
        start_new_session=True,
    )
    try:
        output, log = child.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise EngineDiedError(f"importing vLLM took more than {timeout_s:g} s and was stopped") from None
    finally:
        _kill_group(child)
    tail = "\n".join(log.splitlines()[-_TAIL_LINES:])
    if child.returncode != 0:
        raise EngineStartError(
            f"vLLM cannot be imported: {_last_line(log) or f'exit status {child.returncode}'}", tail
        )
    try:
        return EngineProbe.model_validate_json(_last_line(output))
    except ValidationError:
        raise EngineStartError(
            f"the probe of vLLM printed no report, its last line is {_last_line(output)[:80]!r}", tail
        ) from None


def _kill_group(child: subprocess.Popen[str]) -> None:
    """End the child and all below it, unless it has ended and was collected."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.communicate()


def _environment() -> dict[str, str]:
    """Let the child import this glmlab where it is only on the caller's path, not installed."""
    environment = dict(os.environ)
    root = Path(__file__).parents[1]
    # An installed one needs no help, and site-packages on PYTHONPATH could hide standard modules.
    if root.name not in ("site-packages", "dist-packages"):
        known = environment.get("PYTHONPATH")
        environment["PYTHONPATH"] = os.pathsep.join([str(root), *([known] if known else [])])
    return environment


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
