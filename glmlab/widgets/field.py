"""Field: one input with a place beside it where its value is refused, in one line."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets as W

from glmlab.widgets.look import look, style_of
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
        self._say()
        super().__init__([control, self._beside], layout=look(flex_flow="row wrap", align_items="center"))

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
        below = {"flex": f"1 1 calc(100% - {LABEL})", "margin": f"0 0 4px {LABEL}"}
        self._beside.layout = look(**(below if len(text) > _BESIDE else {"flex": "1 1 6em", "margin": "0"}))
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
    more |= _look(W.Text, width)
    return W.Text(value, description=label, tooltip=tooltip, continuous_update=False, **more)


def number_input(label: str, tooltip: str, value: int, *, width: str = "15em") -> Any:
    """A field for a whole number; it is judged beside it, not clipped without a word."""
    shown = _look(W.IntText, width)
    return W.IntText(value, description=label, tooltip=tooltip, continuous_update=False, **shown)


def choice_input(label: str, tooltip: str, options: Any, value: Any, *, width: str = "25em") -> Any:
    """A drop-down."""
    shown = _look(W.Dropdown, width)
    return W.Dropdown(options=options, value=value, description=label, tooltip=tooltip, **shown)


def _look(control: type[W.DOMWidget], width: str) -> dict[str, Any]:
    return {
        "style": style_of(control, description_width=LABEL),
        "layout": look(width=width, margin="2px 0"),
    }
