"""KnobSpace: which knobs a study moves, over which values, under which conditions."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Self

from glmlab.dimension import Dimension, Value, read_dimension, same_value
from glmlab.errors import KnobError, RecipeError
from glmlab.knob_table import knob
from glmlab.plan_list import PLANS, listed_plans
from glmlab.recipe import Recipe
from glmlab.yaml_text import kind_of

Params = dict[str, Value]


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
            dimensions += _of_plans(plans) if name == PLANS else [read_dimension(name, body)]
        for dimension in dimensions:
            if plans and dimension.name in spec and dimension.name in plans[0]:
                raise KnobError(
                    f"space.{dimension.name}: is in space.{PLANS}, too; list its values in one place"
                )
            for other, values in dimension.when.items():
                for value in values:
                    _check_value(other, value, recipe, where=f"space.{dimension.name}.when.")
            for value in dimension.judged_by:
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

    def check_highest(self, recipe: Recipe) -> None:
        """Refuse a recipe that leaves a limit of :meth:`highest` to vLLM.

        Raises
        ------
        KnobError
            With the first such limit.
        """
        for name in self.highest():
            if getattr(recipe, name) is None:
                raise KnobError(
                    f"space.{name}: the recipe leaves it to vLLM; name its default in the recipe,"
                    " since an engine must start with the highest value of the space"
                )

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


def _check_value(name: str, value: Value, recipe: Recipe, where: str = "space.") -> None:
    """Let the Recipe's own validation judge one value, apart from the other fields."""
    if value is None:
        raise KnobError(f"{where}{name}: null is no value; name what it stands for")
    alone = {"name": recipe.name, "model": recipe.model, "max_num_seqs": 1, name: value}
    try:
        Recipe.parse(alone, where="space")
    except RecipeError as error:
        raise KnobError(where + str(error).removeprefix("space: ")) from None
