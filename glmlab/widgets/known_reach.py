"""Which live knobs an engine could change, as far as that can be known without starting it.

Three sources, each as good as it says: a running engine (asked by whoever holds it), the installed
vLLM (probed in a process of its own), and, for a replay, what its recording moved.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glmlab.engines.base import KnobStatus
from glmlab.errors import RecordingError
from glmlab.knob_table import KNOBS
from glmlab.recipe import Recipe
from glmlab.recorded import list_recordings, read_header, recording_path

Reach = dict[str, KnobStatus]


def recorded_reach(recipe: Recipe, named: Sequence[str] = ()) -> Reach:
    """What the recordings of a recipe's plan moved; the other live knobs stay where they were.

    Parameters
    ----------
    recipe : Recipe
        The baseline.
    named : sequence of str
        Names or files of recordings; all that are known by default.

    Raises
    ------
    RecordingError
        If there is none of this plan.
    """
    headers = [read_header(recording_path(name)) for name in named or list_recordings()]
    fitting = [header for header in headers if not header.mismatch(recipe)]
    if not fitting:
        reasons = [f"{h.name} has {h.mismatch(recipe)}" for h in headers[:3]] or ["none is installed"]
        raise RecordingError(f"recipe {recipe.name}: no recording is of this plan: {'; '.join(reasons)}")
    moved: dict[str, list[Any]] = {}
    for header in fitting:
        for name, values in header.knobs.items():
            moved[name] = list(dict.fromkeys([*moved.get(name, []), *values]))
    where = " and ".join(header.name for header in fitting)
    return {
        name: KnobStatus(live=True, values=tuple(moved[name]))
        if name in moved
        else KnobStatus(live=False, why=f"was not moved in {where}")
        for name, knob in KNOBS.items()
        if knob.reach == "live"
    }


def probed_reach() -> Reach:
    """What the installed vLLM says that it could change; takes some seconds, in another process.

    Only what it cannot change is told: which values a knob may have, the running engine says.

    Raises
    ------
    EngineError
        If there is no vLLM that answers.
    """
    from glmlab.checkup.engine_probe import probe_engine

    found = probe_engine()
    return {name: KnobStatus(live=False, why=knob.why) for name, knob in found.knobs.items() if not knob.live}
