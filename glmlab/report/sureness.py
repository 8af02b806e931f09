"""How sure a report is: what both sides gave in each round, for every metric and every point."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from glmlab.figures.quantity import times
from glmlab.measurement import METRICS, Measurement
from glmlab.report.elements import Child, Html, fragment, section, table, tag
from glmlab.report.material import Material
from glmlab.report.words import interval, meaning, quantity, spread
from glmlab.stats import Verdict, judge
from glmlab.trial_record import Visit
from glmlab.units import counted

Value = Callable[[Measurement], float | None]


def sureness(material: Material, chart: Child = None) -> Html | None:
    """Everything that the confirmation measured; nothing before it has a round."""
    if not material.rounds:
        return None
    verdict = material.summary.verdict
    metric = verdict.metric if verdict else material.spec.objective[0]
    evidence = material.summary.evidence
    return section(
        "sure",
        "How sure is it?",
        tag("p", _method(material, verdict)),
        _rounds(material, metric),
        chart,
        tag("h3", f"Everything else that was {evidence}"),
        _metrics(material),
        tag("h3", f"Point by point: {meaning(metric)}, {evidence}") if _has_points(metric) else None,
        _points(material, metric) if _has_points(metric) else None,
    )


def _method(material: Material, verdict: Verdict | None) -> str:
    first = (
        f"The search's own numbers do not count: the best of {counted(len(material.records), 'trial')} was"
        " picked for luck too. So baseline and best were visited again, in turn, each state entered anew, and"
        " compared round by round, which cancels slow drift of clocks and temperature."
    )
    if verdict is None or verdict.low is None:
        return f"{first} The confirmation is not complete yet."
    return (
        f"{first} The interval is Student's t over the logarithms of {counted(verdict.rounds, 'ratio')}; a"
        " win needs all of it on the better side of 1."
    )


def _rounds(material: Material, metric: str) -> Html:
    workload = material.spec.effective_workload
    rows = []
    for before, after in material.rounds:
        first, second = (v.measurement.value(metric, workload) for v in (before, after))
        ratio = times(second / first) if first and second else ""
        began = "best" if before.round % 2 else "baseline"
        rows.append(
            (
                str(before.round + 1),
                _said(metric, first),
                _said(metric, second),
                ratio,
                began,
                f"{_busy(before)} / {_busy(after)}",
            )
        )
    return table(
        ("round", ">baseline", ">best", ">best / baseline", "first", ">other processes' CPU"),
        rows,
        label="rounds of the confirmation",
        caption=f"{meaning(metric)}, {material.summary.evidence}; one value is one visit, the weighted mean"
        " over all points",
    )


def compared_metrics(material: Material) -> list[tuple[str, str, str, str, str]]:
    """Every metric that both sides have: its meaning, both sides, their ratio, which way is better.

    What decided, or is going to, comes first.
    """
    verdict, workload = material.summary.verdict, material.spec.effective_workload
    decided = verdict.metric if verdict else material.spec.objective[0]
    rows = []
    for name in [decided, *(name for name in METRICS if name != decided)]:
        if METRICS[name].needs_cold_prefill and not workload.cold_prefill:
            continue  # prompts came from the cache: that is no time to first token
        row = _compared(material, name, lambda m, name=name: m.value(name, workload))  # type: ignore[misc]
        if row is not None:
            rows.append((METRICS[name].help, *row, "higher" if METRICS[name].maximize else "lower"))
    return rows


def _metrics(material: Material) -> Html:
    rows: list[Sequence[Child]] = [
        (what, better, *values) for what, *values, better in compared_metrics(material)
    ]
    if rows and material.summary.verdict:
        rows[0] = (fragment(rows[0][0], tag("strong", " decided")), *rows[0][1:])
    return table(
        ("what", "better is", ">baseline", ">best", ">best / baseline"),
        rows,
        label="all metrics of baseline and best",
        caption=f"median of {counted(len(material.rounds), 'visit')} each (lowest to highest); ratio with its"
        " 95% interval. Only the first line was asked: of twenty others one would be off 1 by chance alone.",
        marked=(0,),
    )


def _points(material: Material, metric: str) -> Html:
    rows: list[Sequence[Child]] = []
    for context, batch in material.spec.effective_workload.points:

        def at(measured: Measurement, context: int = context, batch: int = batch) -> float | None:
            return METRICS[metric].of_point(measured.point(context, batch))

        row = _compared(material, metric, at)
        if row is not None:
            rows.append((f"{context:,}", f"{batch:,}", *row))
    return table(
        (">context [tokens]", ">batch [sequences]", ">baseline", ">best", ">best / baseline"),
        rows,
        label=f"{metric} at each point",
        caption="where it helps, and where it does not: median of the visits (lowest to highest), ratio with"
        " its 95% interval",
    )


def _compared(material: Material, metric: str, value: Value) -> tuple[str, str, str] | None:
    pairs = [(value(before.measurement), value(after.measurement)) for before, after in material.rounds]
    whole = [(a, b) for a, b in pairs if a and b]
    if not whole:
        return None
    before, after = ([pair[side] for pair in whole] for side in (0, 1))
    ratio = judge(before, after, metric=metric, maximize=METRICS[metric].maximize)
    return spread(metric, before), spread(metric, after), interval(ratio)


def _has_points(metric: str) -> bool:
    return not METRICS[metric].of_memory


def _said(metric: str, value: float | None) -> str:
    return "not measured" if value is None else quantity(metric, value)


def _busy(visit: Visit) -> str:
    noise = visit.measurement.noise
    return "not known" if noise is None else f"{noise.other_cpu_percent:.0f} %"
