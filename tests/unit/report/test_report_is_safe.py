"""A report loads nothing, and whatever is in a study is text in it."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from glmlab.report.elements import clip, table, tag
from glmlab.report.page import _asset
from tests.doubles import scripted_start
from tests.reports import HOSTILE, fails_at_64, read
from tests.studies import RECIPE, TWO_PLANS, run, split_helps


def test_it_loads_nothing(study, tmp_path):
    page = read(study.store, tmp_path)
    for element in page.elements:
        assert element.name not in {"link", "iframe", "img", "object", "embed", "base", "audio", "video"}
        for name in ("src", "href", "srcset", "data", "action", "poster", "background"):
            assert (element.attributes.get(name) or "#").startswith("#"), element
    assert not re.search(r"url\(|@import|https?:", _asset("report.css"))
    assert not re.search(
        r"https?:|\bfetch\(|XMLHttpRequest|import\(|sendBeacon|WebSocket", _asset("report.js")
    )


def test_the_page_lets_no_script_run_but_its_own_two(study, tmp_path):
    page = read(study.store, tmp_path)
    [policy] = [
        e.attributes["content"] or ""
        for e in page.all("meta")
        if e.attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    assert policy.startswith("default-src 'none';")
    allowed = re.findall(r"'sha256-([^']+)'", policy)
    [own] = [e.text for e in page.all("script") if "type" not in e.attributes]

    def digest(script: str) -> str:
        return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()

    assert allowed == [digest(own), digest(page.packed("plotly"))]
    assert "unsafe-inline" not in policy.split("script-src")[1]


def test_whatever_is_in_a_study_is_text(url, tmp_path):
    script = scripted_start(split_helps, start_fails=fails_at_64)
    recipe = {
        **RECIPE,
        "notes": HOSTILE,
        "env": {"NOTE": HOSTILE},
        "engine_args": {"served_model_name": HOSTILE},
    }
    study = run(url, script, space=TWO_PLANS, recipe=recipe)
    study.store.add_provenance(
        {
            "gpus": [{"name": HOSTILE, "driver": HOSTILE}],
            "cpu": HOSTILE,
            "os": HOSTILE,
            "versions": {HOSTILE: HOSTILE},
            "replayed": [
                {"name": HOSTILE, "origin": HOSTILE, "title": HOSTILE, "notes": [HOSTILE], "gpus": []}
            ],
        }
    )
    page = read(study.store, tmp_path)
    scripts = page.all("script")
    assert [e.attributes.get("type") for e in scripts].count(None) == 1
    for element in page.elements:
        assert element.name not in {"img", "b"}
        assert not any(name.startswith("on") for name in element.attributes)
    assert page.all("body")[0].text.count("onerror=alert(1)") >= 8


def test_what_no_page_may_hold_and_what_turns_its_lines_around_is_replaced():
    assert tag("p", "a\x00b\u202ec\udc80") == "<p>a\ufffdb\ufffdc?</p>"
    assert tag("p", title='"><script>') == '<p title="&quot;&gt;&lt;script&gt;"></p>'


def test_a_table_refuses_rows_that_do_not_fit_it():
    with pytest.raises(ValueError, match="argument"):
        table(("a", "b"), [("1",)], label="x")


def test_a_cut_text_says_so():
    assert clip("abc", 3) == "abc"
    assert clip("a" * 100, 40).endswith("(cut here)")
    assert len(clip("a" * 100, 40)) <= 40
