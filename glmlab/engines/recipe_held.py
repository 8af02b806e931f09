"""Whether a started engine holds its recipe: vLLM chooses something else more often than it says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glmlab.errors import EngineStartError
from glmlab.knob_table import KNOBS
from glmlab.recipe import Recipe


def held_and_missing(recipe: Recipe, found: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Compare what runs with what was asked for.

    Parameters
    ----------
    recipe : Recipe
        What was asked for.
    found : mapping
        Knob -> value in force, as the engine reads it back.

    Returns
    -------
    changes : dict
        Live knobs that the recipe names and the engine has otherwise.
    notes : list of str
        Where vLLM chose something else than a default that the recipe did not name.

    Raises
    ------
    EngineStartError
        If a knob that needs a new engine is another than the recipe names.
    """
    changes, notes = {}, []
    for name, item in KNOBS.items():
        wanted, named = getattr(recipe, name), name in recipe.model_fields_set
        if item.reach == "live":
            if named and wanted not in (None, found.get(name)):
                changes[name] = wanted
            continue
        if wanted in (None, "auto") or found.get(name) in (None, wanted):
            continue
        if named:
            raise EngineStartError(
                f"{name}: the recipe asks for {wanted!r}, but vLLM runs {found[name]!r} with this"
                " model on this machine; set that, or leave the field out"
            )
        notes.append(f"{name}: vLLM chose {found[name]!r} in place of the default {wanted!r}")
    return changes, notes
