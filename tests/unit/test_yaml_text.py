from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glmlab.errors import RecipeError, StudyError
from glmlab.yaml_text import dump_yaml, load_yaml, parse_yaml

TEXT = """\
# head
b: 1 # one
a:
  # inside
  - x
  - y
c: {low: 1, high: 2}
"""
PLAIN = {"b": 1, "a": ["x", "y"], "c": {"low": 1, "high": 2}}


def test_what_was_not_changed_is_written_to_the_letter():
    assert dump_yaml(PLAIN, like=parse_yaml(TEXT, "here", StudyError)) == TEXT


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (PLAIN | {"b": 2}, TEXT.replace("b: 1 #", "b: 2 #")),
        (PLAIN | {"d": True}, TEXT + "d: true\n"),
        ({k: v for k, v in PLAIN.items() if k != "c"}, TEXT.replace("c: {low: 1, high: 2}\n", "")),
    ],
    ids=["changed", "added", "dropped"],
)
def test_a_change_touches_its_own_line_only(values, expected):
    assert dump_yaml(values, like=parse_yaml(TEXT, "here", StudyError)) == expected


def test_true_in_place_of_one_is_a_change():
    assert dump_yaml({"b": True}, like=parse_yaml("b: 1\n", "here", StudyError)) == "b: true\n"


def test_writing_leaves_the_document_alone():
    document = parse_yaml(TEXT, "here", StudyError)
    dump_yaml({"b": 5}, like=document)
    assert document == PLAIN


KEYS = st.text("abcxyz_", min_size=1)
VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats(allow_nan=False) | st.none()
    | st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@pytest.mark.parametrize(
    "text",
    ["a\nb", "a\nb\n", " a\nb", "a \nb", "a\n\nb", "a\n# b: c", "|\n>-", "a\r\nb", "a\n\tb", "a\nb\x85c"],
)
def test_lines_survive_writing_and_reading(text):
    assert parse_yaml(dump_yaml({"notes": text, "z": 1}), "here", StudyError) == {"notes": text, "z": 1}


def test_plain_lines_are_written_as_they_are_read():
    assert dump_yaml({"notes": "one: a\ntwo"}) == "notes: |-\n  one: a\n  two\n"


@given(st.dictionaries(KEYS, VALUES, max_size=4))
def test_any_values_survive_writing_and_reading(values):
    assert parse_yaml(dump_yaml(values), "here", StudyError) == (values or {})


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: [1\n", "here: line 2, column 1: not valid YAML, "),
        ("a: 1\na: 2\n", "here: line 2, column 1: not valid YAML, found duplicate key"),
        ("a: *gone\n", "here: line 1, column 4: not valid YAML, found undefined alias"),
        ("a: \x07\n", "here: "),
        ("a: 1\n---\nb: 2\n", "here: "),
    ],
    ids=["open list", "duplicate", "alias", "control character", "two documents"],
)
def test_a_syntax_error_is_one_line_with_its_place(text, said):
    with pytest.raises(StudyError) as error:
        parse_yaml(text, "here", StudyError)
    assert str(error.value).startswith(said)
    assert "not valid YAML" in str(error.value)
    assert "\n" not in str(error.value)


def test_yaml_cannot_run_code(tmp_path):
    with contextlib.suppress(StudyError):
        parse_yaml(f"!!python/object/apply:os.mkdir [{tmp_path}/made]\n", "here", StudyError)
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("error", [RecipeError, StudyError])
def test_a_missing_file_is_an_error_of_the_callers_kind(tmp_path, error):
    with pytest.raises(error, match=r"nothing\.yaml: no such file$"):
        load_yaml(tmp_path / "nothing.yaml", error)


@pytest.mark.parametrize("make", ["folder", "binary"])
def test_what_cannot_be_read_as_text_is_one_line(tmp_path, make):
    path = tmp_path / "thing.yaml"
    path.mkdir() if make == "folder" else path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StudyError, match="cannot be read") as error:
        load_yaml(path, StudyError)
    assert "\n" not in str(error.value)
