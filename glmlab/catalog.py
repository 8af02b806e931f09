"""Models by name: the packaged ones, folders with a config.json, rank twins, names on the hub."""

from __future__ import annotations

import os
import re
from pathlib import Path

from glmlab.errors import RecipeError
from glmlab.models.model import Model
from glmlab.models.rank_twin import TwinName, description, twin_config
from glmlab.models.source import ModelSource, by_other_name, in_folder, model_names, packaged
from glmlab.names import did_you_mean

__all__ = ["Model", "find_model", "list_models"]

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def list_models() -> tuple[str, ...]:
    """Names of the packaged models and of those in ``GLMLAB_DATA``, sorted."""
    return model_names()


def find_model(name_or_path: str | os.PathLike[str]) -> Model:
    """Look a model up.

    Parameters
    ----------
    name_or_path : str or path
        In this order: a name of :func:`list_models`; a folder with a config.json; a rank twin such
        as ``glm-4.7@tp4-l4`` (:mod:`glmlab.models.rank_twin`); another name of a packaged model, such as
        ``GLM-4.7`` or ``zai-org/GLM-4.7``; any other hub name, which comes back without a config:
        nothing is downloaded.

    Raises
    ------
    RecipeError
        If there is nothing of that name, its config.json is not that of a GLM, or it is a twin
        that cannot be.
    """
    name = os.fspath(name_or_path)
    if (source := packaged(name)) is not None:
        return _of_source(name, source)
    folder = Path(name).expanduser()
    if name and folder.exists():  # an empty name would be the current folder
        return _of_source(name, in_folder(folder.resolve()), is_folder=True)
    if (asked := TwinName.parse(name)) is not None:
        return _twin(name, asked)
    if (source := by_other_name(name)) is not None:
        return _of_source(name if "/" in name else source.name, source)
    if _HUB_NAME.fullmatch(name) and not name.startswith("tiny/"):
        return Model(name=name)
    near = did_you_mean(name, list_models()) or "; `glmlab models` lists those that are known"
    raise RecipeError(f"model = {name!r}: no such model or folder{near}")


def _of_source(name: str, source: ModelSource, *, is_folder: bool = False) -> Model:
    """The model that a source describes, computed once: a search asks for few, thousands of times."""
    found = _MODELS.get(name)
    if found is None or found[0] is not source:
        on_hub = not is_folder and name != source.name
        model = Model(
            name=name,
            path=None if on_hub or source.folder is None else source.folder.resolve(),
            config=source.config,
            facts=source.facts,
            on_hub=on_hub,
            where=source.where,
        )
        found = _MODELS[name] = (source, model)
    return found[1]


_MODELS: dict[str, tuple[ModelSource, Model]] = {}


def _twin(name: str, asked: TwinName) -> Model:
    base = find_model(asked.base)
    if base.config is None:
        near = did_you_mean(asked.base.rpartition("/")[2].lower(), list_models())
        raise RecipeError(
            f"model = {asked.base!r}: a rank twin is computed from config.json, which is not on this"
            f" machine; give the folder of a downloaded checkpoint, or a packaged model{near}"
        )
    config = twin_config(base.config, asked.tp, asked.layers, asked.base)
    return Model(name=name, config=config, note=description(asked, base.config))
