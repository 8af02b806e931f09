"""SpaceForm: every knob as a row, live ones first: which a study moves, over which values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import ipywidgets as W

from glmlab.engines.base import KnobStatus
from glmlab.knob_table import KNOBS, Reach
from glmlab.recipe import Recipe
from glmlab.widgets.field import refusal_html
from glmlab.widgets.knob_entry import KnobEntry
from glmlab.widgets.knob_row import KnobRow
from glmlab.widgets.look import look
from glmlab.widgets.style import framed, html, title

_HEADS: dict[Reach, str] = {
    "live": "Live: changed in the running engine, in seconds, with its KV cache kept",
    "rebuild": "Rebuild: each value needs an engine of its own, so it is varied on the outside",
}


class SpaceForm(W.VBox):
    """The knobs of a study.

    Parameters
    ----------
    recipe : Recipe
        The baseline.
    on_change : callable
        Called without arguments when something changed.
    """

    def __init__(self, recipe: Recipe, on_change: Callable[[], Any]) -> None:
        self.rows = {name: KnobRow(knob, recipe, on_change) for name, knob in KNOBS.items()}
        self._refusal = html()
        parts: list[Any] = [self._refusal]
        for reach, head in _HEADS.items():
            parts += [title(head, level=4), *(row for row in self.rows.values() if row.knob.reach == reach)]
        # In a box of their own: what scrolls would otherwise press its rows together.
        rows = W.VBox(parts, layout=look(flex="0 0 auto", overflow="visible"))
        super().__init__([rows], layout=look(max_height="26em", overflow="auto"))

    @property
    def entries(self) -> dict[str, KnobEntry]:
        """Knob -> its fields, of those that are moved; live ones first."""
        rows = sorted(self.rows.values(), key=lambda row: row.knob.reach != "live")
        return {row.knob.name: entry for row in rows if (entry := row.entry) is not None}

    def set(self, entries: Mapping[str, KnobEntry]) -> None:
        """Fill in which knobs are moved; all others are not."""
        for name, row in self.rows.items():
            row.set(entries.get(name))

    def know(self, recipe: Recipe, status: Mapping[str, KnobStatus]) -> None:
        """Take the baseline and what an engine can do; what it cannot change is locked with the reason."""
        for name, row in self.rows.items():
            row.know(recipe, status.get(name))

    def refuse(self, refusals: Mapping[str, str]) -> None:
        """Show each refusal beside its knob, that of the whole space at the top."""
        for name, row in self.rows.items():
            row.refuse(refusals.get(f"space.{name}", ""))
        whole = refusals.get("space", "")
        if whole and not self.entries:
            # Where nobody has chosen anything yet, nothing is wrong yet either.
            self._refusal.value = framed(
                "<span class='glmlab-dim'>Tick the knobs that the study moves.</span>"
            )
        else:
            self._refusal.value = refusal_html(whole) if whole else ""
