"""The top of a report: what came out, in one sentence with its interval."""

from __future__ import annotations

import math
from typing import NamedTuple

from glmlab.figures.quantity import times
from glmlab.knobs import in_words
from glmlab.measurement import METRICS
from glmlab.report.elements import Html, facts, fragment, tag
from glmlab.report.material import Material
from glmlab.report.origin import in_short
from glmlab.report.words import interval, meaning, quantity, spread
from glmlab.stats import Verdict
from glmlab.units import counted, format_duration

_SURE = "how sure is it?"
_TICKS = (
    0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98, 1.02, 1.05, 1.1,
    1.2, 1.5, 2, 3, 5, 10, 20, 50, 100,
)  # fmt: skip


class Said(NamedTuple):
    """An outcome in words.

    Attributes
    ----------
    badge : str
        One or two words.
    kind : str
        Style of the badge: win, tie, loss or open.
    sentence : str
        All of it.
    """

    badge: str
    kind: str
    sentence: str


def say(material: Material) -> Said:
    """The verdict, or what is missing for one."""
    verdict, best = material.summary.verdict, material.best
    if material.baseline is None or best is None:
        return Said(
            "no result",
            "open",
            "Nothing to compare: no trial of this study is complete. What failed, and why, is below.",
        )
    if verdict is None:
        return Said(
            "not confirmed",
            "open",
            f"Not confirmed yet: {in_words(best.params)} was best in the search, which picks for luck too;"
            " run the study again to finish it.",
        )
    if verdict.rounds == 0:
        return Said(
            "keep the default",
            "tie",
            f"Keep the default: none of {counted(len(material.records), 'trial')} was better than the"
            f" baseline ({in_words(best.params)}).",
        )
    came = f"{meaning(verdict.metric)} is {_how_much(verdict)}{_of_evidence(material)}"
    if verdict.outcome == "win":
        return Said("win", "win", f"With {in_words(material.changes)}, {came}.")
    why = "no gain beyond noise" if verdict.outcome == "tie" else "the best was worse when visited again"
    return Said(
        "keep the default",
        verdict.outcome,
        f"Keep the default: {why}. With {in_words(material.changes)}, {came}.",
    )


def _how_much(verdict: Verdict) -> str:
    much = f"{times(verdict.ratio)[1:]} times the baseline's"
    if verdict.low is None or verdict.high is None:
        return f"{much} (one round, no interval)"
    return (
        f"{much} ({verdict.confidence:.0%} interval {times(verdict.low)[1:]} to {times(verdict.high)[1:]},"
        f" {counted(verdict.rounds, 'round')})"
    )


def _of_evidence(material: Material) -> str:
    evidence = material.summary.evidence
    return ", replayed from a recording" if evidence == "replayed" else f", {evidence}"


def top(material: Material) -> Html:
    """Badge, sentence, the interval as a strip, and what a reader asks first."""
    said = say(material)
    verdict = material.summary.verdict
    return tag(
        "section",
        tag(
            "p",
            tag("span", said.badge, class_=f"badge {said.kind}"),
            tag("span", material.summary.evidence, class_="badge evidence"),
        ),
        tag("p", said.sentence, class_="sentence"),
        strip(material, verdict) if verdict is not None else None,
        _caution(material),
        _first_facts(material, verdict),
        id="verdict",
    )


def _caution(material: Material) -> Html | None:
    """What must be read before the numbers are believed."""
    lines: list[str] = []
    found = material.summary
    if found.evidence == "replayed":
        origin = "; ".join(found.origins) or "a recording"
        lines.append(
            f"Nothing was measured for this study: its samples and costs are those of {origin}. Run it with"
            " engine: vllm on the machine that is going to serve before you rely on it."
        )
    elif found.evidence != "measured":
        lines.append(f"These numbers are {found.evidence}, not measured.")
    if material.spec.base_recipe.weights != "auto":
        lines.append(
            f"The model has {material.spec.base_recipe.weights} weights: this is about speed, not about"
            " answers."
        )
    return tag("aside", *(tag("p", line) for line in lines), class_="caution") if lines else None


def _first_facts(material: Material, verdict: Verdict | None) -> Html:
    spec, found = material.spec, material.summary
    metric = verdict.metric if verdict else spec.objective[0]
    pairs: list[tuple[str, str | None]] = []
    for label, side, record in (
        ("baseline", 0, material.baseline),
        ("best", 1, material.best),
    ):
        if record is None or record.measurement is None:
            continue
        values = [
            value
            for pair in material.rounds
            if (value := pair[side].measurement.value(metric, spec.effective_workload)) is not None
        ]
        if values:
            said = f"{spread(metric, values)}, {counted(len(values), 'visit')}"
        else:
            alone = record.measurement.value(metric, spec.effective_workload)
            said = "" if alone is None else f"{quantity(metric, alone)}, one visit in the search, no spread"
        pairs.append((f"{label}, {meaning(metric)}, {found.evidence}", said))
    counts = [counted(number, status, status) for status, number in found.trials.items() if number]
    spent = sum(record.cost.total_s for record in material.records) + found.cost_s.confirm
    return facts(
        [
            *pairs,
            ("model", spec.base_recipe.model),
            (
                "ran on" if found.evidence == "measured" else f"{found.evidence} from",
                in_short(material.store),
            ),
            ("trials", ", ".join(counts)),
            (f"time spent{', as recorded' if found.evidence == 'replayed' else ''}", format_duration(spent)),
        ]
    )


def strip(material: Material, verdict: Verdict) -> Html | None:
    """The ratio with its interval and its rounds on one logarithmic line; the baseline is 1."""
    if verdict.low is None or verdict.high is None:
        return None
    ratios = _ratios(material, verdict.metric)
    everything = [1.0, verdict.low, verdict.high, *ratios]
    low, high = math.log(min(everything)), math.log(max(everything))
    margin = max((high - low) * 0.06, 0.004)
    low, high = low - margin, high + margin

    def place(ratio: float) -> str:
        return f"{(math.log(ratio) - low) / (high - low) * 100:.2f}%"

    start, end = place(verdict.low), place(verdict.high)
    better = "higher is better" if METRICS[verdict.metric].maximize else "lower is better"
    ticks = _ticks(math.exp(low), math.exp(high))
    return tag(
        "figure",
        tag(
            "div",
            *(tag("span", f"×{each:g}", class_="tick", style=f"left:{place(each)}") for each in ticks),
            tag("span", "baseline ×1", class_="tick one", style=f"left:{place(1.0)}"),
            tag("span", class_="bar", style=f"left:{start};width:calc({end} - {start})"),
            *(tag("span", class_="dot", style=f"left:{place(each)}") for each in ratios),
            tag("span", class_="mean", style=f"left:{place(verdict.ratio)}"),
            class_="strip",
            role="img",
            aria_label=f"best over baseline {interval(verdict)}; rounds {', '.join(map(times, ratios))}",
        ),
        tag(
            "figcaption",
            fragment(
                f"Best over baseline, {meaning(verdict.metric)}, {better}: bar = {verdict.confidence:.0%}"
                f" interval of the mean, line in it = mean, circles = the {counted(len(ratios), 'round')};"
                f" {material.summary.evidence}. ",
                tag("a", _SURE, href="#sure"),
            ),
        ),
        class_="strip-figure",
    )


def _ratios(material: Material, metric: str) -> list[float]:
    found = []
    for before, after in material.rounds:
        values = [v.measurement.value(metric, material.spec.effective_workload) for v in (before, after)]
        if values[0] and values[1]:
            found.append(values[1] / values[0])
    return found


def _ticks(low: float, high: float) -> list[float]:
    """A few round ratios in a range, none near 1, which has a label of its own."""
    width = math.log(high / low)
    inside = [each for each in _TICKS if low < each < high and abs(math.log(each)) > 0.2 * width]
    chosen: list[float] = []
    for each in inside:
        if all(abs(math.log(each / other)) > 0.18 * width for other in chosen):
            chosen.append(each)
    return chosen
