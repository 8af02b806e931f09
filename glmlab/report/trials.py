"""Every trial of a study, as far as a page can hold them, and those that came to nothing."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from glmlab.figures.trials import word
from glmlab.knobs import in_words
from glmlab.measurement import METRICS
from glmlab.report.elements import Child, Html, clip, code_block, folded, fragment, section, table, tag
from glmlab.report.material import Material
from glmlab.report.words import digits, in_a_row
from glmlab.trial_record import TrialRecord
from glmlab.units import counted, format_duration

_MOST_ROWS = 120
_MOST_KINDS = 25  # of failures
_MOST_LOG = 4000  # characters of one log's end
_MOST_REASON = 1000
_MOST_HEADING = 300


def trials(material: Material) -> Html:
    """The best and the latest trials; all of them as CSV."""
    records = material.records
    chosen = _chosen(material)
    names = list(dict.fromkeys(name for record in records for name in record.params))
    special = {
        record.number: label
        for record, label in ((material.best, "best"), (material.baseline, "baseline"))
        if record is not None
    }
    marked = [index for index, record in enumerate(chosen) if record.number in special]
    caption = (
        f"{material.summary.evidence}; in the order in which they were tried"
        if len(chosen) == len(records)
        else f"{material.summary.evidence}; {len(chosen):,} of {len(records):,}: the baseline, the best ones"
        " and the latest; all of them in the CSV file"
    )
    return section(
        "trials",
        "Trials",
        tag("p", f"{counted(len(records), 'trial')}. ", _button(material)),
        table(
            (">trial", "status", *(f">{_head(name)}" for name in material.spec.objective), ">same tokens",
             *names, "engine", ">took"),
            [_row(material, record, names, special.get(record.number)) for record in chosen],
            label="trials",
            caption=f"{caption}. Each value is one visit, the weighted mean over all points; same tokens:"
            " greedy output equal to the baseline's.",
            marked=marked,
        ) if chosen else None,
    )  # fmt: skip


def _head(metric: str) -> str:
    return f"{metric.removesuffix('_ms')} [{METRICS[metric].unit}]"


def _row(material: Material, record: TrialRecord, names: Sequence[str], label: str | None) -> Sequence[Child]:
    values: Iterable[Child] = (digits(value) for value in record.values or ())
    if not record.values:
        values = [""] * len(material.spec.objective)
    status = record.status if record.is_feasible or record.status != "complete" else "breaks a constraint"
    return (
        fragment(f"#{record.number}", tag("strong", f" {label}") if label else None),
        status,
        *values,
        "" if record.same_tokens is None else f"{record.same_tokens:.0%}",
        *(clip(word(record.params[name]), 200) if name in record.params else "" for name in names),
        "kept" if record.cost.is_live else "new",
        format_duration(record.cost.total_s),
    )


def _chosen(material: Material) -> list[TrialRecord]:
    """All trials where a page can hold them; else baseline, best, next best and latest."""
    records = material.records
    if len(records) <= _MOST_ROWS:
        return list(records)
    sign = -1 if METRICS[material.spec.objective[0]].maximize else 1
    feasible = [record for record in records if record.is_feasible and record.values]
    ranked = sorted(feasible, key=lambda r: sign * (r.values[0] if r.values else 0.0))
    wanted = [material.baseline, material.best, *ranked[: _MOST_ROWS // 2], *records[-_MOST_ROWS // 2 :]]
    unique = {record.number: record for record in wanted if record is not None}
    return [record for _, record in sorted(unique.items())]


def _button(material: Material) -> Html:
    return tag(
        "button",
        f"save all {len(material.records):,} as CSV",
        type="button",
        id="save-trials",
        data_name=f"{material.store.name}-trials.csv",
        hidden=True,
    )


def trials_csv(material: Material) -> str:
    """Every trial in one line: what was set, what came out, what it cost, why it failed."""
    names = list(dict.fromkeys(name for record in material.records for name in record.params))
    out = io.StringIO()
    write = csv.writer(out, lineterminator="\n")
    write.writerow(
        ["trial", "status", "evidence", *names, *material.spec.objective, *_bounds(material), "same_tokens",
         "rebuild_s", "apply_s", "prefill_s", "measure_s", "overhead_s", "reason"]
    )  # fmt: skip
    for record in material.records:
        spent = record.cost
        write.writerow(
            [
                record.number,
                record.status,
                record.evidence,
                *(_cell(record.params[name]) if name in record.params else "" for name in names),
                *(f"{value:.8g}" for value in record.values or ()),
                *([] if record.values else [""] * len(material.spec.objective)),
                *(record.constraint_values.get(name, "") for name in _bounds(material)),
                "" if record.same_tokens is None else f"{record.same_tokens:.6g}",
                *(f"{seconds:.6g}" for seconds in (spent.rebuild_s, spent.apply_s, spent.prefill_s,
                                                   spent.measure_s, spent.overhead_s)),
                _cell(clip(" ".join(record.reason.split()), _MOST_REASON)),
            ]
        )  # fmt: skip
    return out.getvalue()


def _bounds(material: Material) -> list[str]:
    return [bound.name for bound in material.spec.bounds]


def _cell(value: object) -> object:
    """Text that a spreadsheet would take for a formula gets the mark that tells it not to."""
    text = word(value) if isinstance(value, bool) else value
    return f"'{text}" if isinstance(text, str) and text[:1] in "=+-@\t\r" and text else text


def failures(material: Material) -> Html | None:
    """Failed, blocked and interrupted trials by their reasons, with the ends of the engine's logs."""
    kinds: dict[tuple[str, str], list[TrialRecord]] = {}
    for record in material.records:
        if record.status != "complete":
            kinds.setdefault((record.status, record.reason), []).append(record)
    if not kinds:
        return None
    ordered = sorted(kinds.items(), key=lambda item: -len(item[1]))
    left = len(ordered) - _MOST_KINDS
    return section(
        "failures",
        "What failed, and why",
        tag("p", "A trial that fails is data: a setting that this machine does not take."),
        *(_kind(status, reason, same) for (status, reason), same in ordered[:_MOST_KINDS]),
        tag("p", f"{counted(left, 'other reason')}: in the CSV file.") if left > 0 else None,
    )


def _kind(status: str, reason: str, same: Sequence[TrialRecord]) -> Html:
    most = 8
    numbers = in_a_row([f"#{record.number}" for record in same[:most]])
    if len(same) > most:
        numbers += f" and {len(same) - most:,} more"
    with_log = next((record for record in same if record.log_tail), None)
    return tag(
        "article",
        tag("h3", f"{status}: {clip(reason or 'no reason was stored', _MOST_HEADING)}"),
        tag(
            "p",
            f"{counted(len(same), 'trial')}: {numbers}. The first: {in_words(same[0].params) or 'no knobs'}.",
        ),
        folded("the whole reason", code_block(reason, most=_MOST_LOG))
        if len(reason) > _MOST_HEADING
        else None,
        folded("the end of the engine's log", code_block(with_log.log_tail[-_MOST_LOG:]))
        if with_log
        else tag("p", "No log of an engine was kept with it.", class_="quiet"),
    )
