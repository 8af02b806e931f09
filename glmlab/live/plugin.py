"""The ``vllm.general_plugins`` entry point: how glmlab's code reaches every vLLM process.

vLLM calls :func:`register` in the front end, in the engine core and in each worker, before the
model is built. It must be safe to call again and must never take vLLM down with it.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
from typing import Any

KNOBS_VARIABLE = "GLMLAB_KNOBS"  # JSON, knob -> value: how an exported bundle sets live knobs
HOME_VARIABLE = "GLMLAB_HOME_PID"  # set by a child home: its workers must not outlive it

_log = logging.getLogger("glmlab")
_PR_SET_PDEATHSIG = 1  # Linux prctl(2)


def register() -> None:
    """Register the load format, tie a worker's life to its engine's, force a bundle's knobs."""
    from glmlab.live.random_weights import register_loader

    _die_with_home()
    register_loader()
    if knobs := start_knobs():
        from glmlab.live import cpu_attention

        unknown = sorted(set(knobs) - set(cpu_attention.KNOBS))
        if unknown:
            raise ValueError(f"{KNOBS_VARIABLE}: {unknown[0]} is no knob that glmlab sets at start")
        cpu_attention.force_at_start(knobs)
        _log.warning("glmlab: knobs in force from the start: %s", json.dumps(knobs))


def start_knobs() -> dict[str, Any]:
    """Knobs that the environment asks for, empty without.

    Raises
    ------
    ValueError
        If the variable is set but is not a JSON object.
    """
    text = os.environ.get(KNOBS_VARIABLE, "")
    if not text:
        return {}
    try:
        knobs = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{KNOBS_VARIABLE} = {text!r}: is not JSON ({error})") from None
    if not isinstance(knobs, dict):
        raise ValueError(f"{KNOBS_VARIABLE} = {text!r}: expected a JSON object of knob: value")
    return knobs


def _die_with_home() -> None:
    """Have the kernel kill this worker when the process that started it is gone.

    Only below a child home, which starts its workers from its main thread: the signal is sent when
    the starting *thread* ends, and a notebook may start engines from threads that end sooner.
    """
    home = os.environ.get(HOME_VARIABLE)
    if home and sys.platform == "linux" and home != str(os.getpid()):
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
