"""EnginePanel: where an engine lives, its start and its end, what it is doing, and the end of its log."""

from __future__ import annotations

import time
from collections.abc import Callable
from html import escape
from typing import Any

import ipywidgets as W

from glmlab.engines.engine_log import tail
from glmlab.units import format_duration
from glmlab.widgets.engine_places import places
from glmlab.widgets.look import look, show
from glmlab.widgets.player import RUNNING, PlayStatus, State
from glmlab.widgets.style import framed, html, log_html

_LOG_LINES = 14
_WORDS: dict[State, str] = {
    "none": "No engine",
    "starting": "Starting",
    "ready": "Ready",
    "applying": "Changing",
    "measuring": "Measuring",
    "closing": "Closing",
    "died": "Gone",
}
_START: dict[State, str] = {
    "none": "Start engine",
    "died": "Start again",
    "starting": "Starting ...",
    "closing": "Closing ...",
}
_CLOSE: dict[State, tuple[str, str]] = {
    "starting": ("Stop starting", "End the engine before it is up"),
    "ready": ("Close engine", "Close the engine and free its memory"),
    "closing": ("Kill it now", "Kill the engine's process"),
}


class EnginePanel(W.VBox):
    """Controls of an engine's life. The close button works at any moment while there is one.

    Parameters
    ----------
    place : str
        Where the engine lives at first.
    """

    def __init__(self, place: str) -> None:
        wide = {"width": "auto", "min_width": "130px"}
        self.place = W.Dropdown(
            description="Where",
            options=places(),
            value=place,
            tooltip="A process of its own can be killed and gives all memory back; a recording needs no GPU",
            style={"description_width": "90px"},
            layout=look(width="470px", max_width="100%"),
        )
        self.start = W.Button(
            description=_START["none"],
            icon="play",
            button_style="primary",
            tooltip="Start an engine for the recipe, and measure it as it starts",
            layout=look(**wide),
        )
        self.stop = W.Button(description=_CLOSE["ready"][0], icon="stop", layout=look(**wide))
        self.log_button = W.ToggleButton(
            description="Show log",
            tooltip="The end of the engine's log",
            layout=look(align_self="flex-start", **wide),
        )
        self._line, self._log = html(), html()
        self._state: State = "none"
        row = W.HBox([self.place, self.start, self.stop], layout=look(flex_flow="row wrap"))
        super().__init__([row, self._line, self.log_button, self._log])

    def connect(
        self,
        guarded: Callable[[Callable[..., Any]], Callable[..., None]],
        *,
        start: Callable[[], None],
        stop: Callable[[], None],
        place: Callable[[], None],
        log: Callable[[], None],
    ) -> None:
        """Say what the controls do.

        Parameters
        ----------
        guarded : callable
            Wraps each callback; see :class:`~glmlab.widgets.notice.Notice`.
        start, stop, place, log : callable
            For the two buttons, another place, and the button that shows the log.
        """
        self.start.on_click(guarded(lambda _: start()))
        self.stop.on_click(guarded(lambda _: stop()))
        self.place.observe(guarded(lambda _: place()), names="value")
        self.log_button.observe(guarded(lambda _: log()), names="value")

    def paint(self, status: PlayStatus, recipe_name: str) -> None:
        """Show where the engine is; from any thread.

        Parameters
        ----------
        status : PlayStatus
            Of the player.
        recipe_name : str
            What runs, or would run.
        """
        state, running = status.state, status.state in RUNNING
        self.start.description = _START.get(state, "Engine runs")
        self.start.disabled = self.place.disabled = running
        said, tooltip = _CLOSE.get(
            state, ("Close engine", "End the engine, also in the middle of what it does")
        )
        self.stop.description, self.stop.tooltip, self.stop.disabled = said, tooltip, not running
        if (state == "starting") != (self._state == "starting"):
            self.log_button.value = state in ("starting", "died")  # while one waits, it says for what
        self._state = state
        self.paint_line(status, recipe_name)
        self.paint_log(status)

    def paint_line(self, status: PlayStatus, recipe_name: str) -> None:
        """Only what moves while one waits; see :meth:`paint`."""
        parts = [f"<b>{_WORDS[status.state]}.</b> {escape(status.text)}"]
        if status.state in ("starting", "applying", "measuring", "closing"):
            parts.append(f"({format_duration(time.monotonic() - status.since_s)} so far)")
        if status.state == "ready":
            pids = f", process {', '.join(map(str, status.pids))}" if status.pids else ""
            parts.append(
                f"It started in {format_duration(status.start_s)} ({escape(status.evidence)}){pids}."
            )
        parts.append(f"Recipe: <code>{escape(recipe_name)}</code>.")
        kind = {"died": "error", "ready": "good"}.get(status.state, "notes")
        self._line.value = framed(f'<div class="glmlab-card glmlab-{kind}">{" ".join(parts)}</div>')

    def paint_log(self, status: PlayStatus) -> None:
        """Show the end of the log where it is wanted; from any thread."""
        path, wanted = status.log_path, self.log_button.value
        self.log_button.icon = "angle-down" if wanted else "angle-right"
        self.log_button.description = "Hide log" if wanted else "Show log"
        show(self.log_button, path is not None)
        show(self._log, path is not None and wanted)
        if path is None or not wanted:
            return
        lines = tail(path, _LOG_LINES) or "Nothing is logged yet. Before vLLM says anything it is imported."
        self._log.value = framed(f'<div class="glmlab-dim">{escape(str(path))}</div>{log_html(lines)}')
