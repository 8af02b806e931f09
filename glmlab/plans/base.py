"""Which recipe a plan is made of: one that was named, or the plainest of a model that was named."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from glmlab.catalog import find_model
from glmlab.errors import InputError, RecipeError
from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe, list_recipes

_ANSWER_TOKENS = 2048  # room for an answer after the longest context
_SEQUENCES = 16  # Recipe's own max_num_seqs


class Base(NamedTuple):
    """What all plans have in common.

    Attributes
    ----------
    recipe : Recipe
        With a plan of its own, which is one of all.
    of_model : bool
        Whether only a model was named, so that the rest is the engine's choice.
    recipes : tuple of str
        Packaged recipes of the same model, where only that was named.
    """

    recipe: Recipe
    of_model: bool
    recipes: tuple[str, ...] = ()

    @property
    def note(self) -> str:
        """What was filled in where only a model was named; empty otherwise."""
        if not self.of_model:
            return ""
        return (
            f"only a model was named: max_model_len is the longest context and {_ANSWER_TOKENS:,} tokens"
            " for an"
            " answer, at most the model's own; all else is the engine's choice"
        )


def base_of(
    named: str | Path | Recipe | Mapping[str, Any], contexts: tuple[int, ...], batch_sizes: tuple[int, ...]
) -> Base:
    """The recipe that a name stands for; a recipe goes before a model of the same name.

    Parameters
    ----------
    named : str, Path, Recipe or mapping
        A recipe's name, file or content; a model's name or folder.
    contexts, batch_sizes : tuple of int
        What a recipe that is made here must be good for.

    Raises
    ------
    InputError
        If there is neither.
    """
    if not isinstance(named, str | Path):
        return Base(find_recipe(named), of_model=False)
    name = os.fspath(named)
    if name in list_recipes() or Path(name).expanduser().is_file():
        return Base(find_recipe(name), of_model=False)
    try:
        model = find_model(name)
    except RecipeError as error:
        raise InputError(f"{error}; nor a recipe: known are {', '.join(list_recipes())}") from None
    longest = min(model.max_model_len, max(contexts) + _ANSWER_TOKENS)
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._") or "model"
    fields = {
        "name": plain,
        "model": name,
        "max_model_len": max(1, longest),
        "max_num_seqs": max(_SEQUENCES, *batch_sizes),
    }
    same = tuple(each for each in list_recipes() if find_recipe(each).model == model.name)
    return Base(Recipe.parse(fields), of_model=True, recipes=same)
