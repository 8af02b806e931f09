"""The text of a study file: what ``glmlab tune`` reads, in the order and form in which people write it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from glmlab.errors import InputError, RecipeError
from glmlab.knob_table import KNOBS
from glmlab.plan_list import PLANS
from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe, list_recipes
from glmlab.yaml_text import dump_yaml, parse_yaml

_ORDER = (
    "study",
    "recipe",
    "engine",
    "recording",
    "home",
    "workload",
    "space",
    "objective",
    "constraints",
    "budget",
    "confirm",
    "start_timeout_s",
    "seed",
)


def study_text(data: Mapping[str, Any]) -> str:
    """Write a study file.

    Parameters
    ----------
    data : mapping
        Keys and values of a study file; a recipe in place is a mapping.
    """
    body: dict[str, Any] = {}
    for key in sorted(data, key=_ORDER.index):
        value = data[key]
        if key in ("workload", "budget", "confirm", "constraints"):
            body[key] = _flow(value)
        elif key == "space":
            body[key] = _space(value)
        elif key == "objective":
            body[key] = value[0] if len(value) == 1 else _flow(value)
        elif key == "recording":
            body[key] = _flow(value)
        else:
            body[key] = value
    return dump_yaml(body)


def recipe_value(recipe: Recipe) -> str | dict[str, Any]:
    """How a study file names a recipe: by its name where that is this very recipe, else in place."""
    if recipe.name in list_recipes():
        try:
            if find_recipe(recipe.name) == recipe:
                return recipe.name
        except InputError:
            pass  # a file of that name that cannot be read is not this recipe
    body: dict[str, Any] = dict(parse_yaml(recipe.to_yaml(), "recipe", RecipeError))
    return body


def _space(space: Mapping[str, Any]) -> CommentedMap:
    """One line a knob, each with its reach."""
    lines = CommentedMap()
    for name, values in space.items():
        if name == PLANS:
            lines[name] = CommentedSeq(_flow(plan) for plan in values)  # one line a plan
            continue
        lines[name] = _flow(values)
        lines.yaml_add_eol_comment(KNOBS[name].reach, name, column=40)
    return lines


def _flow(value: Any) -> Any:
    """In one line: ``[1, 2, 4]``, ``{low: 1, high: 8}``."""
    if isinstance(value, Mapping):
        mapping = CommentedMap((key, _flow(item)) for key, item in value.items())
        mapping.fa.set_flow_style()
        return mapping
    if isinstance(value, list | tuple):
        sequence = CommentedSeq(_flow(item) for item in value)
        sequence.fa.set_flow_style()
        return sequence
    return value
