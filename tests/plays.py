"""Play for tests: engines in which happens what a test wants, and a user's clicks."""

from __future__ import annotations

from pathlib import Path

from glmlab.engines.handle import EngineHandle
from glmlab.errors import EngineStartError
from glmlab.recipe import Recipe
from glmlab.widgets.look import is_shown
from glmlab.widgets.play import Play
from tests.doubles import ScriptedEngine, scripted_start

RECIPE = Recipe(
    name="unit", model="tiny/glm4-moe", max_num_seqs=8, max_num_batched_tokens=1024, max_model_len=1200
)
RECORDING = "h100-glm-4.7-tp4-splits"


class Starts:
    """Engines for a player: doubles, with what a test wants to happen in them."""

    def __init__(self, script: scripted_start | None = None, *, pids=(), during=None, closing=None) -> None:
        self.script = script or scripted_start(lambda knobs: 10.0 if knobs["cpu_split_kv"] else 8.0)
        self.pids, self.during, self.closing = pids, during or {}, closing
        self.handles: list[EngineHandle] = []
        self.places: list[str] = []

    def __call__(self, recipe: Recipe, place: str, log_path: Path | None, handle: EngineHandle):
        self.handles.append(handle)
        self.places.append(place)
        self.reach("start", handle)
        if reason := self.script.start_fails(recipe):
            raise EngineStartError(reason, log_tail="the last line of the log")
        engine = HandledEngine(recipe, self.script, {})
        engine.starts, engine.handle, engine.pids = self, handle, self.pids
        return engine

    def reach(self, what: str, handle: EngineHandle) -> None:
        if what in self.during:
            self.during[what](handle)
        handle.check()


class HandledEngine(ScriptedEngine):
    starts: Starts
    handle: EngineHandle

    def measure(self, workload):
        self.starts.reach("measure", self.handle)
        return super().measure(workload)

    def close(self):
        if self.starts.closing is not None:
            self.starts.closing(self.handle)
        super().close()


def start(play: Play) -> None:
    play.engine.start.click()
    play.wait(60)


def apply(play: Play, **choices) -> None:
    for name, value in choices.items():
        row = play._rows[name]
        (row.choice if row._is_list else row.entry).value = value
    play.apply.click()
    play.wait(60)


def line(play: Play) -> str:
    return str(play.engine._line.value)


def bench_is_shown(play: Play) -> bool:
    return is_shown(play._bench)
