"""Dimension: one knob of a space with its values, and how a study file writes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from glmlab.errors import KnobError
from glmlab.knob_table import Knob, knob
from glmlab.names import did_you_mean

Value = bool | int | float | str | None

_RANGE_KEYS = {"low", "high", "step", "log", "values", "when"}


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One knob of a space: listed values, or a range of whole numbers.

    Parameters
    ----------
    knob : Knob
        What it sets.
    values : tuple
        Listed values; empty for a range.
    low, high, step : int
        Range, both ends included.
    log : bool
        Whether a sampler should look at the range logarithmically.
    when : dict
        Knob name -> values under which this dimension is active; elsewhere the recipe's value stays.
    """

    knob: Knob
    values: tuple[Value, ...] = ()
    low: int = 0
    high: int = 0
    step: int = 1
    log: bool = False
    when: dict[str, tuple[Value, ...]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.knob.name

    @property
    def is_range(self) -> bool:
        return not self.values

    @property
    def count(self) -> int:
        """How many values there are."""
        return len(self.values) or (self.high - self.low) // self.step + 1

    @property
    def highest(self) -> Value:
        """The highest value, which a limit that can only be lowered must start from."""
        return self.high if self.is_range else max(v for v in self.values if isinstance(v, int))

    @property
    def judged_by(self) -> tuple[Value, ...]:
        """Values by which all are judged: the ends of a range, or each that is listed."""
        return (self.low, self.high) if self.is_range else self.values

    def points(self) -> tuple[Value, ...]:
        """All values, in order."""
        return self.values or tuple(range(self.low, self.high + 1, self.step))

    def __contains__(self, value: object) -> bool:
        if self.is_range:
            return (
                isinstance(value, int)
                and not isinstance(value, bool)
                and self.low <= value <= self.high
                and (value - self.low) % self.step == 0
            )
        return any(same_value(value, known) for known in self.values)

    def is_active(self, params: Mapping[str, Value]) -> bool:
        """Whether the values of the other knobs let this one matter."""
        return all(
            any(same_value(params.get(name), allowed) for allowed in values)
            for name, values in self.when.items()
        )

    def as_spec(self) -> Any:
        """The dimension as a study file would write it."""
        body: Any = (
            {"low": self.low, "high": self.high, "step": self.step, "log": self.log}
            if self.is_range
            else list(self.values)
        )
        if self.when:
            body = body if isinstance(body, dict) else {"values": body}
            body["when"] = {name: list(values) for name, values in self.when.items()}
        return body


def same_value(left: object, right: object) -> bool:
    """Equality that keeps ``True`` and ``1`` apart, which Python does not."""
    return isinstance(left, bool) == isinstance(right, bool) and left == right


def read_dimension(name: Any, body: Any) -> Dimension:
    """What a study file has under ``space.NAME``; whether a recipe can have the values, the space says.

    Raises
    ------
    KnobError
        For an unknown knob, or what is neither a list of values nor a range.
    """
    known = knob(str(name))
    if isinstance(body, Mapping):
        unknown = sorted(set(map(str, body)) - _RANGE_KEYS)
        if unknown:
            raise KnobError(f"space.{name}.{unknown[0]}: unknown key{did_you_mean(unknown[0], _RANGE_KEYS)}")
        when = _conditions(name, body.get("when", {}))
        if "values" in body:
            if set(body) & {"low", "high", "step", "log"}:
                raise KnobError(f"space.{name}: give either values or low and high, not both")
            return Dimension(knob=known, values=_values(known, body["values"]), when=when)
        return _range(known, body, when)
    return Dimension(knob=known, values=_values(known, body))


def _values(known: Knob, body: Any) -> tuple[Value, ...]:
    if isinstance(body, str | Mapping) or not hasattr(body, "__iter__"):
        raise KnobError(f"space.{known.name} = {body!r}: expected a list of values or {{low, high}}")
    values = tuple(body)
    if not values:
        raise KnobError(f"space.{known.name}: the list of values is empty")
    keys = [json.dumps(value, default=str) for value in values]
    for key, value in zip(keys, values, strict=True):
        if keys.count(key) > 1:
            raise KnobError(f"space.{known.name}: {value!r} is listed twice")
    return values


def _range(known: Knob, body: Mapping[str, Any], when: dict[str, tuple[Value, ...]]) -> Dimension:
    if known.kind != "int":
        raise KnobError(f"space.{known.name}: has no range, list its values instead")
    for key in ("low", "high"):
        if key not in body:
            raise KnobError(f"space.{known.name}.{key}: missing")
    step, log = body.get("step", 1), body.get("log", False)
    for key, value in (("low", body["low"]), ("high", body["high"]), ("step", step)):
        if isinstance(value, bool) or not isinstance(value, int):
            raise KnobError(f"space.{known.name}.{key} = {value!r}: expected a whole number")
    if not isinstance(log, bool):
        raise KnobError(f"space.{known.name}.log = {log!r}: expected true or false")
    low, high = body["low"], body["high"]
    if low >= high:
        raise KnobError(f"space.{known.name}: low = {low} must be below high = {high}")
    if step < 1 or (high - low) % step:
        raise KnobError(
            f"space.{known.name}.step = {step}: must be at least 1 and divide high - low = {high - low}"
        )
    if log and (step != 1 or low < 1):
        raise KnobError(f"space.{known.name}.log: needs low >= 1 and no step")
    return Dimension(knob=known, low=low, high=high, step=step, log=log, when=when)


def _conditions(name: Any, body: Any) -> dict[str, tuple[Value, ...]]:
    if not isinstance(body, Mapping):
        raise KnobError(f"space.{name}.when = {body!r}: expected knob: values")
    return {
        str(other): _values(knob(str(other)), values if isinstance(values, list) else [values])
        for other, values in body.items()
    }
