"""Sweep: a study is written, started and watched."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import ipywidgets as W

from glmlab.engine_keeper import StartEngine
from glmlab.engines.base import KnobStatus
from glmlab.errors import SessionError, StudyError
from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe
from glmlab.session import Session
from glmlab.storage import DEFAULT_URL
from glmlab.study_spec import StudySpec
from glmlab.theme import Theme
from glmlab.ticker import Worker
from glmlab.units import counted
from glmlab.widgets.board import Board
from glmlab.widgets.engine_gate import EngineGate, may_start
from glmlab.widgets.known_reach import Reach, probed_reach
from glmlab.widgets.look import look
from glmlab.widgets.notice import Notice
from glmlab.widgets.painter import Painter
from glmlab.widgets.study_editor import StudyEditor
from glmlab.widgets.study_file_panel import StudyFilePanel
from glmlab.widgets.style import framed, html, stylesheet

_START = "Start this study"
_STARTS = "Start it in the background; what is stored under its name is continued"
_ASK = "Ask this machine's vLLM what it can change"


class Sweep(W.VBox):
    """The editor of a study, and below it the board of the session that it became.

    Parameters
    ----------
    recipe : Recipe, name, path or mapping, optional
        The baseline.
    spec : StudySpec, path or mapping, optional
        A study to begin with, in place of a recipe.
    storage : str
        Optuna storage URL, or ``journal://FILE``.
    session : Session, optional
        One to show; the editor holds its study.
    theme : {"auto", "light", "dark"}
        Of the charts.
    start : callable, optional
        As of :class:`~glmlab.session.Session`.
    painter : Painter, optional
        Of a display that this is a part of.
    gate : EngineGate, optional
        Asked before an engine is started.
    live : bool
        As of :class:`~glmlab.widgets.chart_box.ChartBox`.
    """

    def __init__(
        self,
        recipe: Recipe | str | Path | Mapping[str, Any] = "tiny-glm4-moe",
        *,
        spec: StudySpec | str | Path | Mapping[str, Any] | None = None,
        storage: str = DEFAULT_URL,
        session: Session | None = None,
        theme: Theme = "auto",
        start: StartEngine | None = None,
        painter: Painter | None = None,
        gate: EngineGate | None = None,
        live: bool = True,
    ) -> None:
        self._start_engine, self._gate = start, gate
        self._worker: Worker | None = None
        self._listeners: list[Callable[[Session], Any]] = []
        self._is_starting = False
        if session is not None:
            spec, storage = session.spec, session.storage
        given = _spec(spec)
        self.notice = Notice()
        self.board = Board(theme=theme, painter=painter, gate=gate, live=live)
        self.editor = StudyEditor(given.base_recipe if given else find_recipe(recipe), storage=storage)
        self.file = StudyFilePanel()
        self.grid = html()
        self.probe = W.Button(
            description=_ASK,
            icon="question-circle",
            tooltip="Imports vLLM in another process, some seconds, and locks what it cannot change live",
            layout=look(width="auto", align_self="flex-start"),
        )
        self.probe.on_click(self.notice.guarded(lambda _: self._ask()))
        self.button = W.Button(
            description=_START,
            icon="play",
            button_style="primary",
            tooltip=_STARTS,
            layout=look(width="auto", min_width="12em"),
        )
        self.button.on_click(self.notice.guarded(lambda _: self.start()))
        self.folds = W.Accordion([W.VBox([self.probe, self.editor]), self.file], selected_index=0)
        self.folds.set_title(0, "Study: space, workload, objective, budget")
        self.folds.set_title(1, "Study file")
        row = W.HBox([self.button, self.grid], layout=look(flex_flow="row wrap", align_items="center"))
        gates = [gate] if gate is not None else []
        super().__init__([stylesheet(), self.folds, row, *gates, self.notice, self.board])
        self.board.painter.add(self.paint)
        self.editor.on_change(self._edited)
        if given is not None:
            self.editor.load(given)
        self._edited()
        if session is not None:
            self.session = session

    # ------------------------------------------------------------------ what is asked for
    @property
    def recipe(self) -> Recipe:
        """The baseline."""
        return self.editor.recipe

    @recipe.setter
    def recipe(self, recipe: Recipe | str | Path | Mapping[str, Any]) -> None:
        self.editor.recipe = find_recipe(recipe)

    @property
    def reach(self) -> Reach:
        """What an engine can do with its live knobs, where one was asked."""
        return self.editor.reach

    @reach.setter
    def reach(self, reach: Mapping[str, KnobStatus]) -> None:
        self.editor.reach = dict(reach)

    @property
    def spec(self) -> StudySpec | None:
        """The study as it is written; ``None`` while a field is refused."""
        return self.editor.spec

    @property
    def text(self) -> str:
        """The study file; empty while a field is refused."""
        return self.editor.judged.text

    def show(self, session: Session) -> None:
        """Show a session, and its study in the editor."""
        self.editor.load(session.spec, storage=session.storage)
        self.session = session

    def load(self, spec: StudySpec | str | Path | Mapping[str, Any]) -> None:
        """Fill the editor in from a study."""
        found = _spec(spec)
        if found is not None:
            self.editor.load(found)

    def _edited(self) -> None:
        judged = self.editor.judged
        self.file.show(self.editor.draft.study.strip(), judged.text, self.editor.refusals)
        count = len(self.editor.refusals)
        fields = f"{counted(count, 'field')} to mend: see what is marked as refused above."
        if set(self.editor.refusals) == {"space"} and not self.editor.space.entries:
            fields = "Choose what the study moves: tick at least one knob above."
        self.grid.value = framed(
            f"<span class='glmlab-dim'>{judged.grid if self.editor.spec else fields}</span>"
        )
        self.paint()

    # ------------------------------------------------------------------ the session
    @property
    def session(self) -> Session | None:
        """The session that is shown."""
        return self.board.session

    @session.setter
    def session(self, session: Session | None) -> None:
        self.board.session = session
        if session is not None:
            self.folds.selected_index = None
            for listener in self._listeners:
                listener(session)
        self.paint()

    def on_session(self, listener: Callable[[Session], Any]) -> None:
        """Call something with each session that is started or attached here; maybe from another thread."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Start the study that is written, in the background.

        Raises
        ------
        InputError
            If a field is refused, or the session that is shown runs.
        """
        self.notice.clear()
        spec = self.editor.spec
        if spec is None:
            whys = list(self.editor.refusals.values())
            raise StudyError(
                f"not started: {whys[0]}" + (f" (and {len(whys) - 1} more)" if len(whys) > 1 else "")
            )
        session = self.session
        if session is not None and session.is_active:
            raise SessionError(f"study {session.name!r} runs here; stop it before another one is started")
        if self._is_starting:
            return
        if not may_start(spec, self._gate, self.start):
            return
        self._is_starting = True
        self.paint()
        self._work().submit(self._make, spec, self.editor.storage).add_done_callback(self._made)

    def _make(self, spec: StudySpec, storage: str) -> Session:
        """Opening a storage may take its time, so in the background."""
        session = Session(spec, storage, start=self._start_engine)
        session.start()
        return session

    def _made(self, future: Future[Session]) -> None:
        self._is_starting = False
        error = future.exception()
        if error is not None:
            self.notice.tell(error)
            self.paint()
            return
        self.notice.guarded(lambda: setattr(self, "session", future.result()))()

    def paint(self) -> None:
        """Bring the start button up to date; from any thread."""
        session = self.session
        running = session if session is not None and session.is_active else None
        self.button.disabled = running is not None or self._is_starting
        self.button.description = "Starting …" if self._is_starting else _START
        self.button.tooltip = (
            _STARTS if running is None else f"Not now: study {running.name} runs here; stop it first"
        )

    # ------------------------------------------------------------------ asking vLLM
    def _ask(self) -> None:
        self.notice.clear()
        self.probe.disabled, self.probe.description = True, "Asking vLLM …"
        asker = Worker("probe")

        def answered(future: Future[Reach]) -> None:
            asker.close()
            self._asked(future)

        asker.submit(probed_reach).add_done_callback(answered)

    def _asked(self, future: Future[Reach]) -> None:
        self.probe.disabled, self.probe.description = False, _ASK
        try:
            self.reach = future.result()
        except Exception as error:  # noqa: BLE001 (shown in full)
            self.notice.tell(error)
            return
        self.notice.say(
            "Knobs that this machine's vLLM cannot change live are locked, each with its reason.", "good"
        )

    def _work(self) -> Worker:
        if self._worker is None:
            self._worker = Worker("sweep")
        return self._worker

    def close(self) -> None:
        """Take it off the page; a session goes on."""
        if self._worker is not None:
            self._worker.close()
        self.board.close()
        super().close()


def _spec(spec: StudySpec | str | Path | Mapping[str, Any] | None) -> StudySpec | None:
    if spec is None or isinstance(spec, StudySpec):
        return spec
    return StudySpec.load(spec) if isinstance(spec, str | Path) else StudySpec.parse(dict(spec))
