"""Keep one engine alive for a study; rebuild it only when the plan changes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from glmlab.engines import Engine
from glmlab.engines.handle import EngineHandle
from glmlab.errors import EngineError, GraphsLostError
from glmlab.knob_table import KNOBS
from glmlab.recipe import Recipe

StartEngine = Callable[[Recipe, Mapping[str, int]], Engine]

_LIVE = tuple(name for name, knob in KNOBS.items() if knob.reach == "live")


@dataclass(frozen=True)
class Ready:
    """An engine in the state that was asked for, and what that cost."""

    engine: Engine
    rebuild_s: float
    apply_s: float
    notes: list[str]


class EngineKeeper:
    """Holds at most one engine.

    Parameters
    ----------
    start : callable
        Recipe and ceilings -> a started engine.
    ceilings : mapping
        Limits that every engine starts with, so that they can be lowered live.
    base : Recipe, optional
        Whose live knobs every engine starts with, before those of its trial are applied: a value
        that cannot be had then fails its own trial, not the start of a whole plan. As the recipe of
        the plan has them by default.
    handle : EngineHandle, optional
        What another thread ends the engine by.
    """

    def __init__(
        self,
        start: StartEngine,
        ceilings: Mapping[str, int],
        base: Recipe | None = None,
        handle: EngineHandle | None = None,
    ) -> None:
        self.handle = handle or EngineHandle()
        self._start = start
        self._ceilings = dict(ceilings)
        self._engine: Engine | None = None
        self._plan = ""
        self._base = base
        self._unbilled_s = 0.0  # of a start that no trial has been charged with yet
        self._ahead_s = 0.0  # of replayed engines that are closed

    def now(self) -> float:
        """The time by which trials are charged, in seconds.

        A replayed engine answers at once: what the recorded one took beyond that is added to the
        time on the wall, so that engines cost what they did and glmlab itself what it does here.
        """
        return time.perf_counter() + self._ahead_s + getattr(self._engine, "ahead_s", 0.0)

    def ready(self, recipe: Recipe, live: Mapping[str, Any]) -> Ready:
        """Bring an engine into the state of a recipe.

        Parameters
        ----------
        recipe : Recipe
            All of it, live knobs included.
        live : mapping
            Live knobs to hold, with their values.

        Raises
        ------
        GlmlabError
            As the engine raises it. An engine that may be broken is dropped.
        """
        plan = plan_key(recipe)
        rebuild_s, notes = 0.0, []
        self.handle.check()
        if self._engine is None or plan != self._plan:
            begin = self.now()
            self.close()
            self._engine = self._start(self._startable(recipe), self._ceilings)
            self._plan = plan
            rebuild_s = self.now() - begin
            notes = list(self._engine.started.notes)
        try:
            report = self._engine.apply(**live) if live else None
        except GraphsLostError as error:
            # The change cannot be had live in this engine: a new one is started with it.
            begin = self.now()
            self.close()
            self._engine, self._plan = self._start(recipe, self._ceilings), plan
            report = self._engine.apply(**live)
            rebuild_s += self.now() - begin
            notes = [*notes, *self._engine.started.notes, f"built a new engine, since {error}"]
        except EngineError:
            self.close_if_broken()
            raise
        rebuild_s, self._unbilled_s = rebuild_s + self._unbilled_s, 0.0
        return Ready(self._engine, rebuild_s, report.seconds if report else 0.0, notes)

    def _startable(self, recipe: Recipe) -> Recipe:
        """The recipe of a plan with the base's live knobs."""
        if self._base is None:
            return recipe
        live = {k: v for k, v in self._base.model_dump(exclude_unset=True).items() if k in _LIVE}
        plan = {k: v for k, v in recipe.model_dump(exclude_unset=True).items() if k not in _LIVE}
        return Recipe.parse({**plan, **live}, where="plan")

    def adopt(self, recipe: Recipe, *, unbilled_s: float) -> None:
        """Call the present engine that of ``recipe``, which says in full what vLLM chose.

        The seconds of its start are charged to the next trial.
        """
        self._plan = plan_key(recipe)
        self._unbilled_s = unbilled_s

    def is_live(self, recipe: Recipe) -> bool:
        """Whether a recipe needs no new engine."""
        return self._engine is not None and plan_key(recipe) == self._plan

    def close_if_broken(self) -> None:
        """After an engine's failure: keep it if it still answers, else drop it."""
        if self._engine is None:
            return
        try:
            self._engine.state()
        except EngineError:
            self.close()

    def close(self) -> None:
        """Close the engine, if there is one."""
        engine, self._engine = self._engine, None
        if engine is not None:
            engine.close()
            self._ahead_s += getattr(engine, "ahead_s", 0.0)


def plan_key(recipe: Recipe) -> str:
    """Fingerprint of what needs an engine of its own: the recipe without its live knobs."""
    fields = {k: v for k, v in recipe.model_dump(exclude_unset=True).items() if k not in _LIVE}
    return Recipe.parse(fields, where="plan").fingerprint
