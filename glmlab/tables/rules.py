"""What ``glmlab check`` and ``glmlab rules`` print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from glmlab.rules import change_text, summed_up

if TYPE_CHECKING:
    from glmlab.recipe import Recipe
    from glmlab.rulebook.target import CheckTarget
    from glmlab.rules import Findings, Rule, Versions

_STYLE = {"blocks": "bold red", "warns": "yellow", "notes": "dim"}


def findings_json(found: Findings, recipe: Recipe, target: CheckTarget, versions: Versions) -> dict[str, Any]:
    """What ``glmlab check --json`` prints."""
    return {
        "recipe": recipe.name,
        "gpu": None if target.gpu is None else target.gpu.name,
        "count": None if target.gpu is None else target.count,
        "versions": dict(versions),
        "pinned": sorted(versions.pinned),
        "note": target.note,
        "blocked": found.blocked,
        "findings": [finding.to_json() for finding in found],
    }


def findings_list(found: Findings, recipe: Recipe, target: CheckTarget, versions: Versions) -> RenderableType:
    """Each finding as a paragraph, what blocks first."""
    where = "no GPU named" if target.gpu is None else f"{target.count} x {target.gpu.title}"
    engine = recipe.serving_engine
    parts: list[RenderableType] = [
        Text(f"{recipe.name} on {where}, {engine}; versions: {str(versions) or 'not known'}", style="bold")
    ]
    if target.note:
        parts.append(Text(target.note, style="yellow"))
    for each in found:
        parts.append(Text.assemble((each.severity, _STYLE[each.severity]), "  ", (each.id, "bold")))
        lines = [Text(each.why), Text(f"fix: {each.fix}")]
        if each.change:
            lines.append(Text(f"change: {change_text(each.change)}", style="cyan"))
        lines.append(Text(f"source: {each.source}", style="dim"))
        parts.append(Padding(Group(*lines), (0, 0, 0, 4)))
    parts.append(Text("whether it fits the memory: glmlab fit", style="dim"))
    parts.append(Text(summed_up(found), style="bold red" if found.blocked else "bold"))
    return Group(*parts)


def rules_table(rules: Sequence[Rule]) -> RenderableType:
    """All rules with their sources."""
    listing = Table(
        title=f"{len(rules)} rules", title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    for column in ("severity", "rule", "says", "source"):
        listing.add_column(column)
    for each in rules:
        severity = Text(each.severity, style=_STYLE[each.severity])
        # As text: braces and brackets of a rule are no style of rich's.
        listing.add_row(severity, Text(each.id), Text(each.why), Text(each.source, style="dim"))
    return listing
