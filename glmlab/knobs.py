"""KnobSpace: which knobs a study moves, over which values, under which conditions."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from glmlab.errors import KnobError, RecipeError
from glmlab.knob_table import Knob, knob
from glmlab.names import did_you_mean
from glmlab.plan_list import PLANS, listed_plans
from glmlab.recipe import Recipe
from glmlab.yaml_text import kind_of

Value = bool | int | float | str | None
Params = dict[str, Value]

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


def word(value: object) -> str:
    """A value as a study file spells it."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def in_words(params: Mapping[str, Any], between: str = " = ") -> str:
    """Knobs and their values in one line, as a person would write them."""
    return ", ".join(f"{name}{between}{word(value)}" for name, value in params.items())


class KnobSpace:
    """The dimensions of a search, in the order in which they were given.

    Parameters
    ----------
    dimensions : Dimension
        At least one; names are unique; conditions refer to knobs of the space without a cycle.
    plans : sequence of dict
        Combinations of some rebuild knobs, each of which is a dimension, too; no others are points of the
        space. Empty where every combination is.
    """

    def __init__(self, *dimensions: Dimension, plans: Sequence[Params] = ()) -> None:
        if not dimensions:
            raise KnobError("space: is empty; name at least one knob with its values")
        self._dimensions = {dimension.name: dimension for dimension in dimensions}
        self.plans = tuple(dict(plan) for plan in plans)
        self._order = self._by_condition()

    # ------------------------------------------------------------------ reading
    @classmethod
    def parse(cls, spec: Any, recipe: Recipe) -> Self:
        """Read the ``space`` of a study file and check each value against the recipe.

        Parameters
        ----------
        spec : mapping
            Knob name -> list of values, ``{low, high, step, log}``, or either with ``when``; and ``plans``,
            a list of combinations (:mod:`glmlab.plan_list`).
        recipe : Recipe
            The recipe that the knobs will change.

        Raises
        ------
        KnobError
            For an unknown knob, a value of the wrong type or one that no recipe can have.
        """
        if not isinstance(spec, Mapping):
            raise KnobError(f"space: expected knobs and their values, found {kind_of(spec)}")
        plans = listed_plans(spec[PLANS], recipe) if PLANS in spec else ()
        dimensions: list[Dimension] = []
        for name, body in spec.items():
            dimensions += _of_plans(plans) if name == PLANS else [_dimension(name, body)]
        for dimension in dimensions:
            if plans and dimension.name in spec and dimension.name in plans[0]:
                raise KnobError(
                    f"space.{dimension.name}: is in space.{PLANS}, too; list its values in one place"
                )
            for other, values in dimension.when.items():
                for value in values:
                    _check_value(other, value, recipe, where=f"space.{dimension.name}.when.")
            for value in (dimension.low, dimension.high) if dimension.is_range else dimension.values:
                _check_value(dimension.name, value, recipe)
        return cls(*dimensions, plans=plans)

    def _by_condition(self) -> tuple[str, ...]:
        """Names with conditions after the knobs that they depend on."""
        placed: list[str] = []
        waiting = list(self._dimensions)
        while waiting:
            ready = [name for name in waiting if set(self._dimensions[name].when) <= set(placed)]
            if not ready:
                name = waiting[0]
                unknown = set(self._dimensions[name].when) - set(self._dimensions)
                reason = (
                    f"depends on {min(unknown)}, which is not in the space"
                    if unknown
                    else "depends on itself through its conditions"
                )
                raise KnobError(f"space.{name}.when: {reason}")
            placed += ready
            waiting = [name for name in waiting if name not in ready]
        return tuple(placed)

    # ------------------------------------------------------------------ asking
    def __iter__(self) -> Iterator[Dimension]:
        return iter(self._dimensions.values())

    def __len__(self) -> int:
        return len(self._dimensions)

    def __getitem__(self, name: str) -> Dimension:
        return self._dimensions[name]

    def __contains__(self, name: object) -> bool:
        return name in self._dimensions

    @property
    def live(self) -> tuple[str, ...]:
        """Knobs that a running engine takes."""
        return tuple(d.name for d in self if d.knob.reach == "live")

    @property
    def rebuild(self) -> tuple[str, ...]:
        """Knobs that need a new engine."""
        return tuple(d.name for d in self if d.knob.reach == "rebuild")

    def active(self, params: Mapping[str, Value]) -> Params:
        """The given values without those whose conditions do not hold."""
        kept: Params = {}
        for name in self._order:
            if name in params and self._dimensions[name].is_active(kept):
                kept[name] = params[name]
        return {name: kept[name] for name in self._dimensions if name in kept}

    def active_names(self, params: Mapping[str, Value]) -> tuple[str, ...]:
        """Knobs that a trial with these values must set."""
        kept: Params = {}
        for name in self._order:
            if self._dimensions[name].is_active(kept):
                kept[name] = params.get(name)
        return tuple(name for name in self._dimensions if name in kept)

    def plan(self, params: Mapping[str, Value]) -> Params:
        """The part of the values that needs an engine of its own."""
        return {name: params[name] for name in self.rebuild if name in params}

    def highest(self) -> dict[str, int]:
        """For limits that can only be lowered live: the value that an engine must start with."""
        return {d.name: d.highest for d in self if d.knob.lowers_only and isinstance(d.highest, int)}

    def allows(self, params: Mapping[str, Value]) -> bool:
        """Whether the knobs of ``plans`` have the values of one of them."""
        if not self.plans:
            return True
        return any(all(same_value(params.get(name), plan[name]) for name in plan) for plan in self.plans)

    @property
    def plan_count(self) -> int:
        """Number of plans, each an engine of its own, if no condition held any back."""
        return self._count(d for d in self if d.knob.reach == "rebuild")

    @property
    def upper_count(self) -> int:
        """Number of points if no condition held any back."""
        return self._count(self)

    def _count(self, dimensions: Iterable[Dimension]) -> int:
        listed = self.plans[0] if self.plans else {}
        return (len(self.plans) or 1) * math.prod(d.count for d in dimensions if d.name not in listed)

    def grid(self) -> Iterator[Params]:
        """All points, each once, conditions applied, in the order of the study file."""
        seen = set()
        for combination in itertools.product(*(d.points() for d in self)):
            point = dict(zip(self._dimensions, combination, strict=True))
            params = self.active(point)
            key = params_key(params)
            if key not in seen and self.allows(point):
                seen.add(key)
                yield params

    def with_value(self, name: str, value: Value) -> KnobSpace:
        """The same space with one more value of one knob, unless it holds it already."""
        dimension = self._dimensions[name]
        if value in dimension:
            return self
        if dimension.is_range:
            raise KnobError(
                f"space.{name}: the recipe's own value {value!r} lies outside"
                f" {dimension.low}..{dimension.high} (step {dimension.step}); widen the range,"
                " since the baseline must be a point of the space"
            )
        grown = Dimension(knob=dimension.knob, values=(*dimension.values, value), when=dimension.when)
        return KnobSpace(*(grown if d.name == name else d for d in self), plans=self.plans)

    def with_point(self, params: Mapping[str, Value]) -> KnobSpace:
        """The same space with one more point: its values, and its plan where plans are listed."""
        space: KnobSpace = self
        for name, value in params.items():
            space = space.with_value(name, value)
        if space.allows(params) or not set(space.plans[0]) <= set(params):
            return space
        plan = {name: params[name] for name in space.plans[0]}
        return KnobSpace(*space, plans=(*space.plans, plan))

    def as_spec(self) -> dict[str, Any]:
        """The space as a study file would write it."""
        if not self.plans:
            return {d.name: d.as_spec() for d in self}
        others = {d.name: d.as_spec() for d in self if d.name not in self.plans[0]}
        return {PLANS: [dict(plan) for plan in self.plans], **others}

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change if and only if the space does."""
        return hashlib.sha256(json.dumps(self.as_spec()).encode()).hexdigest()[:12]

    def __repr__(self) -> str:
        return f"KnobSpace({', '.join(f'{d.name}={d.as_spec()!r}' for d in self)})"


def params_key(params: Mapping[str, Value]) -> str:
    """One text for one point, whatever the order of its knobs."""
    return json.dumps(dict(params), sort_keys=True)


def _dimension(name: Any, body: Any) -> Dimension:
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


def _of_plans(plans: Sequence[Params]) -> list[Dimension]:
    """The knobs of listed plans, each with its values in the order in which they come."""
    found = []
    for name in plans[0]:
        values: list[Value] = []
        for plan in plans:
            if not any(same_value(plan[name], value) for value in values):
                values.append(plan[name])
        found.append(Dimension(knob=knob(name), values=tuple(values)))
    return found


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


def _check_value(name: str, value: Value, recipe: Recipe, where: str = "space.") -> None:
    """Let the Recipe's own validation judge one value, apart from the other fields."""
    if value is None:
        raise KnobError(f"{where}{name}: null is no value; name what it stands for")
    alone = {"name": recipe.name, "model": recipe.model, "max_num_seqs": 1, name: value}
    try:
        Recipe.parse(alone, where="space")
    except RecipeError as error:
        raise KnobError(where + str(error).removeprefix("space: ")) from None
