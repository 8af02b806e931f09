"""How a run shows itself: a bar in a notebook or a terminal, plain lines in a log file."""

from __future__ import annotations

import sys
from typing import Any, Protocol, TextIO

from glmlab.knobs import in_words
from glmlab.trial_record import TrialRecord, Visit
from glmlab.units import format_duration


class Progress(Protocol):
    """What a study tells while it runs; all methods return at once."""

    def start(self, study: str, done: int, total: int | None, seconds: float | None) -> None: ...
    def message(self, text: str) -> None: ...
    def running(self, what: str, trial: int | None = None) -> None: ...
    def trial(self, record: TrialRecord, best: str, left_s: float | None) -> None: ...
    def visit(self, visit: Visit, done: int, total: int) -> None: ...
    def close(self) -> None: ...


class Silent:
    """Shows nothing; what a display does not show, it inherits."""

    def start(self, study: str, done: int, total: int | None, seconds: float | None) -> None: ...
    def message(self, text: str) -> None: ...
    def running(self, what: str, trial: int | None = None) -> None: ...
    def trial(self, record: TrialRecord, best: str, left_s: float | None) -> None: ...
    def visit(self, visit: Visit, done: int, total: int) -> None: ...
    def close(self) -> None: ...


class Lines(Silent):
    """One line per event: for pipes and log files."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr

    def start(self, study: str, done: int, total: int | None, seconds: float | None) -> None:
        resumed = f", {done} trials already done" if done else ""
        self.message(f"study {study}: {_goal(total, seconds)}{resumed}")

    def message(self, text: str) -> None:
        print(text, file=self._stream, flush=True)

    def trial(self, record: TrialRecord, best: str, left_s: float | None) -> None:
        self.message(trial_line(record) + f"   best {best}" + _left(left_s))


class Terminal(Silent):
    """A rich progress bar, with a line per trial above it."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bar

        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[status]}"),
            console=Console(stderr=True, highlight=False),
        )
        self._task: Any = None

    def start(self, study: str, done: int, total: int | None, seconds: float | None) -> None:
        self._bar.start()
        self._task = self._bar.add_task(study, total=total, completed=done, status="starting")

    def message(self, text: str) -> None:
        self._bar.console.print(text, markup=False)

    def trial(self, record: TrialRecord, best: str, left_s: float | None) -> None:
        self.message(trial_line(record))
        self._bar.update(self._task, advance=1, status=f"best {best}{_left(left_s)}")

    def close(self) -> None:
        self._bar.stop()


class Notebook(Silent):
    """A tqdm bar, which is a widget where widgets are installed."""

    # Without tqdm's own rate and rest: it does not know that a trial may cost a new engine.
    _FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}{postfix}]"

    def __init__(self) -> None:
        self._bar: Any = None

    def start(self, study: str, done: int, total: int | None, seconds: float | None) -> None:
        from tqdm.auto import tqdm

        self._bar = tqdm(desc=study, total=total, initial=done, bar_format=self._FORMAT, dynamic_ncols=True)

    def message(self, text: str) -> None:
        from tqdm.auto import tqdm

        tqdm.write(text)

    def trial(self, record: TrialRecord, best: str, left_s: float | None) -> None:
        self._bar.set_postfix_str(f"best {best}{_left(left_s)}", refresh=False)
        self._bar.update()

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()


def automatic() -> Progress:
    """The one that fits where this runs."""
    if _in_notebook():
        return Notebook()
    return Terminal() if sys.stderr.isatty() else Lines()


def trial_line(record: TrialRecord) -> str:
    """A trial in one line: number, what was set, what came out, what it cost."""
    knobs = in_words(record.params, "=")
    came = (
        record.reason
        if record.status != "complete"
        else ", ".join(f"{value:.4g}" for value in record.values or ())
    )
    how = "live" if record.cost.is_live else "rebuilt"
    how += ", replayed" if record.evidence == "replayed" else ""
    cost = f"{format_duration(record.cost.total_s)} {how}" if record.status != "blocked" else "free"
    return f"#{record.number:<3} {record.status:<9} {came}  [{knobs}]  {cost}"


def _goal(total: int | None, seconds: float | None) -> str:
    parts = []
    if total is not None:
        parts.append(f"up to {total} trials")
    if seconds is not None:
        parts.append(f"up to {format_duration(seconds)}")
    return " or ".join(parts) or "until the space is measured"


def _left(left_s: float | None) -> str:
    return f", about {format_duration(left_s)} left" if left_s else ""


def _in_notebook() -> bool:
    shell = sys.modules.get("IPython")
    instance = shell.get_ipython() if shell is not None else None
    return instance is not None and "IPKernelApp" in instance.config
