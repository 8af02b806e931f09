"""Workbench: set up, play, sweep and see what came out, in one display that shares one recipe."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import ipywidgets as W

from glmlab.engines.base import Engine, KnobStatus
from glmlab.engines.handle import EngineHandle
from glmlab.errors import SessionError
from glmlab.gpus import Gpu
from glmlab.recipe import Recipe
from glmlab.session import Session
from glmlab.storage import DEFAULT_URL
from glmlab.theme import Theme, check_theme
from glmlab.ticker import Worker
from glmlab.widgets.engine_gate import EngineGate
from glmlab.widgets.engine_places import is_recording, start_engine
from glmlab.widgets.notice import Notice
from glmlab.widgets.painter import Painter
from glmlab.widgets.play import Play
from glmlab.widgets.player import RUNNING
from glmlab.widgets.results import Results
from glmlab.widgets.setup import Setup
from glmlab.widgets.style import stylesheet
from glmlab.widgets.sweep import Sweep

TABS = ("Setup", "Play", "Sweep", "Results")


class Workbench(W.VBox):
    """All of glmlab in one display.

    Setup says whether a recipe fits a machine and what it runs into; Play has a running engine under
    your hands; Sweep writes a study, starts it and watches it; Results says what came of it. They share
    one recipe, and at most one engine runs at a time.

    Parameters
    ----------
    recipe : Recipe, str, Path or mapping, optional
        What to begin with.
    gpu : Gpu or str, optional
        What it is judged for; this machine's by default.
    count : int, optional
        How many of them.
    storage : str
        Where studies are kept: an Optuna storage URL, or ``journal://FILE``.
    session : Session, optional
        A study to go on with, as :func:`glmlab.attach` gives it; its recipe and storage count.
    theme : {"auto", "light", "dark"}
        Of the charts; Python cannot learn the theme of the page.
    """

    def __init__(
        self,
        recipe: Recipe | str | Path | Mapping[str, Any] | None = None,
        *,
        gpu: Gpu | str | None = None,
        count: int | None = None,
        storage: str = DEFAULT_URL,
        session: Session | None = None,
        theme: Theme = "auto",
    ) -> None:
        theme = check_theme(theme)
        if session is not None:
            recipe, storage = session.spec.base_recipe, session.storage
        self._closer: Worker | None = None
        self.notice = Notice()
        self.setup = Setup(recipe, gpu=gpu, count=count)
        self.play = Play(lambda: self.setup.recipe, theme=theme, start=self._start_play)
        self.painter = Painter(self.notice.tell)
        self.gate = EngineGate(
            "Play",
            lambda: self.play.status.state in RUNNING and not is_recording(self.play.status.place),
            self._close_play,
            what_is_lost="What was measured in Play stays on the page.",
        )
        self.sweep = Sweep(
            self.setup.recipe, storage=storage, theme=theme, painter=self.painter, gate=self.gate
        )
        self.results = Results(theme=theme, painter=self.painter, gate=self.gate)
        self.tabs = W.Tab([self.setup, self.play, self.sweep, self.results], titles=TABS)
        super().__init__([stylesheet(), self.notice, self.tabs])
        self.setup.on_change(lambda setup: setattr(self.sweep, "recipe", setup.recipe))
        self.play.on_engine(self._engine_answered)
        self.sweep.on_session(self._adopt)
        self.tabs.observe(self.notice.guarded(lambda _: self._turned()), names="selected_index")
        if session is not None:
            self.sweep.show(session)
            self.tabs.selected_index = TABS.index("Sweep")
        self._turned()

    # ------------------------------------------------------------------ what is shared
    @property
    def recipe(self) -> Recipe:
        """The recipe that all tabs are about."""
        return self.setup.recipe

    @recipe.setter
    def recipe(self, recipe: Recipe | str | Path | Mapping[str, Any]) -> None:
        self.setup.recipe = recipe

    @property
    def session(self) -> Session | None:
        """The session that Sweep and Results show."""
        return self.sweep.session

    @session.setter
    def session(self, session: Session) -> None:
        self.setup.recipe = session.spec.base_recipe
        self.sweep.show(session)

    def _adopt(self, session: Session) -> None:
        self.results.session = session
        self.painter.session = session

    def _engine_answered(self, knobs: Mapping[str, KnobStatus] | None) -> None:
        """What the engine of Play cannot change is locked in Setup and in Sweep, with its reasons."""
        self.setup.lock(knobs)
        self.sweep.reach = knobs or {}

    def _turned(self) -> None:
        """Only what can be seen is painted."""
        turned = self.tabs.selected_index
        self.sweep.board.is_visible = turned == TABS.index("Sweep")
        self.results.is_visible = turned == TABS.index("Results")

    # ------------------------------------------------------------------ one engine at a time
    def _start_play(self, recipe: Recipe, place: str, log_path: Path | None, handle: EngineHandle) -> Engine:
        session = self.session
        is_real = session is not None and session.is_active and not session.spec.is_replayed
        if session is not None and is_real and not is_recording(place):
            raise SessionError(
                f"study {session.name!r} runs in Sweep, and two engines would share one memory; stop it there"
                " first"
            )
        return start_engine(recipe, place, log_path, handle)

    def _close_play(self) -> Future[Any]:
        if self._closer is None:
            self._closer = Worker("close-play")

        def close() -> None:
            self.play.close_engine()
            self.play.wait()

        return self._closer.submit(close)

    def close(self) -> None:
        """Take it off the page and end the engine of Play; a session goes on, ``glmlab.attach`` finds it."""
        self.painter.close()
        for part in (self.setup, self.play, self.sweep, self.results):
            part.close()
        if self._closer is not None:
            self._closer.close()
        super().close()
