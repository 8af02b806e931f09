"""What goes wrong in a callback is shown where the user looks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from glmlab.errors import EngineDiedError, KnobError
from glmlab.widgets.notice import Notice


@pytest.fixture
def notice():
    return Notice()


def shown(notice: Notice) -> str:
    return str(notice._area.value)


def failing(error: BaseException) -> Callable[..., None]:
    def callback(*_: Any) -> None:
        raise error

    return callback


def test_a_new_notice_takes_no_room(notice):
    assert shown(notice) == ""


def test_bad_input_is_shown_by_its_line_and_announced(notice):
    notice.guarded(failing(KnobError("kv_splits = 3: this engine allows 1, 2")))(None)
    assert "Error: kv_splits = 3: this engine allows 1, 2" in shown(notice)
    assert 'role="alert"' in shown(notice)
    assert "Traceback" not in shown(notice)


def test_an_engines_error_comes_with_the_end_of_its_log(notice):
    error = EngineDiedError("the engine died by SIGKILL", log_tail="\x1b[33mWARNING\x1b[0m out of memory")
    notice.guarded(failing(error))()
    assert "the engine died by SIGKILL" in shown(notice)
    assert "<pre>WARNING out of memory</pre>" in shown(notice)


def test_what_nobody_foresaw_is_shown_with_its_traceback_and_logged(notice, caplog):
    with caplog.at_level(logging.ERROR, logger="glmlab"):
        notice.guarded(failing(ZeroDivisionError("division by zero")))(1)
    assert "ZeroDivisionError: division by zero" in shown(notice)
    assert "test_widgets_notice.py" in shown(notice)
    assert "division by zero" in caplog.text


def test_values_are_escaped(notice):
    notice.tell(KnobError("x = '<img src=x onerror=alert(1)>'"))
    notice.say("<b>", detail="</pre><script>")
    assert "<img" not in shown(notice)
    assert "<script>" not in shown(notice)
    assert "&lt;b&gt;" in shown(notice)


def test_a_kind_is_told_by_its_word_not_by_colour_alone(notice):
    words = {}
    for kind in ("good", "notes", "warns", "error"):
        notice.say("said", kind)
        words[kind] = shown(notice).partition(">said")[0] + shown(notice)
    assert [kind for kind in words if "Warning: said" in words[kind]] == ["warns"]
    assert [kind for kind in words if "Error: said" in words[kind]] == ["error"]


def test_a_callback_that_succeeds_shows_nothing_and_gets_its_arguments(notice):
    got = []
    notice.guarded(lambda *args, **kwargs: got.append((args, kwargs)))(1, change=2)
    assert got == [((1,), {"change": 2})]
    assert shown(notice) == ""


def test_it_can_be_written_from_another_thread_and_cleared(notice):
    with ThreadPoolExecutor(1) as pool:
        pool.submit(notice.say, "from afar").result()
    assert "from afar" in shown(notice)
    notice.clear()
    assert notice.text == ""
    assert "from afar" not in shown(notice)
