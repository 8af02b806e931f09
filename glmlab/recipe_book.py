"""Recipes by name: those that ship with glmlab, with the user's own laid over them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from glmlab.data_folders import data_folders
from glmlab.errors import RecipeError
from glmlab.names import did_you_mean
from glmlab.recipe import Recipe

_SUFFIXES = (".yaml", ".yml")


def list_recipes() -> tuple[str, ...]:
    """Names of the packaged recipes and of those in ``GLMLAB_DATA``, sorted."""
    return tuple(sorted(_files()))


def find_recipe(recipe: str | os.PathLike[str] | Mapping[str, Any] | Recipe) -> Recipe:
    """Turn whatever stands for a recipe into one.

    Parameters
    ----------
    recipe : str, path, mapping or Recipe
        A name of :func:`list_recipes`, a YAML file, the fields of a recipe, or a recipe, which
        comes back as it is. A name wins over a file of the same name: write ``./name`` for that.

    Raises
    ------
    RecipeError
        If there is nothing of that name, or it is not a recipe.
    """
    if isinstance(recipe, Recipe):
        return recipe
    if isinstance(recipe, Mapping):
        # A mapping that was read from YAML is passed as it is: it carries the comments.
        return Recipe.parse(recipe if isinstance(recipe, dict) else dict(recipe))
    if not isinstance(recipe, str | os.PathLike):
        raise RecipeError(
            f"recipe = {recipe!r}: expected a name, a file or the fields of a recipe,"
            f" found {type(recipe).__name__}"
        )
    name = os.fspath(recipe)
    files = _files()
    if name in files:
        return Recipe.load(files[name])
    path = Path(name).expanduser()
    if path.is_file():
        return Recipe.load(path)
    raise RecipeError(f"recipe = {name!r}: no such recipe or file{did_you_mean(name, files)}")


def _files() -> dict[str, Path]:
    return {
        file.stem: file
        for folder in data_folders("recipes")
        for file in sorted(folder.iterdir())
        if file.suffix in _SUFFIXES
    }
