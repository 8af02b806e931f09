"""Board: a session as one watches it: its buttons, how far it is, one chart at a time, what happened."""

from __future__ import annotations

import threading
from typing import Any

import ipywidgets as W

from glmlab.session import Event, Session, SessionStatus
from glmlab.theme import Theme, check_theme
from glmlab.widgets.board_charts import CHARTS, BoardChart, Lens
from glmlab.widgets.chart_box import ChartBox
from glmlab.widgets.controls import Controls
from glmlab.widgets.engine_gate import EngineGate
from glmlab.widgets.journal import Journal
from glmlab.widgets.look import is_shared, look
from glmlab.widgets.notice import Notice
from glmlab.widgets.painter import Painter
from glmlab.widgets.progress_panel import ProgressPanel
from glmlab.widgets.style import stylesheet


class Board(W.VBox):
    """A live view of a session.

    It is painted at most four times a second, only the chart that is shown, and only when something
    happened. What another cell or board does to the session shows here too.

    Parameters
    ----------
    session : Session, optional
        What is shown; may be given, or changed, later.
    theme : {"auto", "light", "dark"}
        Of the charts.
    painter : Painter, optional
        Of a display that the board is a part of; its own by default.
    gate : EngineGate, optional
        Asked before the session is started again.
    live : bool
        As of :class:`~glmlab.widgets.chart_box.ChartBox`.
    """

    def __init__(
        self,
        session: Session | None = None,
        *,
        theme: Theme = "auto",
        painter: Painter | None = None,
        gate: EngineGate | None = None,
        live: bool = True,
    ) -> None:
        self._theme = check_theme(theme)
        self._session: Session | None = None
        self._cursor = 0
        self._status: SessionStatus | None = None
        self._news_s = 0.0
        self._is_chart_stale = True
        self._is_visible = True
        self._painting = threading.Lock()
        self.notice = Notice()
        self.controls = Controls(gate=gate)
        self.progress = ProgressPanel()
        self.chart_box = ChartBox(live=live, theme=self._theme)
        self.journal = Journal()
        self.choice = W.Dropdown(
            options=[(chart.label, chart) for chart in CHARTS],
            description="chart",
            tooltip="Which chart is shown; only that one is painted",
            style={"description_width": "initial"},
            layout=look(width="min(100%, 28em)"),
        )
        self.knob = _lens("of knob", "Whose values the lines or rows of the chart are")
        self.batch = _lens("batch", "Requests at once that the chart is about")
        for choice in (self.choice, self.knob, self.batch):
            choice.observe(self.notice.guarded(lambda _: self._choose()), names="value")
        self._is_own_painter = painter is None
        self.painter = painter or Painter(self.notice.tell)
        self.painter.add(self.paint)
        # What is rarely wanted stands below what is watched.
        self.controls.children = [
            each for each in self.controls.children if each is not self.controls.further
        ]
        super().__init__(
            [
                stylesheet(),
                self.controls,
                self.progress,
                W.HBox([self.choice, self.knob, self.batch], layout=look(flex_flow="row wrap")),
                self.chart_box,
                self.controls.further,
                self.journal,
                self.notice,
            ]
        )
        self.session = session

    # ------------------------------------------------------------------ what is shown
    @property
    def session(self) -> Session | None:
        """What is shown."""
        return self._session

    @session.setter
    def session(self, session: Session | None) -> None:
        with self._painting:
            self._session, self._cursor, self._status = session, 0, None
            self._is_chart_stale = True
            self.journal.clear()
            self.notice.clear()
        self._offer(session)
        self.controls.session = session
        self.paint()
        if self._is_own_painter:
            self.painter.session = session

    @property
    def chart(self) -> BoardChart:
        """The chart that is shown."""
        found: BoardChart = self.choice.value
        return found

    @property
    def lens(self) -> Lens:
        """What the chart is about."""
        session = self._session
        if session is None:
            return Lens()
        # What was chosen for another study says nothing of this one.
        knob = self.knob.value if self.knob.value in session.spec.knob_space else None
        batch = self.batch.value if self.batch.value in session.spec.workload.batch_sizes else None
        return Lens(knob, batch)

    def _offer(self, session: Session | None) -> None:
        """What a study's charts can be about."""
        for choice, values in (
            (self.knob, [d.name for d in session.spec.knob_space] if session else []),
            (self.batch, sorted(session.spec.workload.batch_sizes) if session else []),
        ):
            choice.options = [("chosen by the chart", None), *((str(value), value) for value in values)]
        self._enable()

    def _enable(self) -> None:
        for name, choice in (("knob", self.knob), ("batch", self.batch)):
            choice.disabled = name not in self.chart.looks_at

    def show(self, chart: int) -> None:
        """Show the chart of this place in the list."""
        self.choice.index = chart

    @property
    def is_visible(self) -> bool:
        """Whether anybody can see it; charts of what is hidden are not painted."""
        return self._is_visible

    @is_visible.setter
    def is_visible(self, is_visible: bool) -> None:
        self._is_visible = is_visible
        if is_visible and not self.painter.wake():
            self.paint()

    def _choose(self) -> None:
        self._is_chart_stale = True
        self._enable()
        # In the painter's thread: a large chart would keep the click waiting.
        if not self.painter.wake():
            self.paint()

    # ------------------------------------------------------------------ painting
    def paint(self) -> None:
        """Show what changed since the last call; from any thread."""
        self.controls.paint()
        with self._painting:
            session = self._session
            if session is None:
                self.progress.paint(None, "measured", 0.0)
                return
            status = session.status
            events, self._cursor = session.events(self._cursor)
            self._take(session, events)
            self.progress.paint(status, session.spec.evidence, self._news_s)
            self._status = status
            if self._is_visible and self._is_chart_stale:
                self._is_chart_stale = False
                self._draw(session)

    def _take(self, session: Session, events: tuple[Event, ...]) -> None:
        if events:
            self._news_s = events[-1].unix_s
            self.journal.add(events)
            self._is_chart_stale |= any(event.kind in self.chart.changed_by for event in events)
        if events or self._status is None:
            self.journal.count(session.records())
            self.journal.paint()

    def _draw(self, session: Session) -> None:
        chart = self.chart
        self.chart_box.show(
            chart.read(session, self.lens), lambda data: chart.draw(data, self._theme), newest=chart.newest
        )

    def close(self) -> None:
        """Take it off the page; the session goes on."""
        if self._is_own_painter:
            self.painter.close()
        for part in _all_below(self):
            if not is_shared(part):  # the stylesheet is that of other displays, too
                part.close()
        super().close()


def _lens(label: str, tooltip: str) -> W.Dropdown:
    return W.Dropdown(
        options=[("chosen by the chart", None)],
        description=label,
        tooltip=tooltip,
        disabled=True,
        style={"description_width": "initial"},
        layout=look(width="auto", margin="2px 0 2px 1em"),
    )


def _all_below(box: Any) -> list[W.Widget]:
    """Widgets inside a box, each once."""
    found: list[W.Widget] = []
    for child in getattr(box, "children", ()):
        found += [child, *_all_below(child)]
    return found
