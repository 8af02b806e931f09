"""Layouts and styles that widgets share, so that a page hears of each once.

ipywidgets gives every widget a layout and a style of its own, and each is a message to the page. ZeroMQ
keeps 1,000 of those for a server that is busy and drops the rest without a word ("Error displaying
widget: model not found"), so that how many a display needs decides whether it arrives.
"""

from __future__ import annotations

from typing import Any, TypeVar, cast

import ipywidgets as W

GONE = "glmlab-gone"  # a class of the stylesheet; a layout, which is shared, cannot hide one widget

_T = TypeVar("_T", bound=W.Widget)
_shared: dict[tuple[Any, ...], W.Widget] = {}


def shared(kind: type[_T], **traits: Any) -> _T:
    """The one widget of a kind with these traits: it may stand in several places, and nobody changes it."""
    key = (kind, *sorted(traits.items()))
    found = _shared.get(key)
    if found is None or found.comm is None:  # Widget.close_all() takes these too
        found = _shared[key] = kind(**traits)
    return cast("_T", found)


def is_shared(widget: W.Widget) -> bool:
    """Whether it stands in other displays as well, and is not one display's to close."""
    return any(widget is each for each in _shared.values())


def look(**layout: str) -> W.Layout:
    """The layout with these traits, for all that look so.

    Parameters
    ----------
    **layout
        Of :class:`ipywidgets.Layout`.
    """
    return shared(W.Layout, **layout)


def style_of(widget: type[W.DOMWidget], **style: str) -> W.Widget:
    """The style with these traits, for all of a kind of widget.

    Parameters
    ----------
    widget : type
        Such as :class:`ipywidgets.Text`.
    **style
        Such as ``description_width``.
    """
    return shared(widget.class_traits()["style"].klass, **style)


def show(widget: W.DOMWidget, visible: bool = True) -> None:
    """Show a widget or take it out of the page, and out of the way of the keyboard."""
    if visible:
        widget.remove_class(GONE)
    else:
        widget.add_class(GONE)


def is_shown(widget: W.DOMWidget) -> bool:
    """Whether it stands in the page, as far as :func:`show` decides."""
    return GONE not in widget._dom_classes
