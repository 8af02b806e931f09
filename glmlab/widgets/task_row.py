"""TaskRow: a button for something that takes its time, done in the background, its outcome beside it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import Any

import ipywidgets as W

from glmlab.ticker import Worker
from glmlab.widgets.look import look
from glmlab.widgets.notice import Notice
from glmlab.widgets.style import framed, html


class TaskRow(W.VBox):
    """One task: a field that says where to, a button, what came of it.

    Parameters
    ----------
    label, icon, tooltip : str
        Of the button.
    work : callable
        Text of the field -> what came of it, as HTML with every value escaped. Called in the background.
    worker : callable
        The thread that does it.
    field : Widget, optional
        An input with a text value.
    """

    def __init__(
        self,
        label: str,
        icon: str,
        tooltip: str,
        work: Callable[[str], str],
        worker: Callable[[], Worker],
        *,
        field: Any = None,
    ) -> None:
        self._label, self._tooltip, self._work, self._worker = label, tooltip, work, worker
        self._reason, self._is_busy = "", False
        self.field = field
        self.button = W.Button(
            description=label, icon=icon, tooltip=tooltip, layout=look(width="auto", min_width="11em")
        )
        self.notice = Notice()
        self.outcome = html()
        self.button.on_click(self.notice.guarded(lambda _: self.run()))
        row = [field, self.button] if field is not None else [self.button]
        super().__init__([W.HBox(row, layout=look(flex_flow="row wrap")), self.notice, self.outcome])

    @property
    def is_busy(self) -> bool:
        """Whether it is under way."""
        return self._is_busy

    def allow(self, reason: str = "") -> None:
        """Enable the button, or with a reason disable it."""
        self._reason = reason
        self._paint()

    def run(self) -> None:
        """Do it; returns at once."""
        if self._is_busy:
            return
        self._is_busy = True
        self.notice.clear()
        self.outcome.value = ""
        self._paint()
        text = "" if self.field is None else self.field.value.strip()
        self._worker().submit(self._work, text).add_done_callback(self._done)

    def _done(self, future: Future[str]) -> None:
        self._is_busy = False
        try:
            self.outcome.value = framed(future.result())
        except CancelledError:
            pass  # the display was closed
        except Exception as error:  # noqa: BLE001 (shown in full)
            self.notice.tell(error)
        self._paint()

    def _paint(self) -> None:
        self.button.disabled = self._is_busy or bool(self._reason)
        self.button.description = f"{self._label} …" if self._is_busy else self._label
        self.button.tooltip = f"Not now: {self._reason}. {self._tooltip}" if self._reason else self._tooltip
