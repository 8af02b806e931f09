"""Field: one input with a place beside it where its value is refused, in one line."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets as W

from glmlab.widgets.style import html

LABEL = "8em"
_BESIDE = 24  # characters that stand beside an input in a narrow column


class Field(W.HBox):
    """An input, and what is wrong with its value.

    Parameters
    ----------
    control : Widget
        The input; it has a description and a tooltip.
    hint : str
        What stands beside it while nothing is wrong.
    """

    def __init__(self, control: Any, hint: str = "") -> None:
        self.control, self._hint = control, hint
        self.refusal = ""
        self._beside = html()
        super().__init__([control, self._beside], layout=W.Layout(flex_flow="row wrap", align_items="center"))
        self._say()

    @property
    def value(self) -> Any:
        return self.control.value

    def hint(self, text: str) -> None:
        """What stands beside it while nothing is wrong."""
        if text != self._hint:
            self._hint = text
            self._say()

    def refuse(self, why: str) -> None:
        """Say what is wrong, or with an empty text that nothing is."""
        if why != self.refusal:
            self.refusal = why
            self._say()

    def _say(self) -> None:
        text = self.refusal or self._hint
        # What is long has a line of its own, below the input.
        is_long = len(text) > _BESIDE
        self._beside.layout.flex = f"1 1 calc(100% - {LABEL})" if is_long else "1 1 6em"
        self._beside.layout.margin = f"0 0 4px {LABEL}" if is_long else "0"
        self._beside.value = refusal_html(self.refusal) if self.refusal else _hint(self._hint)


def refusal_html(why: str) -> str:
    """One line that is told from others by its word, not by its colour alone."""
    return (
        "<div class='glmlab'><div class='glmlab-card glmlab-error' role='alert'>"
        f"<b>Refused:</b> {escape(why)}</div></div>"
    )


def _hint(text: str) -> str:
    return f"<div class='glmlab glmlab-dim' style='padding-left:0.7em'>{escape(text)}</div>" if text else ""


def text_input(label: str, tooltip: str, value: str = "", *, width: str = "25em", **more: Any) -> Any:
    """A text field that answers when it is left or Enter is pressed, not at each key."""
    return W.Text(value, description=label, tooltip=tooltip, continuous_update=False, **_look(width), **more)


def number_input(label: str, tooltip: str, value: int, *, width: str = "15em") -> Any:
    """A field for a whole number; it is judged beside it, not clipped without a word."""
    return W.IntText(value, description=label, tooltip=tooltip, continuous_update=False, **_look(width))


def choice_input(label: str, tooltip: str, options: Any, value: Any, *, width: str = "25em") -> Any:
    """A drop-down."""
    return W.Dropdown(options=options, value=value, description=label, tooltip=tooltip, **_look(width))


def _look(width: str) -> dict[str, Any]:
    return {"style": {"description_width": LABEL}, "layout": W.Layout(width=width, margin="2px 0")}
