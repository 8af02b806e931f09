"""ProgressPanel: how far a study has come, what it has cost, and the best so far."""

from __future__ import annotations

import time
from html import escape

import ipywidgets as W

from glmlab.measurement import Evidence
from glmlab.session import SessionStatus
from glmlab.units import format_duration
from glmlab.widgets.look import look
from glmlab.widgets.style import framed, html

_QUIET_S = 2.0  # without news: from then on it is said for how long


class ProgressPanel(W.VBox):
    """A bar of trials and a line of figures."""

    def __init__(self) -> None:
        self.bar = W.IntProgress(
            0,
            description="0 trials",
            tooltip="Trials with a result, of those that the budget or the space allows",
            style={"description_width": "initial"},
            layout=look(width="min(100%, 40em)"),
        )
        self.figures = html()
        super().__init__([self.bar, self.figures])

    def paint(self, status: SessionStatus | None, evidence: Evidence, news_s: float) -> None:
        """Show where a session stands.

        Parameters
        ----------
        status : SessionStatus or None
            ``None`` where there is no session.
        evidence : str
            What its seconds and values are.
        news_s : float
            Unix time of the last thing that happened.
        """
        if status is None:
            self.bar.max, self.bar.value, self.bar.description = 1, 0, "0 trials"
            self.figures.value = framed("<span class='glmlab-dim'>Nothing runs.</span>")
            return
        of = "" if status.total is None else f" of {status.total:,}"
        self.bar.max = max(status.total or status.done, status.done, 1)
        self.bar.value = status.done
        self.bar.description = f"{status.done:,}{of} trials"
        recorded = ", as recorded" if evidence == "replayed" else ""
        spent = f"spent on trials {format_duration(status.spent_s)}{recorded}"
        parts = [
            f"best so far <b>{escape(status.best or 'none yet')}</b>",
            spent if status.done else "nothing spent yet",
        ]
        if status.left_s is not None:
            parts.append(f"about {format_duration(status.left_s)} left")
        quiet_s = time.time() - news_s
        if status.state.is_active and quiet_s >= _QUIET_S:
            parts.append(f"{escape(status.text.lower())} for {format_duration(int(quiet_s))}")
        self.figures.value = framed(" · ".join(parts))
