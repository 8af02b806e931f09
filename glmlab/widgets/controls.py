"""Controls: the buttons of a session, and its state in words."""

from __future__ import annotations

import threading
import time
from html import escape

import ipywidgets as W

from glmlab.knobs import in_words
from glmlab.session import Action, Session, SessionState, SessionStatus
from glmlab.study_run import grown
from glmlab.widgets.engine_gate import EngineGate, may_start
from glmlab.widgets.field_values import seconds
from glmlab.widgets.look import look, style_of
from glmlab.widgets.notice import Notice
from glmlab.widgets.painter import wake
from glmlab.widgets.point_form import PointForm
from glmlab.widgets.style import framed, html
from glmlab.widgets.why_not import why_not

_ABORT = "Abort: kill the engine"
_SAYS: dict[Action, tuple[str, str, str]] = {
    "start": ("Start", "play", "Start the study, or continue it where it was"),
    "pause": ("Pause", "pause", "Wait after the running trial; the engine and its KV cache are kept"),
    "resume": ("Resume", "forward", "Go on"),
    "stop": ("Stop", "stop", "End after the running trial; nothing is lost, and Continue goes on later"),
    "abort": (
        _ABORT,
        "warning",
        "Kill the engine at once: the running trial is lost and tried again later. Asks once more",
    ),
    "extend": ("Extend budget", "plus", "Add these trials and this time to the budget, running or not"),
    "enqueue": ("Try this point next", "arrow-right", "Put this point before what the search would try"),
}


class Controls(W.VBox):
    """Steers a session. A click sets a flag and shows at once that it was heard.

    Parameters
    ----------
    session : Session, optional
        What is steered; without one every button says why it is disabled.
    gate : EngineGate, optional
        Asked before a session is started: another engine may be in the way.
    """

    def __init__(self, session: Session | None = None, *, gate: EngineGate | None = None) -> None:
        self._session: Session | None = None
        self._gate = gate
        self._painting = threading.Lock()
        self._armed_s: float | None = None
        self.notice = Notice()
        self.state = html()
        self.buttons: dict[Action, W.Button] = {action: self._button(action) for action in _SAYS}
        self.more_trials = W.IntText(
            10, description="trials", tooltip="Trials to add", layout=look(width="11em"), style=_NARROW
        )
        self.more_time = W.Text(
            "",
            description="time",
            placeholder="10m",
            tooltip="Time to add: seconds, or 90s, 10m, 1h30m",
            layout=look(width="11em"),
            style=_NARROW,
        )
        self.point = PointForm()
        self.further = W.Accordion(
            [
                W.HBox(
                    [self.more_trials, self.more_time, self.buttons["extend"]],
                    layout=look(flex_flow="row wrap"),
                ),
                W.VBox([self.point, self.buttons["enqueue"]], layout=look(align_items="flex-start")),
            ],
            selected_index=None,
        )
        self.further.set_title(0, "Extend the budget")
        self.further.set_title(1, "Try a point of your own next")
        self.further.observe(self.notice.guarded(lambda _: self._offer()), names="selected_index")
        row = W.HBox(
            [self.buttons[action] for action in ("start", "pause", "resume", "stop", "abort")],
            layout=look(flex_flow="row wrap"),
        )
        super().__init__([self.state, row, self.notice, self.further])
        self.session = session

    # ------------------------------------------------------------------ session
    @property
    def session(self) -> Session | None:
        """What is steered."""
        return self._session

    @session.setter
    def session(self, session: Session | None) -> None:
        self._session = session
        self.notice.clear()
        self.paint()

    # ------------------------------------------------------------------ painting
    def paint(self) -> None:
        """Show the state as it is now; from any thread."""
        with self._painting:
            status = None if self._session is None else self._session.status
            if status is None or "abort" not in status.can or not self._is_armed:
                self._armed_s = None
            for action, button in self.buttons.items():
                can = status is not None and action in status.can
                button.disabled = not can
                button.description = self._label(action, status)
                says = _SAYS[action][2]
                reason = "" if can else f"Not now: {why_not(action, status.state if status else None)}. "
                button.tooltip = f"{reason}{says}"
            budget = None if self._session is None else self._session.spec.budget
            self.more_trials.disabled = budget is None or budget.trials is None
            self.more_time.disabled = budget is None or budget.seconds is None
            words = "No study has been started or attached here yet." if status is None else status.text
            name = "" if self._session is None else f"Study {self._session.name}: "
            armed = "<br><b>Abort asks once more:</b> " + _ARMED if self._is_armed else ""
            self._say(
                f"<div role='status' aria-live='polite'>{escape(name)}<b>{escape(words)}</b>{armed}</div>"
            )

    @property
    def _is_armed(self) -> bool:
        """Whether Abort has been clicked once, a moment ago."""
        return self._armed_s is not None and time.monotonic() - self._armed_s < _ARMED_S

    def _say(self, text: str) -> None:
        self.state.value = framed(text)

    def _label(self, action: Action, status: SessionStatus | None) -> str:
        if status is None:
            return _SAYS[action][0]
        if action == "start" and (status.done or status.state is not SessionState.NEW):
            return "Continue"
        # The button that was pressed says that it was heard.
        if (action, status.state) in {
            ("stop", SessionState.STOPPING),
            ("pause", SessionState.PAUSING),
            ("abort", SessionState.ABORTING),
        }:
            return status.text
        if action == "abort" and self._is_armed:
            lost = "" if status.trial is None else f", trial {status.trial} is lost"
            return f"Kill it now{lost}"
        return _SAYS[action][0]

    # ------------------------------------------------------------------ clicks
    def _button(self, action: Action) -> W.Button:
        label, icon, says = _SAYS[action]
        button = W.Button(
            description=label,
            icon=icon,
            tooltip=says,
            layout=look(width="auto", min_width="7em"),
            style=style_of(W.Button),
        )
        button.on_click(self.notice.guarded(lambda _: self._clicked(action)))
        return button

    def _clicked(self, action: Action) -> None:
        session = self._session
        if session is None:
            return
        self.notice.clear()
        try:
            if action == "abort" and not self._is_armed:
                self._armed_s = time.monotonic()
                return
            self._armed_s = None
            self._steer(session, action)
        finally:
            self.paint()
        wake(session)

    def _steer(self, session: Session, action: Action) -> None:
        if action == "start":
            if may_start(session.spec, self._gate, lambda: self._clicked("start")):
                session.start()
        elif action == "pause":
            session.pause()
        elif action == "resume":
            session.resume()
        elif action == "stop":
            session.stop()
        elif action == "abort":
            session.abort()
        elif action == "extend":
            self._extend(session)
        else:
            self._offer()
            point = session.enqueue(**self.point.point)
            words = in_words(point)
            self.notice.say(f"Next: {words}", "good")

    def _extend(self, session: Session) -> None:
        budget = session.spec.budget
        trials = 0 if budget.trials is None else self.more_trials.value
        text = "" if budget.seconds is None else self.more_time.value.strip()
        session.extend(trials=trials, seconds=seconds(text) if text else 0.0)
        self.notice.say("The budget is extended; Continue spends it where the study does not run.", "good")

    def _offer(self) -> None:
        """Fill the form of points in, when somebody opens it: its fields are made anew for each study."""
        session = self._session
        if session is None:
            return
        baseline = session.baseline
        space = session.spec.knob_space
        if baseline is None:
            recipe = session.spec.base_recipe
            begin = {d.name: value for d in space if (value := getattr(recipe, d.name)) is not None}
            self.point.offer(space, begin)
        else:
            self.point.offer(grown(space, baseline), baseline)


_ARMED_S = 15.0
_NARROW = {"description_width": "initial"}
_ARMED = "the engine is killed, and the running trial with it. Stop waits for the trial and loses nothing."
