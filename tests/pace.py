"""How long something takes, in units of this machine: tests must not depend on how fast it is or how busy."""

from __future__ import annotations

import time
from collections.abc import Callable

from glmlab.recipe import Recipe

_BODY = {"name": "pace", "model": "tiny/glm4-moe", "max_model_len": 4096, "block_size": 32}


def in_recipes(work: Callable[[], object], *, best_of: int = 3) -> float:
    """CPU time of ``work`` over that of reading one small recipe, some 13 µs on a server core.

    Parameters
    ----------
    work : callable
        Run ``best_of`` times; the quickest counts, of the recipe too.
    """
    recipe = min(_seconds(lambda: [Recipe.parse(_BODY) for _ in range(100)]) for _ in range(best_of)) / 100
    return min(_seconds(work) for _ in range(best_of)) / recipe


def _seconds(work: Callable[[], object]) -> float:
    begin = time.process_time()
    work()
    return time.process_time() - begin
