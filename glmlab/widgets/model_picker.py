"""A model by typing: the catalog filtered as one types, or a folder, a hub name or a rank twin as it is."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import ipywidgets as W

from glmlab.catalog import Model, find_model, list_models
from glmlab.errors import RecipeError
from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe, list_recipes
from glmlab.units import format_bytes
from glmlab.widgets.look import look
from glmlab.widgets.notice import Notice
from glmlab.widgets.style import action, framed, html, stylesheet

_ROWS = 7


class ModelPicker(W.VBox):
    """Search, a list of what was found, and what is known of the model that is picked.

    Parameters
    ----------
    model : str
        The one that is picked at first.
    notice : Notice, optional
        Where errors are shown; a place of its own by default.
    """

    def __init__(self, model: str = "", *, notice: Notice | None = None) -> None:
        self._own = notice is None
        self.notice = notice or Notice()
        self._callbacks: list[Callable[[str], None]] = []
        self._model = ""
        self._showing = False
        # Read once: it is asked at each letter that is typed.
        self._lines = {name: _line(name) for name in list_models()}
        self._words = {name: _searched(name) for name in self._lines}
        self._recipes = readable_recipes()
        shared: dict[str, Any] = {"style": {"description_width": "90px"}, "layout": look(width="auto")}
        self.search = W.Text(
            description="Find model",
            placeholder="type to filter: 5.1 nvfp4, flash, reap ... or a hub name, a folder",
            tooltip="Words that the model's name, title, hub name, format or attention must contain",
            **shared,
        )
        self.listing = W.Select(
            description="Models", rows=_ROWS, tooltip="Models of the catalog that the words fit", **shared
        )
        self.use = action(
            "Use this name",
            "folder-open",
            "Take what is typed above: a folder with a config.json, a hub name, or a rank twin",
            margin="2px 0 2px 98px",
        )
        self._known = html()
        self.search.observe(self.notice.guarded(self._typed), names="value")
        self.listing.observe(self.notice.guarded(self._picked), names="value")
        self.use.on_click(self.notice.guarded(self._named))
        children = [stylesheet(), self.search, self.listing, self.use, self._known]
        super().__init__([*children, self.notice] if self._own else children)
        self._filter()
        if model:
            self.model = model

    # ------------------------------------------------------------------ the model
    @property
    def model(self) -> str:
        """Its name as a recipe has it; empty where none is picked."""
        return self._model

    @model.setter
    def model(self, name: str) -> None:
        found = find_model(name)
        self._model = name
        made_for = [name for name, recipe in self._recipes.items() if recipe.model == found.name]
        self._known.value = framed(known_html(found, made_for))
        self._filter()

    def on_change(self, callback: Callable[[str], None]) -> None:
        """Call back with the name of a model that the user picked."""
        self._callbacks.append(callback)

    # ------------------------------------------------------------------ inside
    def _filter(self) -> None:
        """List what the words fit, keeping the picked one marked where it is among them."""
        words = self.search.value.lower().split()
        options = [
            (line, name)
            for name, line in self._lines.items()
            if all(word in self._words[name] for word in words)
        ]
        names = [name for _, name in options]
        self._showing = True
        try:
            self.listing.options = options
            self.listing.value = self._model if self._model in names else None
        finally:
            self._showing = False
        self.listing.description = f"Models ({len(names)})"
        typed = self.search.value.strip()
        # A word that filters is no name; one that nothing fits is taken, so that the nearest names are told.
        is_name = "/" in typed or "@" in typed or not names
        self.use.disabled = not typed or typed in names or not is_name
        self.use.description = (
            f"Use “{typed}” as it is" if not self.use.disabled else "Use what is typed as it is"
        )

    def _typed(self, _: Any) -> None:
        self._filter()

    def _picked(self, change: Any) -> None:
        if not self._showing and change["new"] is not None:
            self._take(change["new"])

    def _named(self, _: Any) -> None:
        self._take(self.search.value.strip())

    def _take(self, name: str) -> None:
        self.model = name
        self.notice.clear()
        for callback in self._callbacks:
            callback(name)


def readable_recipes() -> dict[str, Recipe]:
    """Recipes by name; a file that is no recipe is left out, since nobody asked for it."""
    found: dict[str, Recipe] = {}
    for name in list_recipes():
        with contextlib.suppress(RecipeError):
            found[name] = find_recipe(name)
    return found


def known_html(model: Model, recipes: Sequence[str] = ()) -> str:
    """What is known of a model, in a few lines; sizes say where they are from.

    Parameters
    ----------
    model : Model
        Which.
    recipes : sequence of str
        Names of recipes that are made for it.
    """
    facts = model.facts
    head = f"<b>{escape(model.name)}</b>" + (f": {escape(facts.title)}" if facts.title else "")
    if model.config is None:
        return (
            f'<div class="glmlab-card glmlab-warns">{head}<br>Its config.json is not on this machine, so its'
            " sizes are not known, and whether it fits cannot be computed: give the folder of a downloaded"
            " checkpoint for that. An engine can load it by this name.</div>"
        )
    sizes = (
        f"{_count(model.total_params)} parameters, {_count(model.active_params)} active,"
        f" {model.layers} layers, {model.attention} attention, up to {model.max_model_len:,} tokens"
    )
    lines = [head, f"{sizes} (computed from config.json)", *_stored(model)]
    if model.note:
        lines.append(escape(model.note))
    if recipes:
        lines.append(f"Recipes made for it: {escape(', '.join(recipes))}")
    more = [*facts.notes, *(f"on the hub: {name}" for name in facts.hub)]
    notes = "".join(f"<li>{escape(line)}</li>" for line in more)
    notes_word = "note" if len(more) == 1 else "notes"
    folded = f"<details><summary>{len(more)} {notes_word}</summary><ul>{notes}</ul></details>" if more else ""
    return f'<div class="glmlab-card">{"<br>".join(lines)}{folded}</div>'


def _stored(model: Model) -> list[str]:
    if model.layout_or_none is None:
        return ["How its weights are stored is not known."]
    return [f"{escape(model.layout.name)}, {format_bytes(model.disk_bytes)} on disk (computed)"]


def _line(name: str) -> str:
    """A model in the list: name, size, format."""
    try:
        model = find_model(name)
        size, stored = _count(model.total_params), model.layout.name
    except RecipeError:  # a user's own file that is not a model; picking it says what is wrong
        return name
    return f"{name}  ({size}, {stored}, {format_bytes(model.disk_bytes)})"


def _searched(name: str) -> str:
    """What the words of a search are looked for in."""
    try:
        model = find_model(name)
        words = [name, model.facts.title, *model.facts.hub, model.attention, model.layout.name]
    except RecipeError:
        return name.lower()
    return " ".join(words).lower()


def _count(number: int) -> str:
    """A number of parameters, as ``472 B``."""
    return f"{number / 1e9:.3g} B" if number >= 1e9 else f"{number / 1e6:.3g} M"
