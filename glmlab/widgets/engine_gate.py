"""EngineGate: at most one engine at a time; one clear button closes the first before another starts."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import ipywidgets as W

from glmlab.study_spec import StudySpec
from glmlab.widgets.look import look, show
from glmlab.widgets.notice import Notice


def may_start(spec: StudySpec, gate: EngineGate | None, then: Callable[[], Any]) -> bool:
    """Whether a study may start its engine now; if not, the gate asks, and does ``then`` once it may.

    A replay starts nothing that could be in the way of another engine.
    """
    return gate is None or spec.is_replayed or gate.passes(then)


class EngineGate(W.VBox):
    """Asks to close an engine that is in the way; takes no room until it has to ask.

    Parameters
    ----------
    who : str
        Whose engine it is, e.g. ``Play``.
    is_held : callable
        Whether that engine is there; cheap.
    release : callable
        Closes it in the background; the future is done when it is gone.
    what_is_lost : str
        One sentence for people who have to decide.
    """

    def __init__(
        self,
        who: str,
        is_held: Callable[[], bool],
        release: Callable[[], Future[Any]],
        *,
        what_is_lost: str = "",
    ) -> None:
        self._who, self._is_held, self._release, self._lost = who, is_held, release, what_is_lost
        self._then: Callable[[], Any] | None = None
        self.notice = Notice()
        self.button = W.Button(
            description=f"Close the engine of {who}, then start",
            icon="eject",
            tooltip=f"Closes the engine of {who}, waits until it is gone, then starts what was asked for",
            layout=look(width="auto"),
        )
        self.button.on_click(self.notice.guarded(lambda _: self._clicked()))
        super().__init__([self.notice, self.button])
        show(self, visible=False)

    def passes(self, then: Callable[[], Any]) -> bool:
        """Whether the way is free; if not, it asks, and does ``then`` once the other engine is closed."""
        if not self._is_held():
            self._rest()
            return True
        self._then = then
        self.button.disabled = False
        self.notice.say(
            f"Not started: the engine of {self._who} runs, and two would share one memory. {self._lost}",
            "warns",
        )
        show(self, visible=True)
        return False

    def _clicked(self) -> None:
        then, self._then = self._then, None
        if then is None:
            return
        self.button.disabled = True
        self.notice.say(f"Closing the engine of {self._who} …")

        def closed(future: Future[Any]) -> None:
            error = future.exception()
            if error is not None:
                self.notice.tell(error)
                return
            self._rest()
            self.notice.guarded(then)()

        self._release().add_done_callback(closed)

    def _rest(self) -> None:
        self._then = None
        self.notice.clear()
        show(self, visible=False)
