from __future__ import annotations

import inspect
import re

import pytest
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from glmlab import errors
from glmlab.errors import EngineError, GlmlabError, InputError, RecipeError

CLASSES = {
    name: cls
    for name, cls in vars(errors).items()
    if inspect.isclass(cls) and cls.__module__ == errors.__name__
}
# Name and depth of each line of the tree in the module's docstring.
TREE = [
    (match[2], len(match[1]) // 4)
    for match in re.finditer(r"^((?:│   |    |├── |└── )*)([A-Z]\w+)(?:  |$)", errors.__doc__, re.MULTILINE)
]


def test_the_tree_of_the_docstring_is_the_tree_of_the_classes():
    branch: list[str] = []
    found = {}
    for name, depth in TREE:
        branch[depth:] = [name]
        found[name] = branch[depth - 1] if depth else "Exception"
    assert found == {name: cls.__mro__[1].__name__ for name, cls in CLASSES.items()}


@pytest.mark.parametrize("name", CLASSES)
def test_one_except_clause_catches_everything_raised_on_purpose(name):
    assert issubclass(CLASSES[name], GlmlabError)
    assert CLASSES[name].__doc__


def test_an_engines_error_carries_the_end_of_its_log():
    assert EngineError("gone").log_tail == ""
    assert EngineError("gone", log_tail="a\nb").log_tail == "a\nb"
    assert str(EngineError("gone", log_tail="a\nb")) == "gone"


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    count: int
    size: int | str = 1
    even: int = 0

    @field_validator("even")
    @classmethod
    def _even(cls, value):
        if value % 2:
            raise ValueError("expected an even number")
        return value


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({}, "thing: count: missing"),
        ({"count": "x"}, "thing: count = 'x': Input should be a valid integer"),
        ({"count": 1, "cuont": 2}, "thing: cuont = 2: unknown key"),
        ({"count": 1, "even": 3}, "thing: even = 3: expected an even number"),
        ({"cuont": 2}, "thing: count: missing; cuont = 2: unknown key"),
    ],
)
def test_a_validation_report_becomes_one_line_with_field_value_and_reason(data, line):
    with pytest.raises(ValidationError) as error:
        Thing.model_validate(data)
    folded = RecipeError.from_validation(error.value, "thing")
    assert isinstance(folded, RecipeError)
    assert str(folded).startswith(line)
    assert "\n" not in str(folded)


def test_the_branches_of_a_union_are_not_shown_as_if_the_user_had_written_them():
    with pytest.raises(ValidationError) as error:
        Thing.model_validate({"count": 1, "size": 1.5})
    assert "size.int" not in str(InputError.from_validation(error.value, "thing"))


def test_a_long_value_is_cut_short():
    with pytest.raises(ValidationError) as error:
        Thing.model_validate({"count": "x" * 1000})
    message = str(InputError.from_validation(error.value, "thing"))
    assert len(message) < 250
    assert "…" in message
