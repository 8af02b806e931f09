"""A table in a terminal that is too narrow for it."""

from __future__ import annotations

import io

from rich.console import Console

from glmlab.render import table
from glmlab.roomy_table import Roomy


def shown(width: int, *spare: str) -> list[str]:
    rows = table("model", ">total", "attention", "what")
    rows.add_row("glm-4.5-air-fp8", "106.9 B", "gqa", "GLM-4.5-Air in FP8")
    console = Console(file=io.StringIO(), width=width)
    console.print(Roomy(rows, spare))
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


def test_all_columns_where_there_is_room() -> None:
    assert shown(80, "what", "attention") == [
        "model              total  attention  what",
        "glm-4.5-air-fp8  106.9 B  gqa        GLM-4.5-Air in FP8",
    ]


def test_the_least_needed_goes_first_and_is_named() -> None:
    assert shown(50, "what", "attention") == [
        "model              total  attention",
        "glm-4.5-air-fp8  106.9 B  gqa",
        "no room here for what: a wider terminal shows it,",
        "and so does --json",
    ]


def test_what_may_not_go_stays_and_is_folded() -> None:
    text = "".join(shown(20, "what", "attention"))
    assert "model" in text
    assert "no room here forwhat, attention:" in text
