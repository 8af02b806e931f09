"""Reading an HTML page as a browser does, without one: elements, attributes, text, packed data."""

from __future__ import annotations

import base64
import gzip
from dataclasses import dataclass, field
from html.parser import HTMLParser

_EMPTY = {"br", "hr", "meta", "img", "input", "link"}


@dataclass
class Element:
    """An element with the text that it and its children hold."""

    name: str
    attributes: dict[str, str | None]
    text: str = ""
    inside: list[Element] = field(default_factory=list)


class Page(HTMLParser):
    """A parsed page.

    Parameters
    ----------
    content : str
        The whole file.
    """

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[Element] = []
        self._open: list[Element] = []
        self.feed(content)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        made = Element(tag, dict(attrs))
        self.elements.append(made)
        for outer in self._open:
            outer.inside.append(made)
        if tag not in _EMPTY:
            self._open.append(made)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1].name == tag, f"</{tag}> where </{self._open[-1].name}> is due"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & {element.name for element in self._open[-1:]}:
            for element in self._open:
                element.text += data
        elif self._open:
            self._open[-1].text += data

    def all(self, name: str) -> list[Element]:
        """Elements of a name, in their order."""
        return [element for element in self.elements if element.name == name]

    def by_id(self, identity: str) -> Element:
        """The element of an id."""
        [found] = [element for element in self.elements if element.attributes.get("id") == identity]
        return found

    def has(self, identity: str) -> bool:
        """Whether there is an element of an id."""
        return any(element.attributes.get("id") == identity for element in self.elements)

    def packed(self, identity: str) -> str:
        """What a data block holds, unpacked."""
        return gzip.decompress(base64.b64decode(self.by_id(identity).text)).decode()


def rows(table: Element) -> list[list[str]]:
    """The cells of a table's body, row by row."""
    found: list[list[str]] = []
    for element in table.inside:
        if element.name == "tr":
            found.append([])
        elif element.name in ("td", "th"):
            found[-1].append(" ".join(element.text.split()))
    return found[1:]
