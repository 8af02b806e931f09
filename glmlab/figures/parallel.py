"""Parallel coordinates: every trial as a line over all knobs, to its value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import plotly.graph_objects as go

from glmlab import theme as themes
from glmlab.dimension import Value, same_value
from glmlab.figures.chart import ChartData, canvas, nothing, plain
from glmlab.figures.quantity import digits, is_wide
from glmlab.figures.trials import complete, evidence_of, find_baseline, knob_columns, ordered_values, word
from glmlab.knobs import Params
from glmlab.measurement import find_metric
from glmlab.study_spec import StudySpec
from glmlab.trial_record import TrialRecord

_MOST_TICKS = 16
_VALUE_TICKS = 6
_LABEL_WIDTH = 19  # characters
_MIDDLE = "#8C8C8C"  # lines are one pixel wide: read on white and on black


@dataclass(frozen=True, kw_only=True)
class KnobAxis:
    """One knob: its values in order, those of trials where it was not active last."""

    name: str
    values: tuple[Value, ...]
    baseline: Value

    def place(self, value: Value) -> int:
        return next(index for index, known in enumerate(self.values) if same_value(known, value))


@dataclass(frozen=True, kw_only=True)
class ParallelData(ChartData):
    """One row for each trial with a value."""

    objectives: tuple[str, ...]
    axes: tuple[KnobAxis, ...]
    trial: tuple[int, ...]
    params: tuple[Params, ...]
    values: tuple[tuple[float, ...], ...]
    baseline_trial: int | None
    left_out: int

    def columns(self) -> Mapping[str, Sequence[Any]]:
        return {
            "trial": self.trial,
            **knob_columns(self.params, [axis.name for axis in self.axes]),
            **{name: [row[i] for row in self.values] for i, name in enumerate(self.objectives)},
            "is_baseline": [number == self.baseline_trial for number in self.trial],
            "evidence": [self.evidence] * len(self.trial),
        }


def parallel_data(
    records: Sequence[TrialRecord],
    spec: StudySpec,
    *,
    baseline: Mapping[str, Value] | None = None,
) -> ParallelData:
    """Read points and values off a study's records; trials without a value are left out and counted."""
    known = complete(records)
    first = find_baseline(records, spec, baseline)
    axes = []
    for dimension in spec.knob_space:
        values = list(dict.fromkeys(record.params.get(dimension.name) for record in known))
        axes.append(
            KnobAxis(
                name=dimension.name,
                values=tuple(ordered_values(spec, dimension.name, values)),
                baseline=first.params.get(dimension.name) if first else None,
            )
        )
    return ParallelData(
        title=f"Knobs and {', '.join(spec.objective)} of {spec.study}",
        evidence=evidence_of(records, spec),
        missing="" if known else "No trial with a value has finished yet: each is a line over the knobs.",
        objectives=spec.objective,
        axes=tuple(axes),
        trial=tuple(record.number for record in known),
        params=tuple(record.params for record in known),
        values=tuple(record.values or () for record in known),
        baseline_trial=first.number if first else None,
        left_out=len(records) - len(known),
    )


def draw_parallel(data: ParallelData, theme: str = "auto") -> go.Figure:
    """Draw it: drag along an axis to keep only the trials that pass there; the best end is always up."""
    if data.is_empty:
        return nothing(data, theme)
    metric = find_metric(data.objectives[0])
    said = f"blue: better {metric.name}, better ends up; drag along an axis to filter"
    if data.left_out:
        said += f"; {data.left_out} without a value left out"
    figure = canvas(data, theme, said)
    values = [row[0] for row in data.values]
    figure.add_parcoords(
        dimensions=[_knob(axis, data) for axis in data.axes]
        + [_objective(data, index) for index in range(len(data.objectives))],
        line={
            "color": [math.log10(value) for value in values] if is_wide(values) else values,
            "colorscale": themes.better_worse_scale(maximize=metric.maximize, middle=_MIDDLE),
        },
        labelfont={"size": 12, "shadow": "none"},  # plotly's is white, whatever is below
        tickfont={"size": 12, "shadow": "none"},
        rangefont={"size": 1, "color": "rgba(0,0,0,0)", "shadow": "none"},  # the ticks say it
        unselected={"line": {"color": "#808080", "opacity": 0.15}},
    )
    figure.update_layout(margin={"t": figure.layout.margin.t + 56, "l": 100, "r": 60})
    return figure


def _knob(axis: KnobAxis, data: ParallelData) -> dict[str, Any]:
    """Values stand evenly, as listed: what lies between two of them was not tried."""
    places = {word(value): index for index, value in enumerate(axis.values)}
    step = max(1, math.ceil(len(axis.values) / _MOST_TICKS))
    has_baseline = data.baseline_trial is not None
    ticks = [
        index
        for index, value in enumerate(axis.values)
        if index % step == 0 or (has_baseline and same_value(value, axis.baseline))
    ]
    texts = [
        word(axis.values[i])
        + (" ◂ base" if has_baseline and same_value(axis.values[i], axis.baseline) else "")
        for i in ticks
    ]
    return {
        "label": _label(axis.name),
        "values": [places[word(params.get(axis.name))] for params in data.params],
        "range": [-0.4, len(axis.values) - 0.6],
        "tickvals": ticks,
        "ticktext": [plain(text) for text in texts],
    }


def _objective(data: ParallelData, index: int) -> dict[str, Any]:
    metric = find_metric(data.objectives[index])
    values = [row[index] for row in data.values]
    label = f"{_label(metric.name)}<br>[{metric.unit}]"
    if not is_wide(values):
        return {"label": label, "values": values, "range": _best_up(values, maximize=metric.maximize)}
    ticks = _log_ticks(values)
    logs = [math.log10(value) for value in values]
    return {
        "label": label,
        "values": logs,
        "range": _best_up(logs, maximize=metric.maximize),
        "tickvals": [math.log10(tick) for tick in ticks],
        "ticktext": [digits(tick) for tick in ticks],
    }


def _label(name: str) -> str:
    """A name over as many lines as it needs: axes stand close."""
    return "<br>".join(plain(line) for line in wrap(name.replace("_", "_ "), _LABEL_WIDTH)).replace("_ ", "_")


def _best_up(values: Sequence[float], *, maximize: bool) -> list[float]:
    low, high = min(values), max(values)
    if low == high:  # plotly would draw an axis of no length
        low, high = low - 0.5, high + 0.5
    return [low, high] if maximize else [high, low]


def _log_ticks(values: Sequence[float]) -> list[float]:
    """Round numbers of one significant digit, evenly spread over the logarithm, inside the values."""
    low, high = math.log10(min(values)), math.log10(max(values))
    step = (high - low) / (_VALUE_TICKS - 1)
    found = [float(f"{10 ** (low + step * index):.2g}") for index in range(_VALUE_TICKS)]
    return list(dict.fromkeys(found))
