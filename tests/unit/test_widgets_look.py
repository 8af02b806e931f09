"""Layouts that are shared, and how many messages a display is."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import comm
import ipywidgets
import pytest
from comm.base_comm import BaseComm

import glmlab
from glmlab.widgets import look as looks
from glmlab.widgets.look import GONE, is_shown, look, shared, show, style_of
from glmlab.widgets.style import stylesheet

QUEUE = 1000  # messages: ZeroMQ's default high-water mark of a socket, which ipykernel leaves as it is


def below(box: Any) -> Iterator[Any]:
    """All widgets inside a display."""
    for child in getattr(box, "children", ()):
        yield child
        yield from below(child)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """What goes to the page, by kind of message."""
    counted: Counter[str] = Counter()

    class Counting(BaseComm):
        def publish_msg(self, msg_type: str, *args: Any, **kwargs: Any) -> None:
            counted[msg_type] += 1

    monkeypatch.setattr(comm, "create_comm", Counting)
    monkeypatch.setattr(looks, "_shared", {})
    return counted


def test_a_workbench_goes_through_a_queue_that_nobody_empties(sent: Counter[str]) -> None:
    bench = glmlab.Workbench()
    made = sum(sent.values())
    assert sent["comm_open"] > 100, "a display that says nothing is not counted"
    assert made < 0.8 * QUEUE
    bench.close()


def test_a_second_one_needs_no_layout_of_the_first_again(sent: Counter[str]) -> None:
    first = glmlab.Workbench()
    once = sent["comm_open"]
    second = glmlab.Workbench()
    assert sent["comm_open"] - once < once
    whole = list(below(second))
    assert len(whole) > 200
    first.close()
    assert [type(each).__name__ for each in whole if each.comm is None] == []
    assert [each for each in whole if each.layout.comm is None] == []
    assert [each for each in whole if "style" in each.traits() and each.style.comm is None] == []
    second.close()


def test_what_looks_alike_shares_and_what_does_not_does_not() -> None:
    assert look(width="5em", margin="0") is look(margin="0", width="5em")
    assert look(width="5em") is not look(width="6em")
    assert style_of(ipywidgets.Text, description_width="1em") is style_of(
        ipywidgets.Text, description_width="1em"
    )
    assert style_of(ipywidgets.Text) is not style_of(ipywidgets.Dropdown)
    assert isinstance(style_of(ipywidgets.Button), type(ipywidgets.Button().style))
    assert stylesheet() is stylesheet()


def test_what_was_closed_is_made_anew() -> None:
    first = shared(ipywidgets.Layout, width="77em")
    first.close()
    again = shared(ipywidgets.Layout, width="77em")
    assert again is not first
    assert again.comm is not None


def test_hiding_one_leaves_those_that_look_alike() -> None:
    one, other = (ipywidgets.HTML(layout=look(width="1em"), _dom_classes=("kept",)) for _ in range(2))
    show(one, visible=False)
    show(one, visible=False)
    assert not is_shown(one)
    assert is_shown(other)
    show(one)
    assert is_shown(one)
    assert one._dom_classes == ("kept",)
    assert f".{GONE} {{ display: none !important; }}" in stylesheet().value


def test_no_widget_changes_a_layout_or_a_style_in_place() -> None:
    changes = re.compile(r"\.(layout|style)\.\w+ = ")
    widgets = Path(looks.__file__).parent
    assert {p.name: found for p in widgets.glob("*.py") if (found := changes.findall(p.read_text()))} == {}
