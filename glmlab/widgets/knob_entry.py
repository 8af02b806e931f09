"""KnobEntry: what stands in the fields of one knob of a study, and the values that it means."""

from __future__ import annotations

import typing
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from glmlab.engines.base import KnobStatus
from glmlab.errors import KnobError, StudyError
from glmlab.knob_table import Knob
from glmlab.knobs import word
from glmlab.recipe import Recipe
from glmlab.widgets.field_values import listed_names
from glmlab.yaml_text import parse_yaml

How = Literal["values", "range", "range, logarithmic", "as YAML"]
HOWS: tuple[How, ...] = ("values", "range", "range, logarithmic", "as YAML")

_WORDS = {"true": True, "false": False}


@dataclass(frozen=True, kw_only=True)
class KnobEntry:
    """The fields of one knob, as they were typed.

    Parameters
    ----------
    how : {"values", "range", "range, logarithmic", "as YAML"}
        Which of the fields count.
    text : str
        Values with commas between them; or, as YAML, whatever a study file may say of a knob.
    low, high, step : int
        Of a range.
    """

    how: How = "values"
    text: str = ""
    low: int = 0
    high: int = 0
    step: int = 1

    @classmethod
    def of(cls, body: Any) -> KnobEntry:
        """The fields that stand for what a study file says of a knob."""
        if isinstance(body, Mapping):
            if set(body) <= {"low", "high", "step", "log"}:
                how: How = "range, logarithmic" if body.get("log") else "range"
                return cls(how=how, low=body["low"], high=body["high"], step=body.get("step", 1))
            return cls(how="as YAML", text=_flow(body))
        return cls(text=", ".join(map(word, body)))

    def body(self, knob: Knob) -> Any:
        """What a study file would say of the knob.

        Raises
        ------
        InputError
            If a field cannot be read; whether the values can be, the space says.
        """
        if self.how == "as YAML":
            return parse_yaml(self.text, f"space.{knob.name}", StudyError)
        if self.how == "range":
            step = {} if self.step == 1 else {"step": self.step}
            return {"low": self.low, "high": self.high, **step}
        if self.how == "range, logarithmic":
            return {"low": self.low, "high": self.high, "log": True}
        return [_value(knob, item) for item in listed_names(self.text)]


def suggested(knob: Knob, recipe: Recipe, status: KnobStatus | None = None) -> str:
    """Values to begin with, as text: what there is, or what lies around the recipe's own value.

    Empty where nothing is known: an invented value would be worse than a field to fill in.
    """
    if knob.kind == "bool":
        return "true, false"
    if status is not None and status.values:
        return ", ".join(map(word, status.values))
    now = getattr(recipe, knob.name)
    if now is None and status is not None:
        now = status.value
    if knob.kind == "choice":
        return ", ".join(_spellings(knob.name)) or ("" if now is None else word(now))
    if not isinstance(now, int):
        return ""
    near = (now // 4, now // 2, now) if knob.lowers_only else (now // 2, now, now * 2)
    kept = [value for value in near if value > 0 and (status is None or status.allows(value))]
    return ", ".join(map(str, kept or [now]))


def _value(knob: Knob, item: str) -> bool | int | str:
    if knob.kind == "bool":
        if item.lower() not in _WORDS:
            raise KnobError(f"space.{knob.name} = {item!r}: expected true, false or both")
        return _WORDS[item.lower()]
    if knob.kind == "choice":
        return item.strip("'\"")
    try:
        return int(item)
    except ValueError:
        raise KnobError(
            f"space.{knob.name} = {item!r}: expected whole numbers with commas between them, such as 2, 4, 8"
        ) from None


def _spellings(name: str) -> tuple[str, ...]:
    """What a recipe field may be, where that is a closed list."""
    for branch in _branches(Recipe.model_fields[name].annotation):
        if typing.get_origin(branch) is Literal:
            return tuple(word for word in typing.get_args(branch) if word != "auto")
    return ()


def _branches(annotation: Any) -> tuple[Any, ...]:
    return (annotation,) if typing.get_origin(annotation) is Literal else typing.get_args(annotation)


def _flow(body: Any) -> str:
    """A mapping in one line of YAML, which is what JSON is."""
    import json

    return json.dumps(body)
