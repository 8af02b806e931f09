"""``space.plans`` of a study file: rebuild knobs that only go together, listed combination by combination.

``tensor_parallel: [1, 2, 4]`` beside ``pipeline_parallel: [1, 2, 4]`` would be nine plans, of which four
GPUs have room for six; no condition of one knob on another says that. So plans are listed::

    space:
      plans:
        - {tensor_parallel: 4}
        - {tensor_parallel: 2, pipeline_parallel: 2}
        - {tensor_parallel: 4, expert_parallel: true}
      kv_splits: [16, 32, 64]

A knob that a plan does not name has the recipe's value in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from glmlab.errors import KnobError
from glmlab.knob_table import knob
from glmlab.recipe import Recipe
from glmlab.yaml_text import kind_of

PLANS = "plans"


def listed_plans(body: Any, recipe: Recipe) -> tuple[dict[str, Any], ...]:
    """The plans of a study file, each with a value for every knob that one of them names.

    Parameters
    ----------
    body : list of mapping
        What the file has under ``plans``.
    recipe : Recipe
        Gives the values that a plan leaves out.

    Raises
    ------
    KnobError
        For what is no list of plans, an unknown or live knob, a plan that is listed twice, or a knob that
        the recipe leaves to the engine.
    """
    if isinstance(body, str | Mapping) or not hasattr(body, "__iter__"):
        raise KnobError(f"space.{PLANS} = {body!r}: expected a list of plans, such as {{tensor_parallel: 4}}")
    given = list(body)
    names = dict.fromkeys(name for number, plan in enumerate(given, 1) for name in _names(plan, number))
    if not given:
        raise KnobError(f"space.{PLANS}: is empty; list at least one plan")
    plans = tuple({name: _value(plan, name, recipe) for name in names} for plan in given)
    keys = [json.dumps(plan, default=str) for plan in plans]
    for number, key in enumerate(keys, 1):
        if (first := keys.index(key) + 1) < number:
            raise KnobError(f"space.{PLANS}: number {number} is the same plan as number {first}")
    return plans


def _names(plan: Any, number: int) -> tuple[str, ...]:
    where = f"space.{PLANS}, number {number}"
    if not isinstance(plan, Mapping):
        raise KnobError(f"{where}: expected knobs and their values, found {kind_of(plan)}")
    if not plan:
        raise KnobError(f"{where}: is empty; name at least one knob")
    for name in plan:
        try:
            found = knob(str(name))
        except KnobError as error:
            raise KnobError(f"{where}: {error}") from None
        if found.reach != "rebuild":
            raise KnobError(
                f"{where}: {name} is changed in the running engine; list its values beside the plans"
            )
    return tuple(str(name) for name in plan)


def _value(plan: Mapping[str, Any], name: str, recipe: Recipe) -> Any:
    if name in plan:
        return plan[name]
    own = getattr(recipe, name)
    if own is None:
        raise KnobError(
            f"space.{PLANS}: {name} is in some plans only, and the recipe leaves it to the engine; name it"
            " in each"
        )
    return own
