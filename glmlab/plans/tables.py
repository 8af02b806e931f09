"""Ranked plans as tables for the terminal, readable at 80 columns, and as HTML for a notebook."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from glmlab.decode.prediction import TERMS, PredictedPoint, Range
from glmlab.decode.tables import number, span
from glmlab.footprint.part import amount
from glmlab.plans.space import listed
from glmlab.roomy_table import Roomy
from glmlab.units import counted

if TYPE_CHECKING:
    from glmlab.plans.judged import JudgedPlan
    from glmlab.plans.ranking import RankedPlans

_MOST_ROWS = 12
_CAPTION = (
    "range: over all these contexts, all constants at their worst and at their best. * would be the fastest"
    " of all"
    " with some constants within their ranges: worth measuring"
)


def plans_tables(found: RankedPlans) -> RenderableType:
    """What is possible, the fastest first, where its time goes, what it costs; then what is not, and why."""
    parts: list[RenderableType] = [Text(_title(found), style="bold")]
    shown = found.possible[:_MOST_ROWS]
    if shown:
        parts += [_rates(found, shown, batch) for batch in found.workload.batch_sizes]
        if len(found.possible) > len(shown):
            parts.append(Text(f"and {len(found.possible) - len(shown)} slower ones: --json lists all"))
        parts += [Text(_CAPTION, style="dim"), Text(""), _terms(found, shown), Text("")]
        for line, labels in _remarks(found):
            parts += [Text(listed(labels), style="bold"), _indented(line)]
    for reason, labels in _reasons(found):
        parts += [Text(f"not possible: {listed(labels)}", style="red"), _indented(reason)]
    parts += [Text(f"note: {note}", style="yellow") for note in (*found.notes, *_notes(found))]
    parts.append(Text(_verdict(found), style="bold" if shown else "bold red"))
    return Group(*parts)


def plans_html(found: RankedPlans) -> str:
    """The same for a notebook."""
    tables = ""
    shown = found.possible[:_MOST_ROWS]
    for batch in found.workload.batch_sizes if shown else ():
        heads = "".join(f"<th>{escape(head)}</th>" for head in _heads(found))
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in _cells(each, batch)) + "</tr>"
            for each in shown
        )
        caption = escape(_caption_of(batch))
        tables += f"<table><caption>{caption}</caption><tr>{heads}</tr>{rows}</table>"
    remarks, blocked = (
        "".join(f"<li><b>{escape(listed(labels))}</b>: {escape(line)}</li>" for line, labels in lines)
        for lines in (_remarks(found), _reasons(found))
    )
    notes = "".join(f"<li>{escape(note)}</li>" for note in (*found.notes, *_notes(found)))
    return (
        f"<p><b>{escape(_title(found))}</b></p>{tables}<p><small>{escape(_CAPTION)}</small></p>"
        f"<p><b>{escape(_verdict(found))}</b></p>"
        + (f"<ul>{remarks}</ul>" if remarks else "")
        + (f"<details><summary>not possible</summary><ul>{blocked}</ul></details>" if blocked else "")
        + (f"<ul>{notes}</ul>" if notes else "")
    )


# ---------------------------------------------------------------------- possible ones
def _heads(found: RankedPlans) -> tuple[str, ...]:
    return ("", "plan", *(f"{context:,}" for context in found.workload.contexts), "range", "KV tokens")


def _caption_of(batch: int) -> str:
    return f"output tokens/s, batch {batch}, at a context of"


def _rates(found: RankedPlans, shown: tuple[JudgedPlan, ...], batch: int) -> Roomy:
    rows = Table(title=_caption_of(batch), title_justify="left", box=None, pad_edge=False)
    for place, head in enumerate(_heads(found)):
        rows.add_column(head, justify="left" if place < 2 else "right")
    for each in shown:
        rows.add_row(*_cells(each, batch))
    # The longest and the shortest context stay; the others of many go, from the middle on.
    return Roomy(rows, ("KV tokens", "range", *_heads(found)[-4:2:-1]))


def _cells(each: JudgedPlan, batch: int) -> tuple[str, ...]:
    points = _points(each, batch)
    slowest, fastest = (sum(getattr(p.tpot, end) for p in points) for end in ("high", "low"))
    rates = Range(*(batch * len(points) / total * 1e3 for total in (slowest, slowest, fastest)))
    mark = "*" if each.may_be_best else ""
    return (
        mark,
        each.plan.label,
        *(number(p.tokens_per_s) for p in points),
        span(rates),
        f"{each.kv_tokens:,}",
    )


def _points(each: JudgedPlan, batch: int) -> list[PredictedPoint]:
    assert each.prediction is not None
    return [point for point in each.prediction.points if point.batch == batch]


def _terms(found: RankedPlans, shown: tuple[JudgedPlan, ...]) -> Roomy:
    """Why the order is what it is."""
    context, batch = max(found.workload.contexts), min(found.workload.batch_sizes)
    rows = Table(
        title=f"where the time goes: ms per token at a context of {context:,}, batch {batch}"
        + ("; all: tokens/s over all points, by which plans are in order" if _are_several(found) else ""),
        title_justify="left",
        box=None,
        pad_edge=False,
    )
    heads = ("plan", *TERMS, "sum", "all")
    for place, head in enumerate(heads if _are_several(found) else heads[:-1]):
        rows.add_column(head, justify="left" if place == 0 else "right")
    for each in shown:
        assert each.prediction is not None
        point = each.prediction.point(context, batch)
        terms = (number(point.terms[term].value) for term in TERMS)
        over_all = (number(each.tokens_per_s or 0),) if _are_several(found) else ()
        rows.add_row(each.plan.label, *terms, number(point.tpot_ms), *over_all)
    return Roomy(rows, tuple(reversed(TERMS)))


def _are_several(found: RankedPlans) -> bool:
    """Whether plans are in the order of several points together, which no row shows."""
    return len(found.workload.points) > 1


def _remarks(found: RankedPlans) -> Iterator[tuple[str, list[str]]]:
    """Each remark once, with the plans that it is about."""
    about: dict[str, list[str]] = {}
    for each in found.possible[:_MOST_ROWS]:
        own = (
            f"rule {rule} warns; glmlab rules says why"
            for rule in each.warnings
            if rule not in found.warnings
        )
        for line in (*each.remarks, *own):
            about.setdefault(line, []).append(each.plan.label)
    yield from about.items()


# ---------------------------------------------------------------------- all others
def _reasons(found: RankedPlans) -> Iterator[tuple[str, list[str]]]:
    """Reasons with the plans that they keep from running; too little memory in one."""
    groups: dict[str, list[JudgedPlan]] = {}
    for each in found.plans:
        if each.blocked is not None and each.blocked_by != "memory":
            # A rule says its numbers; what it says of one plan holds for the others.
            key = each.blocked.rpartition("(rule ")[2] if each.blocked_by == "rule" else each.blocked
            groups.setdefault(key, []).append(each)
    for plans in groups.values():
        yield str(plans[0].blocked), [each.plan.label for each in plans]
    short = [each for each in found.plans if each.blocked_by == "memory"]
    if not short:
        return
    lacking = [
        f"{each.plan.label} ({amount(each.fit.short_bytes)})" for each in short if each.fit is not None
    ]
    said = (
        "too little memory on each GPU, by what stands beside it: glmlab fit says what would have to change"
    )
    yield said, lacking


def _indented(line: str) -> Padding:
    return Padding(Text(line), (0, 0, 0, 4), expand=False)


def _notes(found: RankedPlans) -> Iterator[str]:
    if found.warnings:
        yield f"rules that warn of every plan: {', '.join(found.warnings)}; glmlab rules says why"
    if found.base.recipes:
        yield (
            "of this model there are recipes, with another attention, KV format or engine: glmlab plan"
            f" {', '.join(found.base.recipes)}"
        )


def _verdict(found: RankedPlans) -> str:
    best = found.best
    if best is None:
        return f"no plan is possible on {found.count} x {found.gpu.name}"
    rivals = sum(each.may_be_best for each in found.possible) - best.may_be_best
    doubt = f"; {counted(rivals, 'other')} might be as fast" if rivals else ""
    count = len(found.possible)
    return f"{counted(count, 'plan')} possible, {best.plan.label} the fastest as predicted{doubt}"


def _title(found: RankedPlans) -> str:
    recipe = found.base.recipe
    engine = recipe.serving_engine
    version = found.versions.get(engine)
    best = found.best
    attention = f", {best.fit.choices.attention_backend}" if best is not None and best.fit is not None else ""
    named = "model" if found.base.of_model else "recipe"
    longest = "open" if recipe.max_model_len is None else f"{recipe.max_model_len:,}"
    return (
        f"{named} {recipe.name} on {found.count} x {found.gpu.name}, predicted"
        f" ({engine}{' ' + version if version else ''}{attention}, max_model_len {longest}"
        f"{', all sequences starting together' if found.together else ''})"
    )
