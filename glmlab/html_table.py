"""A plain table in HTML, as what a notebook shows of an object."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape


def html_table(rows: Iterable[Sequence[str]]) -> str:
    """Texts as a table; the first row is its head."""
    lines = []
    for index, row in enumerate(rows):
        tag = "td" if index else "th"
        cells = "".join(f"<{tag} style='text-align:left'>{escape(cell)}</{tag}>" for cell in row)
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"
