"""Notice: where errors and refusals are shown, beside the controls that brought them about.

What is raised inside a callback of a widget is swallowed by the front end, or goes to a log that nobody
looks at. So every callback is wrapped by :meth:`Notice.guarded`.
"""

from __future__ import annotations

import functools
import logging
import traceback
from collections.abc import Callable
from html import escape
from typing import Any, Literal

import ipywidgets as W

from glmlab.errors import EngineError, GlmlabError
from glmlab.widgets.style import html, log_html, stylesheet

Kind = Literal["good", "notes", "warns", "error"]
_WORD: dict[Kind, str] = {"good": "", "notes": "Note: ", "warns": "Warning: ", "error": "Error: "}
_log = logging.getLogger("glmlab.widgets")


class Notice(W.VBox):
    """One line of what went wrong, or of what was done; empty it takes no room.

    It is announced by screen readers when it changes, and can be set from any thread.
    """

    def __init__(self) -> None:
        self._area = html()
        super().__init__([stylesheet(), self._area])
        self.text = ""

    def say(self, text: str, kind: Kind = "notes", detail: str = "") -> None:
        """Show a line in place of what stood here.

        Parameters
        ----------
        text : str
            Plain text; nothing hides the area.
        kind : {"good", "notes", "warns", "error"}
            Errors say that they are.
        detail : str
            Text of several lines, such as the end of a log, shown below.
        """
        self.text = text
        role = "alert" if kind == "error" else "status"
        below = log_html(detail) if detail else ""
        body = (
            f'<div class="glmlab-card glmlab-{kind}">{_WORD[kind]}{escape(text)}{below}</div>' if text else ""
        )
        self._area.value = f'<div class="glmlab" role="{role}">{body}</div>'

    def clear(self) -> None:
        """Show nothing."""
        if self.text:
            self.say("")

    def tell(self, error: BaseException) -> None:
        """Show an error: glmlab's own by their line, an engine's with its log, others with their traceback.

        Parameters
        ----------
        error : BaseException
            What was raised.
        """
        if isinstance(error, GlmlabError):
            self.say(str(error), "error", error.log_tail if isinstance(error, EngineError) else "")
            return
        # One that nobody foresaw: all that is known of it, here and in the log.
        _log.error("in a widget: %s", error, exc_info=error)
        lines = "".join(traceback.format_exception(error))
        self.say(
            f"{type(error).__name__}: {error} (an error of glmlab's own; please report it)", "error", lines
        )

    def guarded(self, callback: Callable[..., Any]) -> Callable[..., None]:
        """Wrap a callback so that what it raises is shown here.

        Parameters
        ----------
        callback : callable
            Whatever a widget is to call. What it returns is dropped.
        """

        @functools.wraps(callback)
        def safely(*args: Any, **kwargs: Any) -> None:
            try:
                callback(*args, **kwargs)
            except Exception as error:  # noqa: BLE001 (shown in full, which nobody else would do)
                self.tell(error)

        return safely
