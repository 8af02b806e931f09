"""A sweep's fields, filled in as a user fills them in."""

from __future__ import annotations

from typing import Any

from glmlab import find_recipe
from glmlab.widgets.sweep import Sweep
from tests.studies import ROOT
from tests.watched import until

REPLAY = ROOT / "glmlab" / "data" / "studies" / "replay-kv-splits.yaml"
TINY = find_recipe("tiny-glm4-moe")


def choose(sweep: Sweep, **values: str) -> None:
    for name, text in values.items():
        row = sweep.editor.space.rows[name]
        row.tick.value = True
        row.move(text)


def put(sweep: Sweep, **values) -> None:
    for name, value in values.items():
        sweep.editor.fields[name].control.value = value


def started(sweep: Sweep) -> Any:
    until(lambda: sweep.session is not None or sweep.notice.text)
    assert sweep.notice.text == ""
    return sweep.session
