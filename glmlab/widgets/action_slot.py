"""ActionSlot: a text with a button that acts on it, made before anybody knows what will stand there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import ipywidgets as W

from glmlab.widgets.look import GONE, look, show
from glmlab.widgets.style import action, framed, html

_T = TypeVar("_T")


class ActionSlot(W.HBox, Generic[_T]):
    """Filled and emptied from any thread, since no widget is made then.

    Parameters
    ----------
    words : str
        What the button does, such as ``Apply``; what exactly follows when it is filled.
    icon : str
        Of the button.
    on_click : callable
        Gets what stands here.
    """

    def __init__(self, words: str, icon: str, on_click: Callable[[_T], None]) -> None:
        self._words, self._on_click = words, on_click
        self._what: _T | None = None
        self._text = html(flex="1 1 420px")
        self.button = action(words, icon)
        self.button.on_click(self._clicked)
        super().__init__(
            [self._text, self.button],
            layout=look(flex="0 0 auto", flex_flow="row wrap", align_items="center"),
            _dom_classes=(GONE,),
        )

    @property
    def text(self) -> str:
        """The HTML that is shown; empty while nothing is."""
        return str(self._text.value)

    def fill(self, what: _T, text: str, change: str = "", tooltip: str = "", locked: str = "") -> None:
        """Show something.

        Parameters
        ----------
        what : object
            What the button acts on.
        text : str
            HTML.
        change : str
            What the button would change; without it there is no button.
        tooltip : str
            Of the button.
        locked : str
            Why the change cannot be made now; empty where it can.
        """
        self._what = what
        self._text.value = framed(text)
        self.button.description, self.button.tooltip = f"{self._words}: {change}", locked or tooltip
        self.button.disabled = bool(locked)
        show(self.button, visible=bool(change))
        show(self)

    def empty(self) -> None:
        """Show nothing and take no room."""
        self._what = None
        self._text.value = ""
        show(self, visible=False)

    def _clicked(self, _: Any) -> None:
        if self._what is not None:
            self._on_click(self._what)
