"""Engines: things that run a Recipe. :func:`start` is the way to one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from glmlab.engines.base import (
    ApplyReport,
    Engine,
    EngineState,
    KnobStatus,
    StartReport,
    WorkerState,
)
from glmlab.engines.handle import EngineHandle
from glmlab.errors import InputError
from glmlab.recipe import Recipe

Home = Literal["kernel", "child"]

__all__ = [
    "ApplyReport",
    "Engine",
    "EngineHandle",
    "EngineState",
    "Home",
    "KnobStatus",
    "StartReport",
    "WorkerState",
    "start",
]


def start(
    recipe: Recipe | str | Path | Mapping[str, Any],
    *,
    home: Home = "child",
    ceilings: Mapping[str, int] | None = None,
    start_timeout_s: float = 1800.0,
    log_path: str | Path | None = None,
    handle: EngineHandle | None = None,
) -> Engine:
    """Start a real vLLM engine.

    Parameters
    ----------
    recipe : Recipe, str, Path or mapping
        A recipe, the name of one, a recipe file, or its keys and values.
    home : {"child", "kernel"}
        ``child``: in a process of its own, which can be killed and gives all memory back.
        ``kernel``: in this very process, for playing with the engine directly.
    ceilings : mapping, optional
        ``max_num_seqs`` or ``max_num_batched_tokens`` to start with, above the recipe's, so that
        they can be moved live below that.
    start_timeout_s : float
        A child that is not up by then is killed.
    log_path : str or Path, optional
        Where the engine's output goes; a file in the user's cache folder by default. In a kernel
        the first engine decides for all.
    handle : EngineHandle, optional
        For ending the engine from another thread: a child at any moment, even while it starts; one
        in a kernel at its next step.

    Returns
    -------
    Engine
        To be closed, best as a context manager.

    Raises
    ------
    InputError
        For a recipe that cannot be, or an installation that cannot run it; nothing was started.
    EngineStartError
        If vLLM did not come up, with the tail of its log.
    """
    from glmlab.recipe_book import find_recipe
    from glmlab.vllm_install import installed_vllm

    found = find_recipe(recipe)
    if found.serving_engine != "vllm":
        raise InputError(
            f"serving_engine = {found.serving_engine!r}: this recipe is there to be checked and compared;"
            " glmlab starts vLLM only, so take one with serving_engine: vllm"
        )
    if installed_vllm().for_cpu:
        from glmlab.engines.room_here import check_room

        check_room(found)
    if home == "kernel":
        from glmlab.engines.engine_log import kernel_log_path
        from glmlab.engines.vllm_engine import VllmEngine

        path = Path(log_path) if log_path else kernel_log_path()
        return VllmEngine(found, ceilings=ceilings, log_path=path, handle=handle)
    if home == "child":
        from glmlab.engines.child import ChildEngine

        return ChildEngine(
            found,
            ceilings=ceilings,
            start_timeout_s=start_timeout_s,
            log_path=Path(log_path) if log_path else None,
            handle=handle,
        )
    raise InputError(f"home = {home!r}: expected 'child' or 'kernel'")
