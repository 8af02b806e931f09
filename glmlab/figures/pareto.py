"""Pareto: two metrics against each other, and the trials that no other beats in both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from glmlab import theme as themes
from glmlab.dimension import Value
from glmlab.errors import InputError
from glmlab.figures.chart import ChartData, canvas, error_bars, hover, legend_below, log_axis, nothing, plain
from glmlab.figures.quantity import Spread, axis_title, is_wide, whole_spread, with_unit
from glmlab.figures.trials import complete, evidence_of, find_baseline, knob_columns
from glmlab.knobs import Params, in_words
from glmlab.measurement import find_metric
from glmlab.study_spec import StudySpec
from glmlab.trial_record import TrialRecord

_MANY = 1000


@dataclass(frozen=True, kw_only=True)
class ParetoData(ChartData):
    """One row for each trial that has both metrics.

    Attributes
    ----------
    on_front : tuple of bool
        Whether a trial keeps all constraints and no other that does is as good in both and better in one.
    """

    x: str
    y: str
    trial: tuple[int, ...]
    params: tuple[Params, ...]
    x_spread: tuple[Spread, ...]
    y_spread: tuple[Spread, ...]
    feasible: tuple[bool, ...]
    on_front: tuple[bool, ...]
    baseline_trial: int | None
    knobs: tuple[str, ...]

    def columns(self) -> Mapping[str, Sequence[Any]]:
        both: dict[str, Sequence[Any]] = {}
        for name, spreads in ((self.x, self.x_spread), (self.y, self.y_spread)):
            both[name] = [spread.value for spread in spreads]
            both[f"{name}_p10"] = [spread.low for spread in spreads]
            both[f"{name}_p90"] = [spread.high for spread in spreads]
        return {
            "trial": self.trial,
            **knob_columns(self.params, self.knobs),
            **both,
            "on_front": self.on_front,
            "keeps_constraints": self.feasible,
            "is_baseline": [number == self.baseline_trial for number in self.trial],
            "evidence": [self.evidence] * len(self.trial),
        }


def pareto_data(
    records: Sequence[TrialRecord],
    spec: StudySpec,
    x: str | None = None,
    y: str | None = None,
    *,
    baseline: Mapping[str, Value] | None = None,
) -> ParetoData:
    """Read two metrics off a study's records and find the front.

    Parameters
    ----------
    records : sequence of TrialRecord
        In the order of their numbers.
    spec : StudySpec
        The study.
    x, y : str, optional
        Metrics; the first two objectives by default, else rate and time per token.
    baseline : mapping, optional
        The baseline's values; else found among the records.

    Raises
    ------
    InputError
        For a name that is no metric, or twice the same.
    """
    default = spec.objective[:2] if len(spec.objective) > 1 else ("tokens_per_s", "tpot_ms")
    x = x or next(name for name in default if name != y)
    y = y or next(name for name in reversed(default) if name != x)
    for name in (x, y):
        find_metric(name)
    if x == y:
        raise InputError(f"x = {x!r}: y is the same metric; choose two")
    workload = spec.effective_workload
    rows = []
    for record in complete(records):
        if record.measurement is not None:
            across, up = (whole_spread(record.measurement, name, workload) for name in (x, y))
            if across is not None and up is not None:
                rows.append((record, across, up))
    places = [(across.value, up.value) if r.is_feasible else None for r, across, up in rows]
    first = find_baseline(records, spec, baseline)
    return ParetoData(
        title=f"{y} against {x} of {spec.study}",
        evidence=evidence_of(records, spec),
        missing="" if rows else f"No trial with both {x} and {y} has finished yet: each becomes a point.",
        x=x,
        y=y,
        trial=tuple(record.number for record, _, _ in rows),
        params=tuple(record.params for record, _, _ in rows),
        x_spread=tuple(across for _, across, _ in rows),
        y_spread=tuple(up for _, _, up in rows),
        feasible=tuple(record.is_feasible for record, _, _ in rows),
        on_front=tuple(
            front(places, maximize=(find_metric(x).maximize, find_metric(y).maximize)),
        ),
        baseline_trial=first.number if first else None,
        knobs=tuple(dimension.name for dimension in spec.knob_space),
    )


def front(places: Sequence[tuple[float, float] | None], *, maximize: tuple[bool, bool]) -> list[bool]:
    """Which points no other dominates; ``None`` is never one and dominates none. Equal points share it."""
    signs = [-1.0 if more else 1.0 for more in maximize]
    costs = [(signs[0] * p[0], signs[1] * p[1]) if p else None for p in places]
    found = [False] * len(places)
    least = float("inf")  # of y, among points with a smaller x
    order = sorted((cost, i) for i, cost in enumerate(costs) if cost)
    at = 0
    while at < len(order):
        (across, lowest), _ = order[at]
        while at < len(order) and order[at][0][0] == across:
            (_, up), index = order[at]
            found[index] = up == lowest < least
            at += 1
        least = min(least, lowest)
    return found


def draw_pareto(data: ParetoData, theme: str = "auto") -> go.Figure:
    """Draw it: stars on the front, joined by steps: nothing better was found beyond them."""
    if data.is_empty:
        return nothing(data, theme)
    count = sum(data.on_front)
    figure = canvas(
        data, theme, f"{count} of {len(data.trial)} trials are on the front; bars: p10 to p90 of samples"
    )
    rows = range(len(data.trial))
    base = next((i for i in rows if data.trial[i] == data.baseline_trial), None)
    on = sorted((i for i in rows if data.on_front[i]), key=lambda i: data.x_spread[i].value)
    off = [i for i in rows if data.feasible[i] and not data.on_front[i] and i != base]
    broken = [i for i in rows if not data.feasible[i]]
    ink = themes.ink(theme)
    _add_points(figure, data, off, name="dominated", colour=themes.COLOURS[1], symbol="circle", size=7)
    _add_points(
        figure,
        data,
        broken,
        name="breaks a constraint",
        colour=themes.COLOURS[4],
        symbol="x-thin-open",
        size=8,
    )
    shape = "vh" if find_metric(data.x).maximize else "hv"
    _add_points(
        figure, data, on, name="front", colour=themes.COLOURS[2], symbol="star", size=12,
        line={"color": themes.COLOURS[2], "width": 1.5, "dash": "dash", "shape": shape}, bars=True,
    )  # fmt: skip
    if base is not None:
        _add_baseline(figure, data, base, ink)
    for name, axis, arrows, spreads in (
        (data.x, "xaxis", "←→", data.x_spread),
        (data.y, "yaxis", "↓↑", data.y_spread),
    ):
        log = is_wide(spread.value for spread in spreads)
        arrow = f"{arrows[find_metric(name).maximize]} "
        figure.update_layout(
            {
                axis: {
                    "title": {"text": axis_title(name, log=log, arrow=arrow)},
                    **(log_axis(spread.value for spread in spreads) if log else {}),
                }
            }
        )
    legend_below(figure)
    return figure


def _add_baseline(figure: go.Figure, data: ParetoData, row: int, ink: themes.Ink) -> None:
    """A star of its own over the point, and lines that part better from worse."""
    _add_points(
        figure, data, [row], name="baseline", colour=ink.strong, symbol="diamond-open-dot", size=16, bars=True
    )
    line = {"color": ink.strong, "width": 1, "dash": "dot"}
    figure.add_hline(y=data.y_spread[row].value, line=line, opacity=0.6)
    figure.add_vline(x=data.x_spread[row].value, line=line, opacity=0.6)


def _add_points(
    figure: go.Figure,
    data: ParetoData,
    rows: list[int],
    *,
    name: str,
    colour: str,
    symbol: str,
    size: int,
    line: dict[str, Any] | None = None,
    bars: bool = False,
) -> None:
    if not rows:
        return
    across, up = [data.x_spread[i] for i in rows], [data.y_spread[i] for i in rows]
    many = len(rows) > _MANY
    kind = go.Scattergl if many else go.Scatter
    figure.add_trace(
        kind(
            x=[spread.value for spread in across],
            y=[spread.value for spread in up],
            mode="lines+markers" if line else "markers",
            line=line,
            name=name,
            marker={"color": colour, "symbol": symbol, "size": size, "line": {"width": 2, "color": colour}},
            text=[_brief(data, i) if many else _hover(data, i) for i in rows],
            hovertemplate="%{text}<extra></extra>",
            error_x=error_bars(across) if bars else None,
            error_y=error_bars(up) if bars else None,
        )
    )


def _brief(data: ParetoData, row: int) -> str:
    """What thousands of points say, since all of it travels to the browser; the rest is in the table."""
    return plain(f"#{data.trial[row]}: {in_words(data.params[row])}")


def _hover(data: ParetoData, row: int) -> str:
    x, y = data.x_spread[row], data.y_spread[row]
    return hover(
        [
            f"trial #{data.trial[row]}" + (", on the front" if data.on_front[row] else ""),
            in_words(data.params[row]),
            f"{data.y} {with_unit(y.value, data.y)}: {y.words}",
            f"{data.x} {with_unit(x.value, data.x)}: {x.words}",
            "" if data.feasible[row] else "breaks a constraint",
        ]
    )
