"""Results: what a study found, how sure that is, and how it is taken away."""

from __future__ import annotations

import threading
from html import escape
from pathlib import Path

import ipywidgets as W

from glmlab.errors import ExportError, SessionError
from glmlab.export import Bundle, export_bundle
from glmlab.figures import draw_rounds
from glmlab.session import Session, SessionState, SessionStatus
from glmlab.storage import StudyStore
from glmlab.summary import Summary
from glmlab.theme import Theme, check_theme
from glmlab.ticker import Worker
from glmlab.widgets.board_charts import rounds_of
from glmlab.widgets.chart_box import ChartBox
from glmlab.widgets.dashboard_row import DashboardRow
from glmlab.widgets.engine_gate import EngineGate, may_start
from glmlab.widgets.field import text_input
from glmlab.widgets.look import look
from glmlab.widgets.notice import Notice
from glmlab.widgets.painter import Painter, wake
from glmlab.widgets.style import framed, html, stylesheet, title
from glmlab.widgets.task_row import TaskRow
from glmlab.widgets.verdict_view import changes_html, cost_html, verdict_html

_FURTHER = 3  # rounds that one more confirmation adds


class Results(W.VBox):
    """The outcome of a session's study.

    Parameters
    ----------
    session : Session, optional
        Whose study it is; may be given, or changed, later.
    theme : {"auto", "light", "dark"}
        Of the chart.
    painter : Painter, optional
        Of a display that this is a part of; its own by default.
    gate : EngineGate, optional
        Asked before an engine is started for further rounds.
    """

    def __init__(
        self,
        session: Session | None = None,
        *,
        theme: Theme = "auto",
        painter: Painter | None = None,
        gate: EngineGate | None = None,
    ) -> None:
        self._theme, self._gate = check_theme(theme), gate
        self._session: Session | None = None
        self._cursor = 0
        self._is_stale = self._is_visible = True
        self._asked_rounds = 0
        self._worker: Worker | None = None
        self._painting = threading.Lock()
        self.notice = Notice()
        self.verdict, self.changes, self.cost = html(), html(), html()
        self.chart_box = ChartBox(live=False, height=360, theme=self._theme)
        self.rounds = W.IntText(
            _FURTHER,
            description="further rounds",
            tooltip="Visits of best and baseline each, on top of those that were made",
            style={"description_width": "initial"},
            layout=look(width="12em"),
        )
        self.confirm = W.Button(
            description="Confirm again",
            icon="repeat",
            layout=look(width="auto", min_width="11em"),
        )
        self.confirm.on_click(self.notice.guarded(lambda _: self.confirm_again()))
        self.export = TaskRow(
            "Export",
            "archive",
            "Write recipe, serve configuration, environment and evidence into a new directory",
            self._export,
            self._work,
            field=text_input("directory", "A new or empty directory", width="30em"),
        )
        self.report = TaskRow(
            "Write report",
            "file-text",
            "Write one HTML file that can be read anywhere, without a network",
            self._report,
            self._work,
            field=text_input("report", "An HTML file", width="30em"),
        )
        self.dashboard = DashboardRow(self._work)
        self._is_own_painter = painter is None
        self.painter = painter or Painter(self.notice.tell)
        self.painter.add(self.paint)
        again = W.HBox([self.rounds, self.confirm], layout=look(flex_flow="row wrap"))
        super().__init__(
            [
                stylesheet(),
                title("Verdict"),
                self.verdict,
                again,
                *([gate] if gate is not None else []),
                self.notice,
                title("What changed against the default"),
                self.changes,
                self.chart_box,
                title("Cost"),
                self.cost,
                title("Take it away"),
                self.export,
                self.report,
                self.dashboard,
            ]
        )
        self.session = session

    # ------------------------------------------------------------------ what is shown
    @property
    def session(self) -> Session | None:
        """Whose study is shown."""
        return self._session

    @session.setter
    def session(self, session: Session | None) -> None:
        with self._painting:
            self._session, self._cursor, self._is_stale = session, 0, True
            self._asked_rounds = 0
            self.notice.clear()
            if session is not None:
                self.export.field.value = f"{session.name}-bundle"
                self.report.field.value = f"{session.name}.html"
            self.dashboard.storage = None if session is None else session.storage
        self.paint()
        if self._is_own_painter:
            self.painter.session = session

    @property
    def is_visible(self) -> bool:
        """Whether anybody can see it; what is hidden is not summed up."""
        return self._is_visible

    @is_visible.setter
    def is_visible(self, is_visible: bool) -> None:
        self._is_visible = is_visible
        if is_visible and not self.painter.wake():
            self.paint()

    # ------------------------------------------------------------------ painting
    def paint(self) -> None:
        """Show what changed since the last call; from any thread."""
        with self._painting:
            session = self._session
            if session is None:
                text = "<p>No study has been started or attached here yet.</p>"
                self.verdict.value = framed(text)
                self._allow(None, None)
                return
            events, self._cursor = session.events(self._cursor)
            # A trial changes nothing here: the verdict comes at the end.
            self._is_stale |= any(event.kind in ("state", "visit", "error") for event in events)
            if not self._is_stale or not self._is_visible:
                return
            self._is_stale = False
            status = session.status  # first: what it says of the end is then true of the summary
            summary = session.summary()
            self.verdict.value = framed(verdict_html(summary, status))
            if summary is not None:
                self.changes.value = framed(changes_html(summary, session.records(), session.spec))
                self.cost.value = framed(cost_html(summary))
            self.chart_box.show(rounds_of(session), lambda data: draw_rounds(data, self._theme))
            self._allow(session, summary)
            self._tell_rounds(status, summary)

    def _allow(self, session: Session | None, summary: Summary | None) -> None:
        """Enable what can be done now; say why not of the rest."""
        none = "" if session is not None else "no study has been started or attached here yet"
        unsure = none or ("" if summary and summary.verdict else "the study has no verdict yet")
        busy = "" if session is None or "start" in session.status.can else "the study runs"
        if session is not None and session.status.state is SessionState.ELSEWHERE:
            busy = "another process runs this study"
        settled = summary is not None and summary.verdict is not None and summary.verdict.rounds == 0
        rival = "no trial was better than the baseline, so there is nothing to confirm" if settled else ""
        why = unsure or busy or rival
        self.confirm.disabled = bool(why)
        says = "Measure best and baseline again, in turn, for a narrower interval; starts an engine"
        self.confirm.tooltip = f"Not now: {why}. {says}" if why else says
        self.export.allow(unsure or busy)
        self.report.allow(none or ("" if summary else "nothing is stored yet"))

    def _tell_rounds(self, status: SessionStatus, summary: Summary | None) -> None:
        """Say so if the confirmation that was asked for could not have as many rounds."""
        is_over = not status.state.is_active
        if not is_over or not self._asked_rounds or summary is None or summary.verdict is None:
            return
        asked, self._asked_rounds = self._asked_rounds, 0
        if summary.verdict.rounds < asked and status.state is SessionState.FINISHED:
            self.notice.say(
                f"{asked} rounds were asked for, {summary.verdict.rounds} could be had; the study's messages"
                " say why. A recording has only so many visits to a point",
                "warns",
            )

    # ------------------------------------------------------------------ clicks
    def confirm_again(self) -> None:
        """Measure best and baseline for further rounds, in the background.

        Raises
        ------
        SessionError
            If there is no verdict yet, the study runs, or there is no further round.
        """
        session = self._session
        if session is None:
            return
        self.notice.clear()
        if not may_start(session.spec, self._gate, self.confirm_again):
            return
        summary = session.summary()
        if summary is None or summary.verdict is None:
            raise SessionError(
                f"study {session.name!r}: has no verdict to confirm again; let it finish first"
            )
        further = self.rounds.value
        if further < 1:
            raise SessionError(f"further rounds = {further}: expected 1 or more")
        rounds = max(summary.verdict.rounds + further, _FURTHER)
        session.confirm(rounds)
        self._asked_rounds, self._is_stale = rounds, True
        wake(session)

    def _export(self, directory: str) -> str:
        if not directory:
            raise ExportError("directory: is empty; name a new one")
        return _bundle_html(export_bundle(self._store(), Path(directory).expanduser()))

    def _report(self, file: str) -> str:
        from glmlab.report import write_report

        if not file:
            raise ExportError("report: is empty; name an HTML file")
        path = write_report(self._store(), Path(file).expanduser())
        return (
            f"<p>Written: <code>{escape(str(path.resolve()))}</code>, {path.stat().st_size / 1e6:.1f} MB</p>"
        )

    def _store(self) -> StudyStore:
        """Read anew: the session's own is written to by its thread."""
        session = self._session
        if session is None:
            raise SessionError("no study has been started or attached here yet")
        return StudyStore.load(session.name, session.storage)

    def _work(self) -> Worker:
        if self._worker is None:
            self._worker = Worker("results")
        return self._worker

    def close(self) -> None:
        """Take it off the page, and end the dashboard that was opened here."""
        if self._is_own_painter:
            self.painter.close()
        self.dashboard.close()
        if self._worker is not None:
            self._worker.close()
        super().close()


def _bundle_html(bundle: Bundle) -> str:
    """Where a bundle lies, what is in it, how it is served."""
    rows = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{escape(what)}</td></tr>"
        for name, what in bundle.files.items()
    )
    return (
        f"<p><b>{escape(bundle.headline)}</b> (evidence: {escape(bundle.evidence)})</p>"
        f"<p>Written to <code>{escape(str(bundle.directory.resolve()))}</code>. Serve it there with</p>"
        f"<pre>{escape(bundle.command)}</pre>"
        f"<table><thead><tr><th scope='col'>file</th><th scope='col'>what</th></tr></thead>"
        f"<tbody>{rows}</tbody></table>"
    )
