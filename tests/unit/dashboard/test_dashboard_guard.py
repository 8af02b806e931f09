"""What the dashboard makes of odd requests, and of notes that hold its own marks."""

from __future__ import annotations

from typing import Any

import pytest

from glmlab.dashboard.note import BEGIN, END, write_note
from glmlab.dashboard.server import only_from_here
from glmlab.report.material import Material
from tests.doubles import scripted_start
from tests.studies import LIVE, RECIPE, run, split_helps


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"HTTP_HOST": "["},
        {"HTTP_HOST": "localhost@evil.example"},
        {"HTTP_HOST": "localhost", "HTTP_ORIGIN": "http://["},
        {"HTTP_HOST": "localhost", "HTTP_ORIGIN": "null"},
    ],
)
def test_what_names_no_page_of_this_machine_is_refused(headers: dict[str, str]) -> None:
    said: list[str] = []

    def app(*_: Any) -> list[bytes]:
        raise AssertionError("it was let through")

    only_from_here(app)(headers, lambda status, _: said.append(status))
    assert said == ["403 Forbidden"]


def test_a_study_that_says_its_marks_does_not_break_its_note(tmp_path: Any) -> None:
    recipe = {**RECIPE, "notes": f"one\n{END}\ntwo\n{BEGIN}"}
    study = run(f"sqlite:///{tmp_path}/studies.db", scripted_start(split_helps), space=LIVE, recipe=recipe)
    material = Material.read(study.store)
    once = write_note(material, "of my own")
    assert write_note(material, write_note(material, once)).count(BEGIN) == once.count(BEGIN)
    assert write_note(material, once).splitlines()[-1] == "of my own"
    assert len(write_note(material, once).splitlines()) == len(once.splitlines())
