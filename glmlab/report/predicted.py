"""What was predicted of each plan beside what it gave."""

from __future__ import annotations

from collections.abc import Sequence

from glmlab.plans.beside_tables import WORDS, caption, plan_heads, plan_rows, point_heads, point_rows, reasons
from glmlab.report.elements import Html, clip, folded, listing, section, table, tag
from glmlab.report.material import Material
from glmlab.report.words import count

_MOST_ROWS = 120
_MOST_REASON = 300


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
    rows = list(plan_rows(found))
    points = list(point_rows(found))
    left = len(points) - _MOST_ROWS
    return section(
        "predicted",
        "Plans, predicted and measured",
        tag("p", f"{said[0].upper()}{said[1:]}."),
        table(
            _heads(plan_heads(found)),
            rows[:_MOST_ROWS],
            label="plans, predicted and measured",
            caption=caption(found),
            marked=[0] if found.measured else (),
        ),
        folded(
            f"point by point, {count(len(points), 'row')}",
            table(
                _heads(point_heads(found)),
                points[:_MOST_ROWS],
                label="points, predicted and measured",
                caption=f"{count(left, 'row')} more: glmlab show --predicted" if left > 0 else None,
            ),
        )
        if points and not found.missing
        else None,
        listing(clip(line, _MOST_REASON) for line in (*reasons(found), *found.notes)),
    )


def _heads(heads: Sequence[str]) -> list[str]:
    return [head if place < WORDS else f">{head}" for place, head in enumerate(heads)]
