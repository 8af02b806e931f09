"""Where the seconds went, and what the same trials would have cost with a restart each."""

from __future__ import annotations

from glmlab.report.elements import Child, Html, section, table, tag
from glmlab.report.material import Material
from glmlab.units import format_duration


def ledger(material: Material, chart: Child = None) -> Html | None:
    """The cost of a study; nothing where no trial was paid for."""
    cost = material.summary.cost_s
    parts = (
        ("starting engines", cost.rebuild, "ending the former one, starting the next"),
        ("applying live knobs", cost.apply, "up to the proof that each worker has them"),
        ("prefill", cost.prefill, "prompts that had to be computed"),
        ("measuring", cost.measure, "all other passes of the engine"),
        ("glmlab itself", cost.overhead, "everything else"),
        ("confirming", cost.confirm, "the visits that decided"),
    )
    whole = sum(seconds for _, seconds, _ in parts)
    if not whole:
        return None
    recorded = material.summary.evidence == "replayed"
    rows = [
        (name, format_duration(seconds), f"{seconds / whole:.0%}", what)
        for name, seconds, what in parts
        if seconds
    ]
    complete = material.summary.trials.get("complete", 0)
    return section(
        "cost",
        "What it cost",
        tag("p", against_restarts(material)) if cost.restart_trial is not None else None,
        table(
            ("", ">time", ">share", "what that is"),
            [*rows, ("in all", format_duration(whole), "100%", f"{complete} complete trials")],
            label="cost ledger",
            caption="sums over the study; the engine's as they were recorded, glmlab's own as they were here"
            if recorded
            else "sums over the study, measured",
            marked=(len(rows),),
        ),
        chart,
    )


def against_restarts(material: Material) -> str:
    """What a live trial costs beside one with a restart, in two sentences."""
    cost, recorded = material.summary.cost_s, material.summary.evidence == "replayed"
    if cost.live_trial is None or cost.restart_trial is None or cost.restart_estimate is None:
        return "No trial was had without a new engine, so there is nothing to compare a restart with."
    search = cost.rebuild + cost.apply + cost.prefill + cost.measure + cost.overhead
    took = "took, as recorded," if recorded else "took"
    return (
        f"A live trial {took} {format_duration(cost.live_trial)} (median),"
        f" {format_duration(cost.live_overhead or 0)} of it glmlab's own; with a restart the same trial takes"
        f" {format_duration(cost.restart_trial)} (this study's own median start, prefill and measurement):"
        f" {cost.times_cheaper:.0f} times as long. The search took {format_duration(search)}; with a restart"
        f" for each trial it would have been {format_duration(cost.restart_estimate)}, an estimate from these"
        " medians."
    )
