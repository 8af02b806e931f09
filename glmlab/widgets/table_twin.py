"""A table of a chart's numbers, as HTML: what a screen reader reads, and who does not trust the drawing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from glmlab.figures.quantity import digits
from glmlab.units import counted

MOST_ROWS = 50
_SHORT = 40  # characters


def table_html(
    columns: Mapping[str, Sequence[Any]], *, caption: str = "", most: int = MOST_ROWS, newest: bool = False
) -> str:
    """Columns as a table of at most so many rows; how many there are in all is said.

    Parameters
    ----------
    columns : mapping
        Head, with its unit -> one value a row; ``None`` stays empty.
    caption : str
        What it is a table of.
    most : int
        Rows that are shown.
    newest : bool
        Whether the last rows are shown where there are too many, or the first.
    """
    heads = list(columns)
    total = max((len(values) for values in columns.values()), default=0)
    begin = max(total - most, 0) if newest else 0
    shown = range(begin, min(begin + most, total))
    looks = {name: _look(values[begin : begin + most]) for name, values in columns.items()}
    head = "".join(f"<th scope='col'{looks[name]}>{escape(name)}</th>" for name in heads)
    rows = "".join(
        "<tr>"
        + "".join(f"<td{looks[name]}>{escape(cell(columns[name][i]))}</td>" for name in heads)
        + "</tr>"
        for i in shown
    )
    said = escape(_caption(caption, len(shown), total, newest=newest))
    return (
        "<div class='glmlab-scroll'><table>"
        f"<caption style='text-align:left;caption-side:top'>{said}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def cell(value: Any) -> str:
    """One value as people write it: four digits of a number, never in exponent form."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return "" if math.isnan(value) else digits(value)
    return str(value)


def _caption(caption: str, shown: int, total: int, *, newest: bool) -> str:
    lead = f"{caption}: " if caption else ""
    if shown == total:
        return f"{lead}{counted(total, 'row')}"
    return f"{lead}the {'last' if newest else 'first'} {shown} of {total:,} rows"


def _look(values: Sequence[Any]) -> str:
    """Numbers flush right; what is short stays on one line, what is long is broken between words."""
    known = [value for value in values if value is not None]
    if known and all(isinstance(v, int | float) and not isinstance(v, bool) for v in known):
        return " class='glmlab-number'"
    if all(len(cell(value)) <= _SHORT for value in known):
        return " style='white-space:nowrap'"
    return " style='min-width:24em;overflow-wrap:break-word'"
