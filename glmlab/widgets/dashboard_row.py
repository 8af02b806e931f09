"""DashboardRow: optuna-dashboard on the storage of a study, served as long as this row is shown."""

from __future__ import annotations

from collections.abc import Callable
from html import escape
from typing import TYPE_CHECKING

from glmlab.errors import SessionError
from glmlab.storage_url import shown
from glmlab.ticker import Worker
from glmlab.widgets.study_file_panel import LINK
from glmlab.widgets.task_row import TaskRow

if TYPE_CHECKING:
    from glmlab.dashboard import Dashboard


class DashboardRow(TaskRow):
    """A button that opens optuna-dashboard, on this machine only, and says where it is.

    Parameters
    ----------
    worker : callable
        The thread that starts it.
    """

    def __init__(self, worker: Callable[[], Worker]) -> None:
        self._storage: str | None = None
        self._served: Dashboard | None = None
        self._is_closed = False
        super().__init__(
            "Open dashboard",
            "line-chart",
            "Serve optuna-dashboard on this study's storage, for this machine only; ends with this display",
            lambda _: self._open(),
            worker,
        )
        self.storage = None

    @property
    def storage(self) -> str | None:
        """Whose studies it shows."""
        return self._storage

    @storage.setter
    def storage(self, storage: str | None) -> None:
        if storage != self._storage:
            self._end()
            self.outcome.value = ""
        self._storage = storage
        self.allow("" if storage else "no study has been started or attached here yet")

    def _open(self) -> str:
        from glmlab.dashboard import serve

        if self._storage is None:
            raise SessionError("no study has been started or attached here yet")
        if self._served is None:
            self._served = serve(self._storage)
            if self._is_closed:  # meanwhile
                self._end()
                return ""
        url = escape(self._served.url, quote=True)
        return (
            f"<p>Served at <a style='{LINK}' href='{url}' target='_blank' rel='noopener'>{url}</a>, for this"
            " machine only, until this display is closed."
            f" Storage: <code>{escape(shown(self._storage))}</code></p>"
        )

    def _end(self) -> None:
        served, self._served = self._served, None
        if served is not None:
            served.close()

    def close(self) -> None:
        """Take it off the page and end what it serves."""
        self._is_closed = True
        self._end()
        super().close()
