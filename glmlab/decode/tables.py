"""A prediction as tables for the terminal and as HTML for a notebook: one table for each batch size."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from glmlab.decode.prediction import TERMS, PredictedPoint, Range
from glmlab.roomy_table import Roomy

if TYPE_CHECKING:
    from glmlab.decode.prediction import Prediction

_HEADS = ("context", "tokens/s", "ms", "range", *TERMS)
_SPARE = (*reversed(TERMS), "range")  # what a narrow terminal does without, the least needed first
_CAPTION = (
    "ms per output token of a sequence, and what it is made of; range: all constants at their best, all at"
    " their"
    " worst. floor: small kernels and waiting for the host"
)


def prediction_tables(found: Prediction) -> RenderableType:
    """Points, terms and notes, for a terminal of 80 columns."""
    parts: list[RenderableType] = [Text(_title(found), style="bold")]
    for batch in _batches(found):
        rows = Table(title=f"batch {batch}", title_justify="left", box=None, pad_edge=False)
        for head in _HEADS:
            rows.add_column(head, justify="right")
        for point in found.points:
            if point.batch == batch:
                rows.add_row(*_cells(point))
        parts.append(Roomy(rows, _SPARE))
    parts.append(Text(_CAPTION, style="dim"))
    return Group(*parts, *(Text(f"note: {note}", style="yellow") for note in found.notes))


def prediction_html(found: Prediction) -> str:
    """The same for a notebook."""
    tables = ""
    for batch in _batches(found):
        heads = "".join(f"<th>{head}</th>" for head in _HEADS)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(point)) + "</tr>"
            for point in found.points
            if point.batch == batch
        )
        tables += f"<table><caption>batch {batch}</caption><tr>{heads}</tr>{rows}</table>"
    notes = "".join(f"<li>{escape(note)}</li>" for note in found.notes)
    return (
        f"<p><b>{escape(_title(found))}</b></p>{tables}<p><small>{escape(_CAPTION)}</small></p>"
        + (f"<ul>{notes}</ul>" if notes else "")
    )  # fmt: skip


def number(value: float) -> str:
    """Three digits that count, without an exponent."""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def span(found: Range) -> str:
    """The two ends of a range."""
    return f"{number(found.low)}-{number(found.high)}"


def _cells(point: PredictedPoint) -> tuple[str, ...]:
    terms = (number(point.terms[term].value) for term in TERMS)
    return f"{point.context:,}", number(point.tokens_per_s), number(point.tpot_ms), span(point.tpot), *terms


def _batches(found: Prediction) -> list[int]:
    return sorted({point.batch for point in found.points})


def _title(found: Prediction) -> str:
    setup = found.setup
    recipe = setup.recipe
    return (
        f"{recipe.name} on {found.count} x {setup.gpu.name}: decode, predicted ({recipe.serving_engine},"
        f" {setup.choices.attention_backend}, {setup.choices.moe_backend}"
        f"{', all sequences starting together' if setup.together else ''})"
    )
