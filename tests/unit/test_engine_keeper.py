"""The engine that a study keeps: built anew where a change cannot be had live."""

from __future__ import annotations

from typing import Any

import pytest

from glmlab.engine_keeper import EngineKeeper
from glmlab.engines.base import ApplyReport
from glmlab.errors import ApplyError, GraphsLostError
from glmlab.recipe import Recipe
from tests.doubles import ScriptedEngine, scripted_start
from tests.studies import RECIPE

BASE = Recipe.parse(RECIPE)


class Losing(ScriptedEngine):
    """Loses its CUDA graphs at its second change."""

    error: type[Exception] = GraphsLostError

    def apply(self, **knobs: Any) -> ApplyReport:
        if self._script.applied and self._script.running == 1 and len(self._script.starts) == 1:
            raise self.error("no memory for the graphs")
        return super().apply(**knobs)


class Starts(scripted_start):
    def __call__(self, recipe: Recipe, ceilings: Any) -> ScriptedEngine:
        self.starts.append(recipe)
        return Losing(recipe, self, ceilings)


@pytest.fixture
def starts() -> Starts:
    return Starts()


def test_graphs_that_are_lost_cost_a_new_engine_and_are_told(starts: Starts) -> None:
    keeper = EngineKeeper(starts, {})
    keeper.ready(BASE, {"cpu_split_kv": True})
    wanted = BASE.replace(cpu_split_kv=False)
    ready = keeper.ready(wanted, {"cpu_split_kv": False})
    assert starts.starts[-1] == wanted, "started with the value, so that graphs are captured with it"
    assert ready.engine.state().knobs["cpu_split_kv"] is False
    assert ready.rebuild_s > 0
    assert ready.notes == ["built a new engine, since no memory for the graphs"]
    assert starts.closes == 1


def test_a_change_that_merely_failed_keeps_the_engine(
    starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Losing, "error", ApplyError)
    keeper = EngineKeeper(starts, {})
    first = keeper.ready(BASE, {"cpu_split_kv": True}).engine
    with pytest.raises(ApplyError):
        keeper.ready(BASE.replace(cpu_split_kv=False), {"cpu_split_kv": False})
    assert len(starts.starts) == 1
    assert first.state().knobs["cpu_split_kv"] is True
