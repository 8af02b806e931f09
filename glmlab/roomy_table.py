"""A table that gives up columns where a terminal is too narrow, so that those left can be read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from rich.console import Console, ConsoleOptions, RenderableType
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_ENDLESS = 10_000  # columns of text; a width that folds nothing


class Roomy:
    """A table whose less needed columns go first, and are named.

    Parameters
    ----------
    table : Table
        With all its columns and rows.
    spare : sequence of str
        Headers of those that may go, the least needed first.
    folds : bool
        Whether cells may fold between words before a column goes.
    """

    def __init__(self, table: Table, spare: Sequence[str], *, folds: bool = False) -> None:
        self._table, self._spare, self._folds = table, tuple(spare), folds

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        left_out: list[str] = []
        for name in self._spare:
            needed = Measurement.get(
                console, options.update(max_width=_ENDLESS), self._table_without(left_out)
            )
            if (needed.minimum if self._folds else needed.maximum) <= options.max_width:
                break
            left_out.append(name)
        yield self._table_without(left_out)
        if left_out:
            them = "it" if len(left_out) == 1 else "them"
            names = ", ".join(left_out).replace("\n", " ")
            said = f"no room here for {names}: a wider terminal shows {them}, and so does --json"
            yield Text(said, style="dim")

    def _table_without(self, names: Sequence[str]) -> Table:
        kept = [column for column in self._table.columns if column.header not in names]
        title = self._table.title
        made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
        made.columns = [replace(column, _index=index) for index, column in enumerate(kept)]
        made.rows = self._table.rows
        return made
