"""Journal: what happened in a session, the newest last, and the trials that came to nothing."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from html import escape

import ipywidgets as W

from glmlab.session import Event
from glmlab.trial_record import TrialRecord
from glmlab.widgets.style import framed, html
from glmlab.widgets.table_twin import table_html

KEPT = 100  # messages; the newest
_LONGEST = 2000  # characters of one message: the end of an engine's log may be long


class Journal(W.Accordion):
    """Two lists that unfold; neither grows without bounds, and neither is written while it is folded in."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=KEPT)
        self._count = 0
        self._failed: list[TrialRecord] = []
        self._read = 0
        self._is_stale = [False, False]
        self.messages, self.failures = html(), html()
        super().__init__([self.messages, self.failures], selected_index=None)
        self._title()
        self.observe(lambda _: self._write(), names="selected_index")

    def clear(self) -> None:
        """Begin with another session."""
        self._lines.clear()
        self._failed = []
        self._count = self._read = 0
        self._is_stale = [True, True]
        self._title()
        self._write()

    def add(self, events: Sequence[Event]) -> None:
        """Append what happened."""
        for event in events:
            when = time.strftime("%H:%M:%S", time.localtime(event.unix_s))
            text = event.text if len(event.text) <= _LONGEST else f"…{event.text[-_LONGEST:]}"
            word = "ERROR " if event.kind == "error" else ""
            self._lines.append(f"{when}  {word}{text}")
        self._count += len(events)
        if events:
            self._is_stale[0] = True

    def count(self, records: Sequence[TrialRecord]) -> None:
        """Look for trials that came to nothing among those that are new."""
        if len(records) < self._read:
            self._failed, self._read = [], 0
        new = [record for record in records[self._read :] if record.status != "complete"]
        self._read = len(records)
        self._failed += new
        if new:
            self._is_stale[1] = True

    def paint(self) -> None:
        """Bring titles, and the list that is open, up to date."""
        self._title()
        self._write()

    def _title(self) -> None:
        self.titles = (
            f"Messages ({self._count:,})",
            f"Failed, blocked or interrupted trials ({len(self._failed):,})",
        )

    def _write(self) -> None:
        opened = self.selected_index
        if opened is None or not self._is_stale[opened]:
            return
        self._is_stale[opened] = False
        if opened == 0:
            self.messages.value = framed(self._messages())
        else:
            self.failures.value = framed(self._failures())

    def _messages(self) -> str:
        shown = f"the last {KEPT} of {self._count:,}" if self._count > KEPT else f"{self._count:,}"
        lines = "\n".join(map(escape, self._lines))
        return f"<div class='glmlab-dim'>Messages: {shown}, the newest last</div><pre>{lines}</pre>"

    def _failures(self) -> str:
        if not self._failed:
            return "<p>None: every trial so far has a result.</p>"
        return (
            table_html(
                {
                    "trial": [record.number for record in self._failed],
                    "came out": [record.status for record in self._failed],
                    "why": [record.reason for record in self._failed],
                    "knobs": [", ".join(f"{k} = {v}" for k, v in r.params.items()) for r in self._failed],
                },
                caption="Trials without a result",
                newest=True,
            )
            + self._log_tail()
        )

    def _log_tail(self) -> str:
        last = next((record for record in reversed(self._failed) if record.log_tail), None)
        if last is None:
            return ""
        return (
            f"<div>End of the engine's log of trial #{last.number}:</div><pre>{escape(last.log_tail)}</pre>"
        )
