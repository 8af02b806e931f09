"""The charts of a study, each with its table: what a report and optuna-dashboard show."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import plotly.graph_objects as go

from glmlab import figures
from glmlab.figures.trials import word
from glmlab.report.elements import Html, clip, folded, table, tag
from glmlab.report.material import Material
from glmlab.report.words import digits
from glmlab.units import counted

_MOST_CELL = 80  # characters of one cell
_TRANSPARENT = "rgba(0,0,0,0)"
_HEIGHTS = {"cost": 560, "rounds": 380}
_HEIGHT = 440


@dataclass(frozen=True)
class Chart:
    """One chart.

    Attributes
    ----------
    key : str
        Its name within a page.
    asks : str
        The question that it answers.
    data : ChartData
        What it shows.
    drawing : callable
        Data and theme -> figure.
    """

    key: str
    asks: str
    data: figures.ChartData
    drawing: Callable[[Any, str], go.Figure]

    @property
    def height(self) -> int:
        """In pixels, in a report."""
        return _HEIGHTS.get(self.key, _HEIGHT)

    def figure(self, theme: str, height: int | None = None) -> go.Figure:
        """The chart on a transparent ground."""
        drawn = self.drawing(self.data, theme)
        drawn.update_layout(
            paper_bgcolor=_TRANSPARENT, plot_bgcolor=_TRANSPARENT, height=height or self.height
        )
        return drawn

    def saying(self, why: str) -> Chart:
        """The same chart with nothing but a sentence in it."""
        return replace(self, data=replace(self.data, missing=why))

    def as_json(self) -> str:
        """The chart in light and dark; data that both share are in it once."""
        light, dark = (json.loads(self.figure(theme).to_json()) for theme in ("light", "dark"))
        if dark["data"] == light["data"]:
            del dark["data"]
        return json.dumps({"light": light, "dark": dark}, separators=(",", ":"))

    def html(self, most_rows: int) -> Html:
        """Where it is drawn, and its table below."""
        return tag(
            "figure",
            tag("figcaption", self.asks),
            tag(
                "div",
                tag("p", "Drawing needs a browser that runs scripts; the numbers are in the table below."),
                class_="plot",
                data_chart=self.key,
                style=f"min-height:{self.height}px",
            ),
            self._twin(most_rows),
            class_="chart",
            id=f"chart-{self.key}",
        )

    def _twin(self, most_rows: int) -> Html:
        columns = self.data.columns()
        rows = list(zip(*columns.values(), strict=True))
        heads = [f">{n}" if _is_of_numbers(values) else n for n, values in columns.items()]
        caption = (
            None
            if len(rows) <= most_rows
            else f"the first {most_rows:,} of {len(rows):,} rows; every trial is in the CSV file"
        )
        return folded(
            f"as a table, {counted(len(rows), 'row')}",
            # Open until a script folds it: without one it is all there is to see.
            table(
                heads,
                [[_cell(value) for value in row] for row in rows[:most_rows]],
                label=f"{self.data.title}, as a table",
                caption=caption,
            ),
            opened=True,
            class_="twin",
        )


def charts_of(material: Material) -> dict[str, Chart]:
    """The charts that have something to say about a study, by their keys."""
    records, spec, baseline = material.records, material.spec, material.baseline_params or None
    work = spec.effective_workload
    found = [
        Chart(
            "rounds",
            "Did every round agree?",
            figures.rounds_data(material.visits, material.summary.verdict, spec),
            figures.draw_rounds,
        ),
        Chart(
            "history",
            "What did each trial give, and when was the best found?",
            figures.history_data(records, spec, baseline),
            figures.draw_history,
        ),
        Chart(
            "cost",
            "Where did the seconds go, and what would restarts have cost?",
            figures.cost_data(records, material.visits),
            figures.draw_cost,
        ),
    ]
    if len(work.contexts) > 1:
        found += [
            Chart(
                "context",
                "How does it change with the length of the context?",
                figures.context_data(records, spec),
                figures.draw_context,
            ),
            Chart(
                "heatmap",
                "Which value is best at which context?",
                figures.heatmap_data(records, spec),
                figures.draw_heatmap,
            ),
        ]
    if len(spec.knob_space) > 1:
        found.append(
            Chart(
                "parallel",
                "Which knobs go together?",
                figures.parallel_data(records, spec, baseline=baseline),
                figures.draw_parallel,
            )
        )
    if len(spec.objective) > 1 or len(work.batch_sizes) > 1:
        found.append(
            Chart(
                "pareto",
                "What is had at the price of what?",
                figures.pareto_data(records, spec, baseline=baseline),
                figures.draw_pareto,
            )
        )
    return {chart.key: chart for chart in found if not chart.data.is_empty}


def _is_of_numbers(values: Sequence[Any]) -> bool:
    known = [value for value in values if value is not None]
    return bool(known) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known)


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return word(value)
    if isinstance(value, float):
        return digits(value)
    return clip(str(value), _MOST_CELL)
