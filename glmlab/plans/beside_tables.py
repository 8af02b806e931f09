"""What was predicted beside what was measured: rows, and a terminal's and a notebook's view."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from glmlab.decode.prediction import Range
from glmlab.decode.tables import number, span
from glmlab.knobs import in_words
from glmlab.roomy_table import Roomy

if TYPE_CHECKING:
    from glmlab.plans.beside_measured import PredictedBesideMeasured

WORDS = 2  # columns of text, the first ones; the others are numbers
_NONE = "-"
_SPARE = ("device ms", "range", "predicted rank", "rank", "time ratio")  # the least needed first


def plan_heads(found: PredictedBesideMeasured) -> tuple[str, ...]:
    """Of :func:`plan_rows`."""
    heads = ("plan", "trial", f"{found.evidence} tokens/s", "rank")
    return heads if found.missing else (*heads, "predicted tokens/s", "range", "predicted rank", "time ratio")


def plan_rows(found: PredictedBesideMeasured) -> Iterator[tuple[str, ...]]:
    """A row for each compared trial, over the whole workload; plans without one say how they ended."""
    empty = (_NONE,) * (len(plan_heads(found)) - WORDS)
    for plan in found.plans:
        for trial in plan.trials:
            ranks = (plan.measured_rank, plan.predicted_rank) if trial.is_best else (None, None)
            knobs = f": {in_words(trial.knobs, '=')}" if trial.knobs else ""
            yield (
                plan.label,
                f"#{trial.number} {trial.role}{knobs}",
                number(trial.tokens_per_s),
                _or_none(ranks[0]),
                *(() if found.missing else (
                    *_range_cells(trial.predicted), _or_none(ranks[1]), _ratio(trial.ratio)
                )),
            )  # fmt: skip
        if not plan.trials:
            yield (plan.label, plan.outcome, *empty)


def point_heads(found: PredictedBesideMeasured) -> tuple[str, ...]:
    """Of :func:`point_rows`; with the device time where it was measured."""
    device = ("device ms",) if _has_device(found) else ()
    return (
        "plan",
        "trial",
        "context",
        "batch",
        f"{found.evidence} ms",
        *device,
        "predicted ms",
        "range",
        "time ratio",
    )


def point_rows(found: PredictedBesideMeasured) -> Iterator[tuple[str, ...]]:
    """A row for each point of each trial."""
    has_device = _has_device(found)
    for plan in found.measured:
        for trial in plan.trials:
            for point in trial.points:
                device_ms = _NONE if point.device_ms is None else number(point.device_ms)
                yield (
                    plan.label,
                    f"#{trial.number} {trial.role}",
                    f"{point.context:,}",
                    str(point.batch),
                    number(point.measured_ms),
                    *((device_ms,) if has_device else ()),
                    *_range_cells(point.predicted),
                    _ratio(point.ratio),
                )


def caption(found: PredictedBesideMeasured) -> str:
    """What the numbers are."""
    trials = "best: the fastest trial of its plan; default: live knobs as in the baseline"
    rate = "tokens/s: while decoding alone, from each request's second token on, one visit each"
    if found.missing:
        return f"{rate}. {trials}."
    device = (
        " device ms: kernel time of a step on the rank with most to compute." if _has_device(found) else ""
    )
    return (
        f"{rate}; ms: wall time per output token, median.{device} Predicted is the recipe of just this trial;"
        f" range: all constants at their ends; time ratio: predicted over {found.evidence} time. {trials}."
    )


def reasons(found: PredictedBesideMeasured) -> list[str]:
    """Why some trials came to nothing, plan by plan."""
    lines = []
    for plan in found.plans:
        lost = {status: count for status, count in plan.counts.items() if status != "complete"}
        if lost:
            counted = " and ".join(f"{count} {status}" for status, count in lost.items())
            lines.append(
                f"{plan.label}: {counted} of {sum(plan.counts.values())} trials; {plan.reason or 'no reason'}"
            )
    return lines


def beside_tables(found: PredictedBesideMeasured) -> RenderableType:
    """For a terminal."""
    parts: list[RenderableType] = [Text(_title(found), style="bold")]
    if found.plans:
        parts.append(_table(plan_heads(found), plan_rows(found)))
    if found.measured and not found.missing:
        heads = point_heads(found)[WORDS:]
        for words, rows in groupby(point_rows(found), key=lambda row: row[:WORDS]):
            # A table for each trial: 80 columns have no room for its name in every row.
            parts += [Text(f"\n{' '.join(words)}", style="bold"), _table(heads, rows, WORDS)]
        parts.append(Text(""))
    parts.append(Text(caption(found), style="dim"))
    parts += [Text(line, style="red") for line in reasons(found)]
    parts += [Text(f"note: {note}", style="yellow") for note in found.notes]
    parts.append(Text(found.sentence, style="bold"))
    return Group(*parts)


def beside_html(found: PredictedBesideMeasured) -> str:
    """For a notebook."""
    tables = _html(plan_heads(found), plan_rows(found)) if found.plans else ""
    if found.measured and not found.missing:
        tables += _html(point_heads(found), point_rows(found))
    lines = "".join(f"<li>{escape(line)}</li>" for line in (*reasons(found), *found.notes))
    return (
        f"<p><b>{escape(_title(found))}: {escape(found.sentence)}</b></p>{tables}"
        f"<p><small>{escape(caption(found))}</small></p>"
        + (f"<ul>{lines}</ul>" if lines else "")
    )  # fmt: skip


def _title(found: PredictedBesideMeasured) -> str:
    on = f", {found.gpu.name}" if found.gpu is not None else ""
    return f"study {found.study}{on}: predicted beside {found.evidence}"


def _table(heads: Sequence[str], rows: Iterable[tuple[str, ...]], left_out: int = 0) -> Roomy:
    """Words on the left, which may fold, and numbers, which may not; the first columns may be left out."""
    made = Table(box=None, pad_edge=False)
    for place, head in enumerate(heads, left_out):
        if place < WORDS:
            made.add_column(head, overflow="fold")
        else:
            made.add_column(head.replace(" ", "\n"), justify="right", no_wrap=True)
    for row in rows:
        made.add_row(*row[left_out:])
    return Roomy(made, [head.replace(" ", "\n") for head in _SPARE], folds=True)


def _html(heads: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><tr>{head}</tr>{body}</table>"


def _has_device(found: PredictedBesideMeasured) -> bool:
    return any(p.device_ms is not None for each in found.plans for trial in each.trials for p in trial.points)


def _range_cells(found: Range | None) -> tuple[str, str]:
    return (_NONE, _NONE) if found is None else (number(found.value), span(found))


def _ratio(value: float | None) -> str:
    return _NONE if value is None else f"{value:.2f}"


def _or_none(place: int | None) -> str:
    return _NONE if place is None else str(place)
