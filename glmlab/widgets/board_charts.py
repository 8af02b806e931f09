"""The charts of a board: which there are, what each is read from, and when it is out of date."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from glmlab import figures
from glmlab.session import EventKind, Session


@dataclass(frozen=True)
class Lens:
    """What of a study a chart is about, where it cannot show all; ``None`` lets the chart choose."""

    knob: str | None = None
    batch: int | None = None


@dataclass(frozen=True)
class BoardChart:
    """One chart of a session.

    Attributes
    ----------
    label : str
        What it is called where one chooses it.
    read : callable
        Session and lens -> data.
    draw : callable
        Data and theme -> figure.
    changed_by : frozenset of str
        Kinds of events after which it is out of date.
    newest : bool
        Whether its table shows the last rows where it has too many, or the first.
    looks_at : frozenset of str
        Parts of the lens that change it.
    """

    label: str
    read: Callable[[Session, Lens], Any]
    draw: Callable[[Any, str], go.Figure]
    changed_by: frozenset[EventKind]
    newest: bool = False
    looks_at: frozenset[str] = frozenset()


def rounds_of(session: Session, _: Lens | None = None) -> figures.RoundsData:
    """The rounds that confirm the present best, with the verdict where there is one."""
    summary = session.summary()
    return figures.rounds_data(session.visits(), summary.verdict if summary else None, session.spec)


_TRIALS: frozenset[EventKind] = frozenset({"trial"})
_VISITS: frozenset[EventKind] = frozenset({"visit", "state"})

CHARTS: tuple[BoardChart, ...] = (
    BoardChart(
        "History: value of each trial, best so far",
        lambda s, _: figures.history_data(s.records(), s.spec, s.baseline),
        figures.draw_history,
        _TRIALS,
        newest=True,
    ),
    BoardChart(
        "Time against context, one line per value",
        lambda s, lens: figures.context_data(s.records(), s.spec, lens.knob, baseline=s.baseline),
        figures.draw_context,
        _TRIALS,
        looks_at=frozenset({"knob"}),
    ),
    BoardChart(
        "Heat map: value against context",
        lambda s, lens: figures.heatmap_data(
            s.records(), s.spec, lens.knob, batch=lens.batch, baseline=s.baseline
        ),
        figures.draw_heatmap,
        _TRIALS,
        looks_at=frozenset({"knob", "batch"}),
    ),
    BoardChart(
        "Parallel coordinates: all knobs at once",
        lambda s, _: figures.parallel_data(s.records(), s.spec, baseline=s.baseline),
        figures.draw_parallel,
        _TRIALS,
    ),
    BoardChart(
        "Pareto: two metrics, and the front",
        lambda s, _: figures.pareto_data(s.records(), s.spec, baseline=s.baseline),
        figures.draw_pareto,
        _TRIALS,
    ),
    BoardChart(
        "Cost: where the seconds went",
        lambda s, _: figures.cost_data(s.records(), s.visits()),
        figures.draw_cost,
        _TRIALS | _VISITS,
        newest=True,
    ),
    BoardChart(
        "Confirmation: rounds of best and baseline",
        rounds_of,
        figures.draw_rounds,
        _TRIALS | _VISITS,
    ),
)
