"""Context: a metric against the length of the context, one line for each value of a knob."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import plotly.graph_objects as go

from glmlab import theme as themes
from glmlab.dimension import Value
from glmlab.figures.chart import ChartData, dress, hover, nothing
from glmlab.figures.context_axis import Line, draw_lines
from glmlab.figures.quantity import (
    Spread,
    point_metric,
    point_spread,
    times,
    with_unit,
)
from glmlab.figures.trials import (
    best_of_each_value,
    chart_knob,
    complete,
    evidence_of,
    find_baseline,
    word,
)
from glmlab.knobs import Params, in_words
from glmlab.study_spec import StudySpec
from glmlab.summary import best_record
from glmlab.trial_record import TrialRecord

MOST_LINES = 8  # beside the baseline: more cannot be told apart


@dataclass(frozen=True, kw_only=True)
class ContextLine:
    """One trial over all contexts and batches.

    Attributes
    ----------
    value : bool, int, float, str or None
        Of the knob.
    trials : int
        How many trials had this value; the line is the best of them.
    points : dict
        (context, batch) -> value with p10 and p90 of its samples.
    """

    value: Value
    trial: int
    trials: int
    params: Params
    is_baseline: bool
    is_best: bool
    points: Mapping[tuple[int, int], Spread]

    @property
    def label(self) -> str:
        marks = [name for name, is_so in (("baseline", self.is_baseline), ("best", self.is_best)) if is_so]
        return word(self.value) + (f" ({', '.join(marks)})" if marks else "")


@dataclass(frozen=True, kw_only=True)
class ContextData(ChartData):
    """The best trial of each value of a knob, and the baseline, at every context and batch."""

    knob: str
    metric: str
    lines: tuple[ContextLine, ...]

    @property
    def baseline(self) -> ContextLine | None:
        return next((line for line in self.lines if line.is_baseline), None)

    @property
    def contexts(self) -> list[int]:
        return sorted({context for line in self.lines for context, _ in line.points})

    @property
    def batches(self) -> list[int]:
        return sorted({batch for line in self.lines for _, batch in line.points})

    def ratio(self, line: ContextLine, point: tuple[int, int]) -> float | None:
        """To the baseline's value at the same point."""
        base = self.baseline and self.baseline.points.get(point)
        return line.points[point].value / base.value if base and base.value else None

    def columns(self) -> Mapping[str, Sequence[Any]]:
        rows = [(line, point, spread) for line in self.lines for point, spread in line.points.items()]
        return {
            self.knob: [line.value for line, _, _ in rows],
            "context_tokens": [point[0] for _, point, _ in rows],
            "batch_requests": [point[1] for _, point, _ in rows],
            self.metric: [spread.value for _, _, spread in rows],
            f"{self.metric}_p10": [spread.low for _, _, spread in rows],
            f"{self.metric}_p90": [spread.high for _, _, spread in rows],
            "ratio_to_baseline": [self.ratio(line, point) for line, point, _ in rows],
            "trial": [line.trial for line, _, _ in rows],
            "of_trials": [line.trials for line, _, _ in rows],
            "is_baseline": [line.is_baseline for line, _, _ in rows],
            "is_best": [line.is_best for line, _, _ in rows],
            "evidence": [self.evidence] * len(rows),
        }


def context_data(
    records: Sequence[TrialRecord],
    spec: StudySpec,
    knob: str | None = None,
    metric: str | None = None,
    *,
    baseline: Mapping[str, Value] | None = None,
) -> ContextData:
    """Read a metric against context off a study's records.

    Parameters
    ----------
    records : sequence of TrialRecord
        In the order of their numbers.
    spec : StudySpec
        The study.
    knob : str, optional
        One line for each of its values; KV splits by default, else the first live knob.
    metric : str, optional
        Device time where every record has it, else the objective where a point has one, else time per token.
    baseline : mapping, optional
        The baseline's values; else found among the records.

    Raises
    ------
    InputError
        For a knob that the study does not move, or a metric that no point has.
    """
    knob = chart_knob(spec, knob)
    known = complete(records)
    metric = point_metric(known, spec, metric)
    first = find_baseline(records, spec, baseline)
    best = best_record(known, spec)

    def line(record: TrialRecord, count: int) -> ContextLine:
        found = record.measurement.points if record.measurement else []
        spreads = {(p.context, p.batch): point_spread(p, metric) for p in found}
        return ContextLine(
            value=record.params.get(knob),
            trial=record.number,
            trials=count,
            params=record.params,
            is_baseline=record is first,
            is_best=record is best,
            points={point: spread for point, spread in spreads.items() if spread is not None},
        )

    lines = []
    for record, count in best_of_each_value(known, spec, knob).values():
        if first is not None and first is not record and first.params.get(knob) == record.params.get(knob):
            lines.append(line(first, count))
        lines.append(line(record, count))
    lines = [each for each in lines if each.points]
    missing = "" if lines else f"No trial with {metric} has finished yet: a value of {knob} is a line."
    return ContextData(
        title=f"{metric} against context, by {knob}",
        evidence=evidence_of(records, spec),
        missing=missing,
        knob=knob,
        metric=metric,
        lines=tuple(lines),
    )


def lines_to_draw(lines: Sequence[ContextLine], most: int = MOST_LINES) -> list[ContextLine]:
    """Baseline and best, and of the others as many as can be told apart, evenly spread over the values."""
    others = [line for line in lines if not (line.is_baseline or line.is_best)]
    if len(others) > most:
        last = len(others) - 1
        kept = {id(others[round(index * last / (most - 1))]) for index in range(most)}
        others = [line for line in others if id(line) in kept]
    chosen = {id(line) for line in others}
    return [line for line in lines if line.is_baseline or line.is_best or id(line) in chosen]


def draw_context(data: ContextData, theme: str = "auto") -> go.Figure:
    """Draw it: a panel for each batch size; bars from p10 to p90; the baseline heavy."""
    if data.is_empty:
        return nothing(data, theme)
    lines = lines_to_draw(data.lines)
    drawn = []
    for rank, (line, look) in enumerate(zip(lines, themes.styles(len(lines)), strict=True)):
        heavy = themes.Style(themes.ink(theme).strong, themes.BASELINE_MARKER, "solid")
        drawn.append(
            Line(
                name=line.label,
                group=str(line.trial),
                rank=rank,
                points=line.points,
                look=heavy if line.is_baseline else look,
                is_heavy=line.is_baseline,
                hover=partial(_hover, data, line),
            )
        )
    figure = draw_lines(sorted(drawn, key=lambda line: line.is_heavy), data.metric)  # the baseline on top
    dress(figure, data, theme, _subtitle(data, len(lines)))
    figure.update_layout(legend={"title": {"text": data.knob, "side": "top"}})
    return figure


def _subtitle(data: ContextData, drawn: int) -> str:
    said = ["bars: p10 to p90 of the samples"]
    if any(line.trials > 1 for line in data.lines):
        said.append("each line: the best trial with that value")
    if drawn < len(data.lines):
        said.append(f"{drawn} of {len(data.lines)} lines drawn, all are in the table")
    return "; ".join(said)


def _hover(data: ContextData, line: ContextLine, point: tuple[int, int]) -> str:
    spread, ratio = line.points[point], data.ratio(line, point)
    beside = f", {times(ratio)} of the baseline" if ratio is not None and not line.is_baseline else ""
    return hover(
        [
            f"{data.knob} = {line.label}",
            f"context {point[0]:,} tokens, batch {point[1]}",
            f"{data.metric} {with_unit(spread.value, data.metric)}{beside}",
            spread.words,
            f"trial #{line.trial}: {in_words(line.params)}",
        ]
    )
