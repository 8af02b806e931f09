"""HTML that is escaped by construction: text stays text, only what is built here is markup."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Literal

# Not allowed in HTML, be it escaped or not; and what turns the reading order of a line around.
_FORBIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
_EMPTY = frozenset({"br", "hr", "meta", "path", "line", "circle", "rect"})
_CUT = " … (cut here)"

Align = Literal["left", "right"]


class Html(str):
    """Markup. Everything else that is put into a page is text, and escaped."""

    __slots__ = ()


Child = str | int | float | None


def text(content: object) -> Html:
    """Text as it stands, whatever it holds."""
    plain = str(content).encode("utf-8", "replace").decode("utf-8")
    return Html(escape(_FORBIDDEN.sub("\ufffd", plain)))


def fragment(*children: Child) -> Html:
    """Markup and text after each other; ``None`` is nothing."""
    return Html("".join(c if isinstance(c, Html) else text(c) for c in children if c is not None))


def tag(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Html:
    """An element.

    Parameters
    ----------
    name : str
        Of the element.
    children : str, int, float or None
        Html is taken as it is, all else is escaped.
    attributes : str, int, bool or None
        ``class_`` stands for ``class`` and ``_`` for ``-``; ``True`` is an attribute without a value,
        ``None`` and ``False`` leave it out.
    """
    parts = [name]
    for key, value in attributes.items():
        written = key.rstrip("_").replace("_", "-")
        if value is True:
            parts.append(written)
        elif value is not None and value is not False:
            parts.append(f'{written}="{text(value)}"')
    opening = f"<{' '.join(parts)}>"
    return Html(opening if name in _EMPTY else f"{opening}{fragment(*children)}</{name}>")


def hide(page: str, secrets: Iterable[str]) -> str:
    """A page without these words, wherever they stand in its text."""
    for secret in secrets:
        page = page.replace(text(secret), "***")
    return page


def clip(content: str, most: int) -> str:
    """A text with at most so many characters; it says so where it was cut."""
    return content if len(content) <= most else content[: most - len(_CUT)].rstrip() + _CUT


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Child]],
    *,
    label: str,
    caption: str | None = None,
    marked: Sequence[int] = (),
) -> Html:
    """A table that scrolls by itself where the page is narrow.

    Parameters
    ----------
    columns : sequence of str
        Heads; one with a leading ``>`` is of numbers, set flush right.
    rows : iterable of sequences
        As many cells each as there are columns. The first cell heads its row.
    label : str
        What it is, for readers that do not see it.
    caption : str, optional
        A sentence below its name.
    marked : sequence of int
        Rows to set off, from 0.
    """
    sides = ["number" if column.startswith(">") else None for column in columns]
    head = tag(
        "tr",
        *(
            tag("th", column.removeprefix(">"), scope="col", class_=side)
            for column, side in zip(columns, sides, strict=True)
        ),
    )
    body = []
    for index, row in enumerate(rows):
        cells = [
            tag("td" if place else "th", cell, class_=side, scope=None if place else "row")
            for place, (cell, side) in enumerate(zip(row, sides, strict=True))
        ]
        body.append(tag("tr", *cells, class_="marked" if index in marked else None))
    scrolling = tag(
        "div",
        tag("table", tag("thead", head), tag("tbody", *body)),
        class_="scroll",
        role="region",
        aria_label=label,
        tabindex=0,
    )
    # Beside the table, not in it: it would be as wide as the table and scroll away with it.
    return tag("div", tag("p", caption, class_="caption") if caption else None, scrolling, class_="framed")


def facts(pairs: Iterable[tuple[str, Child]]) -> Html:
    """Names and what they stand for; pairs without a value are left out."""
    return tag(
        "dl",
        *(
            tag("div", tag("dt", name), tag("dd", value))
            for name, value in pairs
            if value is not None and value != ""
        ),
    )


def listing(items: Iterable[Child]) -> Html | None:
    """Items with bullets; nothing where there are none."""
    lines = [tag("li", item) for item in items]
    return tag("ul", *lines) if lines else None


def folded(summary: Child, *content: Child, opened: bool = False, class_: str | None = None) -> Html:
    """Something that is unfolded when it is wanted."""
    return tag("details", tag("summary", summary), *content, open=opened, class_=class_)


def code_block(content: str, *, copy: str | None = None, most: int = 60_000) -> Html:
    """Text as it stands in a file, with a button that copies it where ``copy`` names it."""
    button = (
        tag("button", "copy", type="button", class_="copy", aria_label=f"copy {copy}", hidden=True)
        if copy
        else None
    )
    return tag("div", button, tag("pre", tag("code", clip(content, most)), tabindex=0), class_="code")


def section(identity: str, title: str, *content: Child) -> Html:
    """A part of the page with a heading that can be linked to."""
    return tag("section", tag("h2", title), *content, id=identity)
