"""Where an engine to play with can live: a child process, this kernel, or a recording in its place."""

from __future__ import annotations

from pathlib import Path

from glmlab.engines import Engine, start
from glmlab.engines.engine_log import kernel_log_path, new_log_path
from glmlab.engines.handle import EngineHandle
from glmlab.engines.replay import ReplayEngine
from glmlab.errors import RecipeError
from glmlab.memory import known_model
from glmlab.recipe import Recipe
from glmlab.recorded import list_recordings, read_header, recording_path
from glmlab.workload import Workload

CHILD, KERNEL = "child", "kernel"
_CONTEXTS = (256, 1024, 4096, 16_384)
_SPARE_TOKENS = 64  # for the output, and the further steps that the profiler watches


def places() -> list[tuple[str, str]]:
    """What a user can choose, each with its key: a home, or the name of a recording."""
    return [
        ("vLLM in a process of its own, which can be killed", CHILD),
        ("vLLM in this kernel", KERNEL),
        *((f"recording {name} (replayed, no engine)", name) for name in list_recordings()),
    ]


def is_recording(place: str) -> bool:
    """Whether a place is a recording rather than a home."""
    return place not in (CHILD, KERNEL)


def start_engine(recipe: Recipe, place: str, log_path: Path | None, handle: EngineHandle) -> Engine:
    """Start an engine at a place.

    Parameters
    ----------
    recipe : Recipe
        What to run; a recording has its own.
    place : str
        A key of :func:`places`.
    log_path : Path or None
        Where its output goes.
    handle : EngineHandle
        By which it can be ended while it starts.
    """
    if is_recording(place):
        return ReplayEngine(place, handle=handle)
    return start(recipe, home="kernel" if place == KERNEL else "child", log_path=log_path, handle=handle)


def log_path_for(recipe: Recipe, place: str) -> Path | None:
    """The file that an engine will log to, none for a recording; in a kernel the first engine decides."""
    if is_recording(place):
        return None
    return kernel_log_path() if place == KERNEL else new_log_path(recipe.name)


def recipe_at(recipe: Recipe, place: str) -> Recipe:
    """What would run at a place: a recording's own recipe, else the one that was asked for."""
    return read_header(recording_path(place)).recipe if is_recording(place) else recipe


def first_workload(recipe: Recipe, place: str) -> Workload:
    """A workload that a place can answer within seconds: what was recorded, or contexts that fit.

    Parameters
    ----------
    recipe : Recipe
        What is to run.
    place : str
        Where.
    """
    if is_recording(place):
        return read_header(recording_path(place)).workload
    limit = recipe.max_model_len
    if limit is None:
        try:
            limit = known_model(recipe.model).max_model_len
        except RecipeError:  # its sizes are not known
            limit = _CONTEXTS[1]
    fitting = tuple(context for context in _CONTEXTS if context + _SPARE_TOKENS <= limit)
    return Workload(contexts=fitting or (max(1, limit - _SPARE_TOKENS),), batch_sizes=(1,), new_tokens=32)
