"""Rounds: best and baseline, visit by visit, and the ratio that the verdict is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from glmlab import theme as themes
from glmlab.figures.chart import ChartData, dress, error_bars, hover, legend_below, nothing
from glmlab.figures.quantity import Spread, axis_title, times, whole_spread, with_unit
from glmlab.measurement import find_metric
from glmlab.stats import Verdict
from glmlab.study_spec import StudySpec
from glmlab.trial_record import Visit
from glmlab.units import counted

Side = Literal["baseline", "best"]


@dataclass(frozen=True, kw_only=True)
class RoundsData(ChartData):
    """One row for each round, of which the last may not be finished.

    Attributes
    ----------
    baseline, best : tuple of Spread or None
        What each round gave.
    verdict : Verdict or None
        ``None`` while the confirmation runs.
    """

    metric: str
    round: tuple[int, ...]
    baseline: tuple[Spread | None, ...]
    best: tuple[Spread | None, ...]
    verdict: Verdict | None

    @property
    def ratios(self) -> list[float | None]:
        """Best over baseline, round by round."""
        return [
            best.value / base.value if best and base and base.value else None
            for base, best in zip(self.baseline, self.best, strict=True)
        ]

    def columns(self) -> Mapping[str, Sequence[Any]]:
        sides: dict[str, Sequence[Any]] = {}
        for side, spreads in (("baseline", self.baseline), ("best", self.best)):
            sides[f"{side}_{self.metric}"] = [s and s.value for s in spreads]
            sides[f"{side}_{self.metric}_p10"] = [s and s.low for s in spreads]
            sides[f"{side}_{self.metric}_p90"] = [s and s.high for s in spreads]
        return {
            "round": self.round,
            **sides,
            "ratio": self.ratios,
            "evidence": [self.evidence] * len(self.round),
        }


def rounds_data(visits: Sequence[Visit], verdict: Verdict | None, spec: StudySpec) -> RoundsData:
    """Read the rounds off the visits of a confirmation.

    Parameters
    ----------
    visits : sequence of Visit
        As far as there are any.
    verdict : Verdict or None
        Names the metric that decided; before there is one, it is the study's objective.
    spec : StudySpec
        The study.
    """
    metric = verdict.metric if verdict is not None else spec.objective[0]
    spreads: dict[tuple[int, str], Spread] = {}
    for visit in visits:
        found = whole_spread(visit.measurement, metric, spec.effective_workload)
        if found is not None:
            spreads[visit.round, visit.side] = found
    rounds = sorted({number for number, _ in spreads})
    evidence = dict.fromkeys(visit.measurement.evidence for visit in visits)
    missing = ""
    if not rounds:
        missing = (
            f"{verdict.reason.capitalize()}. Nothing was confirmed."
            if verdict is not None
            else "Not confirmed yet: the best and the baseline are measured again, in turn, after the search."
        )
    return RoundsData(
        title="Confirmation: best against baseline",
        evidence=", ".join(evidence) or spec.evidence,
        missing=missing,
        metric=metric,
        round=tuple(number + 1 for number in rounds),
        baseline=tuple(spreads.get((number, "baseline")) for number in rounds),
        best=tuple(spreads.get((number, "best")) for number in rounds),
        verdict=verdict,
    )


def draw_rounds(data: RoundsData, theme: str = "auto") -> go.Figure:
    """Draw it: values of each round on the left, their ratios and the interval on the right."""
    if data.is_empty:
        return nothing(data, theme)
    figure = make_subplots(rows=1, cols=2, column_widths=[0.5, 0.5], horizontal_spacing=0.18)
    dress(figure, data, theme, _subtitle(data))
    ink = themes.ink(theme)
    _add_side(figure, data, "baseline", data.baseline, themes.Style(ink.strong, "square", "solid"))
    _add_side(figure, data, "best", data.best, themes.Style(themes.COLOURS[0], "diamond", "dash"))
    _add_ratios(figure, data, ink)
    figure.update_xaxes(title={"text": "round [number]"}, dtick=1, row=1, col=1)
    figure.update_yaxes(title={"text": axis_title(data.metric)}, rangemode="tozero", row=1, col=1)
    better = "above" if find_metric(data.metric).maximize else "below"
    figure.update_xaxes(title={"text": f"best / baseline [ratio]<br>{better} 1 is better"}, row=1, col=2)
    legend_below(figure)
    return figure


def _subtitle(data: RoundsData) -> str:
    verdict = data.verdict
    if verdict is None:
        done = sum(ratio is not None for ratio in data.ratios)
        return f"{counted(done, 'round')} so far, no verdict yet; bars: p10 to p90 of the samples"
    span = ""
    if verdict.low is not None and verdict.high is not None:
        span = f" ({verdict.low:.3f} to {verdict.high:.3f}, {verdict.confidence:.0%} interval)"
    rounds = counted(verdict.rounds, "round")
    return f"{verdict.outcome}: {verdict.metric} {times(verdict.ratio)}{span}, {rounds}"


def _add_side(
    figure: go.Figure, data: RoundsData, side: Side, spreads: Sequence[Spread | None], look: themes.Style
) -> None:
    rows = [(number, spread) for number, spread in zip(data.round, spreads, strict=True) if spread]
    if not rows:
        return
    figure.add_trace(
        go.Scatter(
            x=[number for number, _ in rows], y=[spread.value for _, spread in rows], mode="lines+markers",
            name=side, line={"color": look.colour, "dash": look.dash, "width": 2},
            marker={"symbol": look.marker, "size": 10, "color": look.colour},
            text=[
                hover(
                    [f"{side}, round {number}", f"{data.metric} {with_unit(s.value, data.metric)}", s.words]
                )
                for number, s in rows
            ],
            hovertemplate="%{text}<extra></extra>",
            error_y=error_bars([spread for _, spread in rows]),
        ),
        row=1, col=1,
    )  # fmt: skip


def _add_ratios(figure: go.Figure, data: RoundsData, ink: themes.Ink) -> None:
    known = [
        (f"round {n}", ratio) for n, ratio in zip(data.round, data.ratios, strict=True) if ratio is not None
    ]
    figure.add_trace(
        go.Scatter(
            x=[ratio for _, ratio in known], y=[name for name, _ in known], mode="markers", name="one round",
            marker={"symbol": "circle-open", "size": 10, "color": themes.COLOURS[0], "line": {"width": 2}},
            hovertemplate="%{y}: ×%{x:.4f}<extra></extra>",
        ),
        row=1, col=2,
    )  # fmt: skip
    verdict = data.verdict
    names = [name for name, _ in known]
    if verdict is not None:
        names.append("all")
        bars = {}
        if verdict.low is not None and verdict.high is not None:
            bars["error_x"] = {
                "array": [verdict.high - verdict.ratio],
                "arrayminus": [verdict.ratio - verdict.low],
                "thickness": 3,
                "width": 8,
            }
        label = f"all rounds, {verdict.confidence:.0%} interval"
        figure.add_trace(
            go.Scatter(
                x=[verdict.ratio], y=["all"], mode="markers+text", name=label, text=[times(verdict.ratio)],
                textposition="top center", cliponaxis=False,
                marker={"symbol": "diamond", "size": 9, "color": ink.strong},
                hovertemplate=f"{hover([_subtitle(data)])}<extra></extra>", **bars,
            ),
            row=1, col=2,
        )  # fmt: skip
    figure.update_yaxes(
        type="category", categoryorder="array", categoryarray=names[::-1], showgrid=False, row=1, col=2
    )
    figure.add_vline(x=1, line={"color": ink.text, "dash": "dot", "width": 1.5}, row=1, col=2)
