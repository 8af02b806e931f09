"""Sessions for tests: studies whose trials wait for the test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from glmlab.session import Session
from glmlab.study import Study
from tests.doubles import scripted_start
from tests.studies import spec
from tests.watched import Gate


def gated(url: str, gate: Gate, **changes: Any) -> Session:
    """One whose measurements the gate lets through."""
    return Session(spec(**changes), url, start=scripted_start(gate))


def states(session: Session) -> list[str]:
    """What it said of itself, in order."""
    return [event.text for event in session.events()[0] if event.kind == "state"]


def slow_replay(file: Path) -> Any:
    from glmlab.engines.replay_start import Replay

    study = Study(file)
    return Replay.find(study.spec.base_recipe, moved=study.spec.knob_space.live, speed=0.5)
