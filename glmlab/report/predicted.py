"""What was predicted of each plan beside what it gave."""

from __future__ import annotations

from collections.abc import Sequence

from glmlab.plans.beside_tables import WORDS, caption, plan_heads, plan_rows, point_heads, point_rows, reasons
from glmlab.report.elements import Html, clip, folded, listing, section, table, tag
from glmlab.report.material import Material
from glmlab.units import counted

_MOST_ROWS = 120
_MOST_REASON = 300
_MOST_CELL = 200


def is_predicted(material: Material) -> bool:
    """Whether this part says anything: there are several plans to compare, or one with a prediction."""
    found = material.beside
    return len(found.plans) > 1 or bool(found.measured and not found.missing)


def predicted(material: Material) -> Html | None:
    """The plans in the order of what they gave, each with its prediction; then point by point."""
    if not is_predicted(material):
        return None
    found = material.beside
    said = found.sentence
    points = list(point_rows(found)) if not found.missing else []
    return section(
        "predicted",
        "Plans, predicted and measured",
        tag("p", f"{said[0].upper()}{said[1:]}."),
        _table(
            plan_heads(found), list(plan_rows(found)), "plans", caption(found), (0,) if found.measured else ()
        ),
        folded(f"point by point, {counted(len(points), 'row')}", _table(point_heads(found), points, "points"))
        if points
        else None,
        listing(clip(line, _MOST_REASON) for line in (*reasons(found), *found.notes)),
    )


def _table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str]],
    of: str,
    caption: str = "",
    marked: Sequence[int] = (),
) -> Html:
    left = len(rows) - _MOST_ROWS
    more = f"{counted(left, 'row')} more: glmlab show --predicted." if left > 0 else ""
    return table(
        [head if place < WORDS else f">{head}" for place, head in enumerate(heads)],
        [[clip(cell, _MOST_CELL) for cell in row] for row in rows[:_MOST_ROWS]],
        label=f"{of}, predicted and measured",
        caption=" ".join(part for part in (caption, more) if part) or None,
        marked=marked,
    )
