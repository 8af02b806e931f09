"""What the command line prints: tables for people. Data comes in, text goes out."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from glmlab.knobs import in_words, word
from glmlab.roomy_table import Roomy
from glmlab.units import format_bytes, format_duration, format_ms

if TYPE_CHECKING:
    from pathlib import Path

    from glmlab.dashboard import Dashboard
    from glmlab.diagnosis import Diagnosis
    from glmlab.export import Bundle
    from glmlab.measurement import Evidence
    from glmlab.notebook_server import Notebooks
    from glmlab.summary import Cost, Summary
    from glmlab.trial_record import TrialRecord
    from glmlab.workload import Workload

_OUTCOME = {"win": "bold green", "tie": "bold", "loss": "bold red"}
# Of a study's trials, what a narrow terminal does without, the least needed first.
_SPARE = ("glmlab", "measure", "apply", "rebuild", "p90", "p99", "tokens/s", "same")
_SEVERITY = {"blocks": "bold red", "warns": "yellow", "notes": "dim"}


def to_terminal(what: RenderableType) -> None:
    """Print for people; wide enough not to cut tables when the output is no terminal."""
    if sys.stdout.isatty():
        Console(highlight=False).print(what)
        return
    console = Console(highlight=False, width=180, file=io.StringIO())
    console.print(what)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    sys.stdout.write("".join(f"{line.rstrip()}\n" for line in text.splitlines()))


def table(*columns: str, title: str | None = None) -> Table:
    """A table in the house style; a column named with a leading ``>`` is set flush right."""
    made = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for column in columns:
        right = column.startswith(">")
        # A narrow terminal folds what it has no room for: a name that is cut is no name.
        made.add_column(column.removeprefix(">"), justify="right" if right else "left", overflow="fold")
    return made


def summary(found: Summary) -> RenderableType:
    """A study's result: counts, baseline and best, verdict, cost."""
    counts = ", ".join(f"{count} {status}" for status, count in found.trials.items() if count)
    others = [name for name in (found.baseline.values if found.baseline else ()) if name != "tpot_ms"]
    points = table("", ">trial", ">time per token", *(f">{name}" for name in others), "knobs")
    for label, point in (("baseline", found.baseline), ("best", found.best)):
        if point is not None:
            values = [f"{point.values[name]:.4g}" for name in others]
            points.add_row(label, f"#{point.trial}", format_ms(point.tpot_ms), *values, knobs(point.params))
    style = _OUTCOME[found.verdict.outcome] if found.verdict else "bold yellow"
    lines: list[RenderableType] = [
        Text(f"study {found.study}   {counts or 'no trials'}   evidence: {found.evidence}"),
        points,
        Text(f"verdict: {found.headline}", style=style),
        cost(found.cost_s, found.evidence),
    ]
    lines += [Text(f"note: {note}", style="yellow") for note in found.notes]
    return Group(*lines)


def cost(spent: Cost, evidence: Evidence = "measured") -> RenderableType:
    """Where the time went, and what a live trial costs against a restart."""
    from glmlab.summary import took

    parts = [
        f"{name} {format_duration(value)}"
        for name, value in (
            ("rebuilds", spent.rebuild),
            ("applying", spent.apply),
            ("prefill", spent.prefill),
            ("measuring", spent.measure),
            ("glmlab itself", spent.overhead),
            ("confirming", spent.confirm),
        )
    ]
    text = ("cost, the engine's as recorded: " if evidence == "replayed" else "cost: ") + ", ".join(parts)
    if spent.live_trial is not None and spent.restart_trial is not None:
        text += (
            f"\na live trial {took(evidence)} {format_duration(spent.live_trial)}"
            f" ({format_duration(spent.live_overhead or 0)} of it glmlab's own);"
            f" with a restart it takes {format_duration(spent.restart_trial)}:"
            f" {spent.times_cheaper:.0f} times cheaper"
        )
    return Text(text)


def study(found: Summary, records: Sequence[TrialRecord], workload: Workload) -> RenderableType:
    """Every trial, then the result."""
    names = list(dict.fromkeys(name for record in records for name in record.params))
    # What is shown anyway has a column of its own below.
    objectives = [name for name in _objectives(found) if name not in ("tpot_ms", "tokens_per_s")]
    trials = table(
        ">#", "status", *(f">{name}" for name in objectives), ">time/token", ">p90", ">p99", ">tokens/s",
        ">same", ">rebuild", ">apply", ">measure", ">glmlab", *names, title=f"trials, {found.evidence}",
    )  # fmt: skip
    for record in records:
        measured = record.metrics(workload)
        spent = record.cost
        trials.add_row(
            str(record.number),
            record.status,
            *(_objective_value(record, found, name) for name in objectives),
            *(_ms(measured.get(name)) for name in ("tpot_ms", "tpot_p90_ms", "tpot_p99_ms")),
            f"{measured['tokens_per_s']:.0f}" if "tokens_per_s" in measured else "",
            "" if record.same_tokens is None else f"{record.same_tokens:.0%}",
            _seconds(spent.rebuild_s),
            _seconds(spent.apply_s),
            _seconds(spent.prefill_s + spent.measure_s),
            _seconds(spent.overhead_s),
            *(word(record.params[name]) if name in record.params else "" for name in names),
        )
    failures = [
        Text(f"#{record.number} {record.status}: {record.reason}", style="yellow")
        for record in records
        if record.reason
    ]
    caption = Text(
        "time/token, p90, p99, tokens/s: mean over the points of the workload, by their weights. same: greedy"
        " output tokens equal to the baseline's; kernels round differently, so less than 100 % is no error by"
        " itself",
        style="dim",
    )
    # A column that decides stays.
    spare = [name for name in _SPARE if name != "tokens/s" or "tokens_per_s" not in _objectives(found)]
    return Group(Roomy(trials, spare), caption, *failures, Text(""), summary(found))


def _objectives(found: Summary) -> list[str]:
    return list(found.baseline.values) if found.baseline else []


def _objective_value(record: TrialRecord, found: Summary, name: str) -> str:
    if not record.values:
        return ""
    return f"{record.values[_objectives(found).index(name)]:.4g}"


def diagnosis(found: Diagnosis) -> RenderableType:
    """The machine, its packages, what can be live, and the findings."""
    from glmlab.tables.gpus import device_line, pair_lines

    machine = found.machine
    rows = table("", "", title="machine")
    rows.add_row("CPU", f"{machine.cpu_model}, {machine.logical_cpus} CPUs, {' '.join(machine.cpu_flags)}")
    rows.add_row(
        "memory",
        f"{format_bytes(machine.memory_bytes)}, {format_bytes(machine.memory_available_bytes)} free",
    )
    for gpu in machine.gpus:
        rows.add_row(
            f"GPU {gpu.index}",
            Text(device_line(gpu)),
        )
    for line in pair_lines(machine.gpu_pairs):
        rows.add_row("peers", Text(line))
    if machine.gpu_note:
        rows.add_row("GPU", machine.gpu_note)
    packages = ", ".join(f"{name} {version}" for name, version in found.packages.items() if version)
    rows.add_row("software", packages)
    parts: list[RenderableType] = [rows]
    if found.engine is not None:
        title = f"knobs of vLLM {found.engine.vllm} on {found.engine.device}"
        live = table("knob", "live", "why not", title=title)
        for name, status in found.engine.knobs.items():
            live.add_row(name, "yes" if status.live else "no", status.why)
        parts += [Text(""), live]
    if found.findings:
        listing = table("severity", "", title="findings")
        for finding in found.findings:
            # As text: rich would take the [gpu] of a pip command for a style.
            said = Text(finding.text)
            if finding.fix:
                said.append(f"\nfix: {finding.fix}")
            if finding.source:
                said.append(f"\nsource: {finding.source}", style="dim")
            listing.add_row(Text(finding.severity, style=_SEVERITY[finding.severity]), said)
        parts += [Text(""), listing]
    else:
        parts += [Text(""), Text("nothing wrong found", style="green")]
    return Group(*parts)


def bundle(made: Bundle) -> RenderableType:
    """Where a bundle lies and how to use it."""
    listing = table("file", "what", title=f"{made.directory}")
    for name, what in made.files.items():
        listing.add_row(name, what)
    return Group(
        listing,
        Text(f"evidence: {made.evidence}"),
        Text(made.headline, style="bold"),
        Text(f"start it: {made.command}"),
    )


def report(file: Path, found: Summary) -> RenderableType:
    """Where a report lies, and what it says first."""
    return Group(
        Text(
            f"{file}   {format_bytes(file.stat().st_size)}   study {found.study}   evidence: {found.evidence}"
        ),
        Text(found.headline, style="bold"),
    )


def dashboard(board: Dashboard) -> RenderableType:
    """Where a dashboard is, what it shows, and how JupyterLab shows the same."""
    from glmlab.dashboard.server import DEFAULT_PORT, for_jupyterlab

    rows = table("", "")
    rows.add_row("optuna-dashboard", Text(board.url, style="bold"))
    if board.moved:
        rows.add_row("", f"port {DEFAULT_PORT} is taken, so it is on {board.port}")
    rows.add_row("storage", Text(board.to_json()["storage"]))
    rows.add_row("studies", Text(", ".join(board.studies) or "none yet: `glmlab tune` makes one"))
    for why in board.studies.values():
        if isinstance(why, str):
            rows.add_row("", Text(f"without glmlab's note and charts: {why}", style="yellow"))
    paste = for_jupyterlab(board.storage) or "the storage's URL with its password"
    rows.add_row("in JupyterLab", Text(f"Launcher, Optuna Dashboard; storage URL: {paste}"))
    rows.add_row("", Text(f"artifact path: {board.artifacts}"))
    rows.add_row("end it with", "Ctrl-C")
    return rows


def notebooks(found: Notebooks) -> RenderableType:
    """Where the notebooks are, and which of them were left as they are."""
    rows = table("", "")
    rows.add_row("notebooks", Text(str(found.folder)))
    if found.copied:
        rows.add_row("new there", Text(", ".join(found.copied)))
    if found.kept:
        rows.add_row("yours, kept", Text(", ".join(found.kept)))
        rows.add_row("", "rename one to get the packaged one again")
    return rows


def knobs(params: dict[str, Any]) -> str:
    """Knobs and values in one line."""
    return in_words(params, "=")


def _ms(value: float | None) -> str:
    return "" if value is None else format_ms(value)


def _seconds(value: float) -> str:
    return format_duration(value) if value else ""
