"""Replay: starts replayed engines for a study, each from the recording of its plan."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

from glmlab.engines.handle import EngineHandle
from glmlab.engines.replay import ReplayEngine
from glmlab.engines.replayed_visit import workload_problem
from glmlab.engines.visit_order import VisitOrder
from glmlab.errors import KnobError, RecordingError, WorkloadError
from glmlab.knobs import in_words
from glmlab.recipe import Recipe
from glmlab.recorded import (
    Recording,
    RecordingHeader,
    list_recordings,
    load_recording,
    read_header,
    recording_path,
)
from glmlab.workload import Workload

_SHOWN = 4  # recordings that an error names


class Replay:
    """Recipe and ceilings -> a replayed engine.

    Parameters
    ----------
    recordings : sequence of Recording
        One for each plan.
    speed : float
        See :class:`~glmlab.engines.replay.ReplayEngine`.
    seed : int
        Of the order in which visits come, over all engines; 0: as recorded.

    Attributes
    ----------
    handle : EngineHandle
        Ends the waits of its engines from another thread.
    """

    def __init__(self, recordings: Sequence[Recording], *, speed: float = math.inf, seed: int = 0) -> None:
        self.recordings = tuple(recordings)
        self._speed, self._order = speed, VisitOrder(seed)
        self.handle = EngineHandle()

    @classmethod
    def find(
        cls,
        recipe: Recipe,
        *,
        free: Sequence[str] = (),
        moved: Sequence[str] = (),
        named: Sequence[str] = (),
        speed: float = math.inf,
        seed: int = 0,
    ) -> Self:
        """Look for the recordings of a recipe.

        Parameters
        ----------
        recipe : Recipe
            The baseline.
        free : sequence of str
            Rebuild knobs that may differ, each other value in a recording of its own.
        moved : sequence of str
            Live knobs that must have been moved. Of several recordings that is taken which moved
            no others.
        named : sequence of str
            Names or files to look at; all that are known by default.

        Raises
        ------
        RecordingError
            If none is of the recipe's plan, or one that is named is of another.
        """
        paths = [recording_path(name) for name in named or list_recordings()]
        known = [(path, read_header(path)) for path in paths]
        for _, header in known:
            if named and (reason := header.mismatch(recipe, free)):
                raise RecordingError(f"recording {header.name}: is of another plan: it has {reason}")
        fitting = [(path, header) for path, header in known if not header.mismatch(recipe, free)]
        if not fitting:
            raise _none_of(recipe, [header for _, header in known])
        if not named:
            fitting = [each for each in fitting if set(moved) <= set(each[1].knobs)] or fitting
            exact = [each for each in fitting if set(moved) == set(each[1].knobs)]
            if any(not header.mismatch(recipe) for _, header in exact):
                fitting = exact
        found = cls([load_recording(path) for path, _ in fitting], speed=speed, seed=seed)
        found.recording_for(recipe)
        return found

    def __call__(self, recipe: Recipe, ceilings: Mapping[str, int]) -> ReplayEngine:
        """Start the engine of a recipe; ceilings are those of the recorded engine."""
        del ceilings
        return ReplayEngine(
            self.recording_for(recipe), recipe, speed=self._speed, order=self._order, handle=self.handle
        )

    def recording_for(self, recipe: Recipe) -> Recording:
        """The recording of a recipe's plan.

        Raises
        ------
        RecordingError
            If there is none, or more than one.
        """
        found = [r for r in self.recordings if not r.header.mismatch(recipe)]
        if not found:
            raise _none_of(recipe, [r.header for r in self.recordings])
        if len(found) > 1:
            names = " and ".join(r.name for r in found)
            raise RecordingError(
                f"recordings {names} are both of this plan; say which, e.g. recording: {found[0].name}"
            )
        return found[0]

    def check(self, recipe: Recipe, workload: Workload) -> None:
        """Refuse a recipe or workload that could not be replayed, before a study begins.

        Raises
        ------
        InputError
            With what was recorded.
        """
        recording = self.recording_for(recipe)
        if problem := workload_problem(recording.header, workload):
            raise WorkloadError(problem)
        with ReplayEngine(recording, recipe) as engine:
            if failure := recording.failure_of(engine.point):
                raise KnobError(f"{in_words(engine.point)}: failed when it was recorded: {failure.error}")
            engine.next_visit(engine.point)

    def forget_given(self) -> None:
        """Begin with the first visits again."""
        self._order.forget()

    def count_given(self, recipe: Recipe) -> None:
        """Count a visit that an earlier run of the study was given: it does not come again soon."""
        recording = self.recording_for(recipe)
        with ReplayEngine(recording, recipe) as engine:
            self._order.give(recording, engine.point)

    def facts(self) -> list[dict[str, Any]]:
        """Where the numbers come from, for the provenance of a study."""
        return [
            {
                "name": recording.name,
                "fingerprint": recording.fingerprint,
                "origin": recording.header.origin,
                "title": recording.header.title,
                "gpus": [gpu.model_dump(mode="json") for gpu in recording.header.gpus],
                "versions": {**recording.header.state.versions, "triton": recording.header.triton},
                "notes": list(recording.header.notes),
            }
            for recording in self.recordings
        ]


def _none_of(recipe: Recipe, headers: Sequence[RecordingHeader]) -> RecordingError:
    """What the known recordings have in place of what the recipe asks for."""
    if not headers:
        return RecordingError(
            "engine: replay needs a recording, and none is installed; name a file with recording: PATH"
        )
    reasons = [f"{header.name} has {header.mismatch(recipe)}" for header in headers[:_SHOWN]]
    more = f"; and {len(headers) - _SHOWN} others" if len(headers) > _SHOWN else ""
    return RecordingError(f"recipe {recipe.name}: no recording is of this plan: {'; '.join(reasons)}{more}")
