"""The ``vllm.general_plugins`` entry point: how glmlab's code reaches every vLLM process.

vLLM calls :func:`register` in the front end, in the engine core and in each worker, before the
model is built. It is safe to call again. A server that asked for no knob comes up whatever becomes
of glmlab; one that asked, and cannot have the knob, stops with the reason.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Mapping
from typing import Any

KNOBS_VARIABLE = "GLMLAB_KNOBS"  # JSON, knob -> value: how an exported bundle sets live knobs
HOME_VARIABLE = "GLMLAB_HOME_PID"  # set by a child home: its workers must not outlive it

_log = logging.getLogger("glmlab")
_PR_SET_PDEATHSIG = 1  # Linux prctl(2)


def register() -> None:
    """Register the load format, tie a worker's life to its engine's, force the knobs asked for."""
    from glmlab.live import forced
    from glmlab.live.stack_dump import answer_with_stacks

    _die_with_home()
    answer_with_stacks()
    knobs = start_knobs(os.environ.get(KNOBS_VARIABLE, ""))
    # A later engine of this process starts from vLLM's own choices again.
    forced.reset(knobs or {})
    if knobs is None:
        # Not glmlab's engine, and no bundle's either: vLLM stays as it is, whatever becomes of us.
        try:
            _register_loader()
        except Exception:  # noqa: BLE001  a server that is not ours must come up
            _log.exception("glmlab: load_format glmlab_random is not to be had")
        return
    _register_loader()
    _install(knobs)
    if knobs:
        _log.warning("glmlab: knobs in force from the start: %s", json.dumps(knobs))


def _register_loader() -> None:
    from glmlab.live.random_weights import register_loader

    register_loader()


def _install(knobs: Mapping[str, Any]) -> None:
    """Put every watch in place before the model is built, so that no launch goes unseen.

    Raises
    ------
    ValueError
        For a knob that is not set at start.
    RuntimeError
        If a knob that was asked for cannot be had from this vLLM: a server must not run without it
        and say nothing.
    """
    reasons: dict[str, list[str]] = {}
    for names, install, forget in _parts():
        reason = install()
        if not reason:
            forget()
        for name in names:
            reasons.setdefault(name, []).append(reason)
    for name in knobs:
        if name not in reasons:
            raise ValueError(f"{KNOBS_VARIABLE}: {name} is no knob that glmlab sets at start here")
        if all(reasons[name]):
            raise RuntimeError(f"{KNOBS_VARIABLE}: {name} cannot be had: {'; '.join(reasons[name])}")


def _parts() -> list[tuple[tuple[str, ...], Callable[[], str], Callable[[], None]]]:
    """Knobs, and what installs the watches that they need on this platform, and empties them."""
    from vllm.platforms import current_platform

    from glmlab.live import (
        cpu_attention,
        flash_attention,
        fp8_gemm_tiles,
        moe_tiles,
        triton_attention,
        triton_mla,
    )

    if current_platform.is_cpu():
        return [(cpu_attention.CpuAttention.KNOBS, cpu_attention.install, cpu_attention.forget)]
    return [
        (triton_attention.TritonAttention.KNOBS, triton_attention.install, triton_attention.forget),
        (triton_mla.TritonMla.KNOBS, triton_mla.install, triton_mla.forget),
        ((), flash_attention.install, flash_attention.forget),  # the knob is vLLM's own argument
        (moe_tiles.MoeTiles.KNOBS, moe_tiles.install, moe_tiles.forget),
        (fp8_gemm_tiles.Fp8GemmTiles.KNOBS, fp8_gemm_tiles.install, fp8_gemm_tiles.forget),
    ]


def start_knobs(text: str) -> dict[str, Any] | None:
    """Read the variable; ``None`` where it says nothing.

    Raises
    ------
    ValueError
        If the variable is set but is not a JSON object.
    """
    if not text:
        return None
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
