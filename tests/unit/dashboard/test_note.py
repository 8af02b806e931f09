"""The note of a study: whatever it holds is text in it."""

from __future__ import annotations

import pytest
from markdown_it import MarkdownIt

from glmlab.dashboard.note import block, code, text, write_note
from glmlab.report.material import Material
from tests.doubles import scripted_start
from tests.studies import RECIPE, TWO_PLANS, run, split_helps

HOSTILE = "</script><img src=x onerror=alert(1)> [a](http://x) `b` | **c**"


def kinds(markdown: str) -> set[str]:
    """The kinds of elements that a note is read as, HTML among them."""
    found = set()
    for token in MarkdownIt("commonmark", {"html": True}).enable("table").parse(markdown):
        found.add(token.type)
        found |= {child.type for child in token.children or ()}
    return found


def test_whatever_a_study_holds_is_text_in_its_note(url):
    script = scripted_start(split_helps, start_fails=lambda r: HOSTILE if r.block_size == 64 else None)
    study = run(url, script, space=TWO_PLANS, recipe={**RECIPE, "notes": HOSTILE, "env": {"A": HOSTILE}})
    study.store.add_provenance({"replayed": [{"name": "x", "origin": HOSTILE}]})
    note = write_note(Material.read(study.store), "")
    assert "onerror" in note
    assert not {"html_block", "html_inline", "image", "link_open"} & kinds(note)
    assert {"table_open", "fence", "bullet_list_open"} <= kinds(note)


@pytest.mark.parametrize("content", [HOSTILE, "a_b_c", "1 | 2", "# no head", "\\", "&lt;", "~~x~~", "a\n\nb"])
def test_text_is_read_as_it_was_written(content):
    [inline] = [t for t in MarkdownIt("commonmark").parse(text(content)) if t.type == "inline"]
    assert "".join(child.content for child in inline.children or ()) == " ".join(content.split())


@pytest.mark.parametrize("content", ["a", "a`b", "``", "x ``` y", "~~~"])
def test_code_holds_its_own_fences(content):
    [inline] = [t for t in MarkdownIt("commonmark").parse(code(content)) if t.type == "inline"]
    assert [(c.type, c.content) for c in inline.children or ()] == [("code_inline", content)]
    [fence] = MarkdownIt("commonmark").parse(block(f"one\n{content}\n", "sh"))
    assert fence.content.rstrip() == f"one\n{content}".rstrip()
