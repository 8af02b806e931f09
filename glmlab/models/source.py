"""Where a model's facts lie: config.json and facts.yaml of the packaged data and of a user's overlay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from glmlab.data_folders import PACKAGED_DATA, data_folders
from glmlab.errors import RecipeError
from glmlab.fact_file import load_facts, place
from glmlab.models.facts import COMPUTED_KEYS, NO_FACTS, ModelFacts
from glmlab.models.quant_layout import find_layout, list_layouts
from glmlab.names import did_you_mean

_TINY = "tiny"
_CONFIG, _FACTS, _MODELOPT = "config.json", "facts.yaml", "hf_quant_config.json"


class ModelSource(NamedTuple):
    """What the data says of one model.

    Attributes
    ----------
    name : str
        In the catalog.
    folder : Path or None
        The folder of config.json; None where it is made from a base.
    config : dict
        Content of config.json, changes applied.
    facts : ModelFacts
        With what a base leaves to it filled in.
    where : str
        Names the origin of the sizes in errors.
    """

    name: str
    folder: Path | None
    config: dict[str, Any]
    facts: ModelFacts
    where: str


def model_names() -> tuple[str, ...]:
    """Names of the packaged models and of those in ``GLMLAB_DATA``, sorted."""
    return tuple(
        sorted(
            {
                prefix + file.parent.name
                for kind, prefix in (("models", ""), (_TINY, f"{_TINY}/"))
                for folder in data_folders(kind)
                for pattern in (f"*/{_CONFIG}", f"*/{_FACTS}")
                for file in folder.glob(pattern)
            }
        )
    )


def packaged(name: str) -> ModelSource | None:
    """What the data says of a model, or None where it has no such name.

    Raises
    ------
    RecipeError
        If one of its files is wrong.
    """
    return _packaged(name, ())


def by_other_name(name: str) -> ModelSource | None:
    """A model by its hub name or an alias, capital letters or not; None where nothing has that name."""
    lower = name.lower()
    key = (lower, _overlay_stamp())
    if key not in _OTHER_NAMES:
        _OTHER_NAMES[key] = next((known for known in model_names() if lower in _names(known)), None)
    known = _OTHER_NAMES[key]
    return None if known is None else packaged(known)


_OTHER_NAMES: dict[tuple[str, tuple[Any, ...]], str | None] = {}


def _names(known: str) -> set[str]:
    """All names of one model, in small letters."""
    facts_file = _files(known)[1]
    facts = load_facts(facts_file, ModelFacts) if facts_file else NO_FACTS
    return {name.lower() for name in (known, *facts.hub, *facts.aliases)}


def _overlay_stamp() -> tuple[Any, ...]:
    """What changes when a user's own models do; the packaged ones do not."""
    files = (
        file
        for kind in ("models", _TINY)
        for folder in data_folders(kind)
        if PACKAGED_DATA not in folder.parents
        for file in (*folder.glob(f"*/{_CONFIG}"), *folder.glob(f"*/{_FACTS}"))
    )
    return tuple((str(file), _stamp(file)) for file in files)


def read_config(folder: Path) -> dict[str, Any]:
    """Content of a folder's config.json.

    Raises
    ------
    RecipeError
        If there is none, or it cannot be read.
    """
    if not folder.is_dir():
        raise RecipeError(f"{folder}: is a file; give the folder that holds config.json")
    if not (folder / _CONFIG).exists():
        raise RecipeError(f"{folder}: this folder holds no config.json, so it is no model")
    return _read_json(folder / _CONFIG)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8-sig"))  # some editors put a BOM before it
    except json.JSONDecodeError as error:
        raise RecipeError(f"{path}: not valid JSON, {error}") from None
    except RecursionError:
        raise RecipeError(f"{path}: not valid JSON, brackets within brackets go too deep") from None
    except (OSError, ValueError) as error:  # not UTF-8; a number with more digits than Python reads
        raise RecipeError(f"{path}: cannot be read ({error})") from None
    if not isinstance(config, dict):
        raise RecipeError(f"{path}: expected a JSON object, found {type(config).__name__}")
    return config


def in_folder(folder: Path) -> ModelSource:
    """What a folder with a config.json says.

    Raises
    ------
    RecipeError
        If there is no config.json, or it cannot be read.
    """
    path, beside = folder / _CONFIG, folder / _MODELOPT
    key, stamp = str(path), (_stamp(path), _stamp(beside))
    cached = _SOURCES.get(key)
    if cached is None or cached[0] != stamp:
        config = read_config(folder)
        if stamp[1] is not None and "quantization_config" not in config:
            config["quantization_config"] = _read_json(beside)  # where vLLM looks next, too
        cached = _SOURCES[key] = (stamp, ModelSource(str(folder), folder, config, NO_FACTS, str(path)))
    return cached[1]


def _packaged(name: str, above: tuple[str, ...]) -> ModelSource | None:
    config_file, facts_file = _files(name)
    if config_file is None and facts_file is None:
        return None
    facts = load_facts(facts_file, ModelFacts) if facts_file else NO_FACTS
    base = None if facts.base is None else _base(name, facts.base, facts_file, config_file, above)
    key, stamp = f"{name}\n{config_file}\n{facts_file}", (_stamp(config_file), id(facts), id(base))
    cached = _SOURCES.get(key)
    if cached is None or cached[0] != stamp:
        cached = _SOURCES[key] = (stamp, _build(name, config_file, facts_file, facts, base))
    elif facts.layout is not None:
        find_layout(facts.layout)  # a file of its own, which may have changed since
    return cached[1]


def _base(
    name: str, base: str, facts_file: Path | None, config_file: Path | None, above: tuple[str, ...]
) -> ModelSource:
    """The model that another is made from."""
    if config_file is not None and facts_file is not None and config_file.parent == facts_file.parent:
        raise RecipeError(
            f"{facts_file}: base = {base!r}: there is a config.json beside it; drop one of them"
        )
    own = (*above, name)
    found = None if base in own else _packaged(base, own)
    if found is None:
        where = place(facts_file, "base") if facts_file else name
        why = "is made from this model" if base in own else "no such model"
        others = [known for known in model_names() if known not in own]
        raise RecipeError(f"{where}: base = {base!r}: {why}{did_you_mean(base, others)}")
    return found


def _build(
    name: str,
    config_file: Path | None,
    facts_file: Path | None,
    facts: ModelFacts,
    base: ModelSource | None,
) -> ModelSource:
    if base is None:
        if config_file is None:
            raise RecipeError(
                f"{facts_file} line 1: base: missing, and there is no config.json; name the model that"
                " this one is made from, or put its config.json beside this file"
            )
        config = read_config(config_file.parent)
        if facts_file is not None:
            _check(facts_file, facts, config)
        return ModelSource(name, config_file.parent, config, facts, str(config_file))
    assert facts_file is not None  # it named the base
    for key in facts.changes:
        if key not in base.config and key not in _MAY_BE_NEW:
            raise RecipeError(
                f"{place(facts_file, 'changes', key)}: changes.{key}: {facts.base} has no such key"
                f"{did_you_mean(key, base.config)}"
            )
    inherited: dict[str, Any] = {}
    if facts.mtp_weights is None:
        inherited["mtp_weights"] = base.facts.mtp_weights
    if facts.layout is None:
        inherited["layout"] = base.facts.layout
    full = facts.model_copy(update=inherited) if inherited else facts
    config = {**base.config, **facts.changes}
    _check(facts_file, facts, config)
    where = place(facts_file, "changes") if facts.changes else base.where
    return ModelSource(name, None, config, full, where)


def _check(facts_file: Path, facts: ModelFacts, config: dict[str, Any]) -> None:
    """Refuse names that facts give and that nothing has."""
    if facts.layout is not None and facts.layout not in list_layouts():
        raise RecipeError(
            f"{place(facts_file, 'layout')}: layout = {facts.layout!r}: no such quantization layout"
            f"{did_you_mean(facts.layout, list_layouts())}"
        )
    if facts.layout is not None:
        find_layout(facts.layout)  # named, so it has to be readable
    known = (*COMPUTED_KEYS, *config)
    for number, each in enumerate(facts.disagreements):
        if each.key is not None and each.key not in known:
            raise RecipeError(
                f"{place(facts_file, 'disagreements', number, 'key')}: key = {each.key!r}: no such size"
                f"{did_you_mean(each.key, known)}"
            )


def _stamp(path: Path | None) -> tuple[int, int] | None:
    """What changes when a file does."""
    try:
        found = path.stat() if path else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if found else None


# By the files: a search asks for the same few models thousands of times.
_SOURCES: dict[str, tuple[tuple[Any, ...], ModelSource]] = {}

# Keys that a base may lack, since its value is the architecture's default.
_MAY_BE_NEW = frozenset(
    {
        "index_topk_pattern",
        "index_topk_freq",
        "index_skip_topk_offset",
        "indexer_types",
        "quantization_config",
    }
)


def _files(name: str) -> tuple[Path | None, Path | None]:
    """config.json and facts.yaml of a name; a user's config.json hides facts that are not beside it."""
    kind, _, plain = name.rpartition("/")
    if kind not in ("", _TINY) or plain in ("", ".", "..") or "\\" in plain:
        return None, None
    config: Path | None = None
    facts: Path | None = None
    for folder in data_folders(kind or "models"):
        here = folder / plain
        if (here / _CONFIG).is_file():
            config, facts = here / _CONFIG, None
        if (here / _FACTS).is_file():
            facts = here / _FACTS
    return config, facts
