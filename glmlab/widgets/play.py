"""Play: a running engine under your hands. Move a setting, and see within seconds what it does."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from html import escape
from pathlib import Path
from threading import RLock
from typing import Any

import ipywidgets as W

from glmlab.engines.base import KnobStatus
from glmlab.errors import InputError, KnobError
from glmlab.figures import compare_data, draw_compare
from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe
from glmlab.ticker import Ticker
from glmlab.widgets.chart_box import ChartBox
from glmlab.widgets.engine_panel import EnginePanel
from glmlab.widgets.engine_places import CHILD, first_workload, recipe_at, start_engine
from glmlab.widgets.live_knob_row import LiveKnobRow
from glmlab.widgets.look import look, show
from glmlab.widgets.notice import Notice
from glmlab.widgets.play_history import history_columns, label, metric_for, result_line
from glmlab.widgets.player import RUNNING, Player, PlayStatus, Round, StartEngine
from glmlab.widgets.recipe_fields import recipe_fields
from glmlab.widgets.style import framed, html, stylesheet, title
from glmlab.widgets.table_twin import table_html
from glmlab.widgets.workload_form import WorkloadForm

_LOOK_S = 0.5
_CHART_HEIGHT = 380

EngineCallback = Callable[[Mapping[str, KnobStatus] | None], None]


class Play(W.VBox):
    """Start an engine, change what can be changed while it runs, and compare with what was before.

    Parameters
    ----------
    recipe : Recipe, str, Path, mapping or callable
        What to run; a callable is asked at each start.
    place : str
        Where the engine lives at first: ``child``, ``kernel``, or the name of a recording.
    theme : {"auto", "light", "dark"}
        Of the chart.
    start : callable, optional
        Starts an engine; for tests.
    """

    def __init__(
        self,
        recipe: Recipe | str | Path | Mapping[str, Any] | Callable[[], Recipe] = "tiny-glm4-moe",
        *,
        place: str = CHILD,
        theme: str = "auto",
        start: StartEngine = start_engine,
    ) -> None:
        self._recipe = recipe if callable(recipe) else _always(find_recipe(recipe))
        self._draw = functools.partial(draw_compare, theme=theme)
        self._callbacks: list[EngineCallback] = []
        self._told: Mapping[str, KnobStatus] | None = None
        live = [field for field in recipe_fields().values() if field.reach == "live"]
        # All are made here, filled when an engine answers: no widget is made in the background.
        self._rows = {field.name: LiveKnobRow(field) for field in live}
        self._chart = ChartBox(height=_CHART_HEIGHT)
        self._painting = RLock()  # what is read of the player and what is shown of it go together
        self.notice = Notice()
        self._ticker = Ticker(self._look, _LOOK_S, on_error=self.notice.tell)
        self.player = Player(self._paint, self._measured, self.notice.tell, start)
        self.engine = EnginePanel(place)
        self.workload = WorkloadForm(first_workload(self._what_runs(), place))
        self.apply = W.Button(
            icon="check",
            button_style="primary",
            tooltip="Change the engine to what is chosen above, then measure; else measure again",
            layout=look(width="auto", min_width="130px"),
        )
        self.back = W.Button(
            description="Choose the former values",
            icon="undo",
            tooltip="Put the values of the round before into the controls; Apply makes them count",
            layout=look(width="auto"),
        )
        self._fixed = html()
        buttons = W.HBox([self.apply, self.back], layout=look(flex_flow="row wrap"))
        self._bench = W.VBox([title("Live settings"), *self._rows.values(), self._fixed, buttons])
        self._result, self._history = html(), html()
        self._shown = W.VBox([title("What it did"), self._result, self._chart, self._history])
        show(self._shown, visible=False)
        head = [stylesheet(), title("Engine"), self.engine, title("What is measured"), self.workload]
        super().__init__([*head, self._bench, self.notice, self._shown])
        guarded = self.notice.guarded
        self.apply.on_click(guarded(self._apply_clicked))
        self.back.on_click(guarded(self._back_clicked))
        self.engine.connect(
            guarded,
            start=self.start_engine,
            stop=self.close_engine,
            place=self._place_chosen,
            log=self._paint,
        )
        self._paint()

    # ------------------------------------------------------------------ for other code
    @property
    def status(self) -> PlayStatus:
        """Where the engine is."""
        return self.player.status

    @property
    def rounds(self) -> list[Round]:
        """What was measured, in order."""
        return list(self.player.rounds)

    def on_engine(self, callback: EngineCallback) -> None:
        """Call back with what a running engine can change, or None without one; from any thread."""
        self._callbacks.append(callback)

    def start_engine(self) -> None:
        """What the start button does; returns at once.

        Raises
        ------
        InputError
            For a workload that cannot be, or an engine that runs already.
        """
        workload = self.workload.workload
        recipe = self._what_runs()
        self.notice.clear()
        self.player.start(recipe, self.engine.place.value, workload)
        self._ticker.start()

    def close_engine(self) -> None:
        """End the engine, whatever it does; returns at once."""
        self.player.close()

    def wait(self, timeout_s: float = 600.0) -> PlayStatus:
        """Return once nothing is under way; for scripts and tests.

        Parameters
        ----------
        timeout_s : float
            Until then at most.
        """
        self.player.wait_idle(timeout_s)
        return self.status

    def __repr__(self) -> str:
        """What stands where no front end shows widgets."""
        return f"Play({self._name()}: {self.status.text} {len(self.rounds)} measured)"

    def close(self) -> None:
        """End the engine and take it off the page."""
        if (player := getattr(self, "player", None)) is not None:  # one never finished is closed, too
            self._ticker.stop()
            player.end()
        super().close()

    # ------------------------------------------------------------------ what the user does
    def _what_runs(self) -> Recipe:
        return recipe_at(self._recipe(), self.engine.place.value)

    def _place_chosen(self) -> None:
        self.workload.show_workload(first_workload(self._what_runs(), self.engine.place.value))
        self.notice.clear()
        self._paint()

    def _apply_clicked(self, _: Any) -> None:
        workload = self.workload.workload
        knobs: dict[str, Any] = {}
        wrong: list[str] = []
        for name, row in self._rows.items():
            if row.is_changed:
                try:
                    knobs[name] = row.value
                except KnobError as error:
                    wrong.append(str(error))
        if wrong:
            raise InputError("; ".join(wrong))
        self.notice.clear()
        self.player.apply(knobs, workload)

    def _back_clicked(self, _: Any) -> None:
        former = self._before_last()
        if former is None:
            raise InputError("there is no former state of this engine yet: apply a change first")
        for name, row in self._rows.items():
            row.put_back(former.values.get(name))
        self.notice.say("The former values are chosen; press Apply to make them count.")

    def _before_last(self) -> Round | None:
        rounds = self.player.rounds
        return rounds[-2] if len(rounds) > 1 and rounds[-2].recipe == rounds[-1].recipe else None

    # ------------------------------------------------------------------ what is shown, from any thread
    def _look(self) -> None:
        """Twice a second while there is an engine: does it live, how long does it take, what does it say."""
        self.player.look()
        with self._painting:
            self.engine.paint_line(self.status, self._name())
            self.engine.paint_log(self.status)
        if self.status.state not in RUNNING:
            self._ticker.stop()

    def _name(self) -> str:
        status = self.status
        running = status.recipe if status.state in RUNNING else None
        return (running or self._what_runs()).name

    def _paint(self) -> None:
        with self._painting:
            self._paint_all()

    def _paint_all(self) -> None:
        status = self.status
        state = status.state
        self.engine.paint(status, self._name())
        self.apply.description = {"applying": "Changing ...", "measuring": "Measuring ..."}.get(
            state, "Apply and measure"
        )
        self.apply.disabled = state != "ready"
        self.back.disabled = self._before_last() is None or state != "ready"
        self._paint_knobs(status.knobs)

    def _paint_knobs(self, knobs: Mapping[str, KnobStatus] | None) -> None:
        show(self._bench, visible=knobs is not None)
        if knobs is self._told:
            return
        self._told = knobs
        if knobs is not None:
            for name, row in self._rows.items():
                row.fill(knobs.get(name))
            self._fixed.value = framed(_fixed_html(knobs))
        for callback in self._callbacks:
            callback(knobs)

    def _measured(self, this: Round) -> None:
        rounds = self.player.rounds
        former = rounds[-2] if len(rounds) > 1 else None
        said = escape(result_line(this, former))
        self._result.value = framed(f'<div class="glmlab-card glmlab-good" role="status">{said}</div>')
        both = {label(this, former): this.measurement}
        if former is not None:
            both = {label(former, this): former.measurement, **both}
        self._chart.show(compare_data(both, metric_for(*both.values())), self._draw)
        table = table_html(history_columns(rounds), caption="What was tried, newest first")
        self._history.value = framed(table)
        show(self._shown, visible=True)


def _always(recipe: Recipe) -> Callable[[], Recipe]:
    return lambda: recipe


def _fixed_html(knobs: Mapping[str, KnobStatus]) -> str:
    """What the engine cannot change live, with its reasons, folded."""
    fixed = {name: status.why for name, status in knobs.items() if not status.live}
    lines = "".join(f"<li><code>{escape(name)}</code>: {escape(why)}</li>" for name, why in fixed.items())
    if not fixed:
        return ""
    return (
        f"<details><summary>{len(fixed)} settings that this engine cannot change live, and why</summary>"
        f"<ul>{lines}</ul></details>"
    )
