"""Fact files: YAML under ``data/`` and a user's overlay, checked against a model of what they may say."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import YAMLError

from glmlab.errors import InputError, RecipeError
from glmlab.yaml_text import kind_of, load_yaml

Facts = TypeVar("Facts", bound=BaseModel)


def load_facts(path: Path, kind: type[Facts], error: type[InputError] = RecipeError) -> Facts:
    """Read one fact file; the same content is parsed once.

    Parameters
    ----------
    path : Path
        The file.
    kind : type of BaseModel
        What it may say; frozen, since it is shared.
    error : type of InputError
        What to raise, in the caller's branch of the error tree.

    Raises
    ------
    InputError
        With the file, the line, the key, its value and what is allowed.
    """
    try:
        stat = path.stat()
    except OSError as reason:
        raise error(f"{path}: cannot be read ({reason.strerror})") from None
    stamp = (stat.st_mtime_ns, stat.st_size)
    known = _PARSED.get((path, kind))
    if known is None or known[0] != stamp:
        known = _PARSED[path, kind] = (stamp, _parse(path, kind, error))
    found = known[1]
    assert isinstance(found, kind)
    return found


_PARSED: dict[tuple[Path, type[BaseModel]], tuple[tuple[int, int], BaseModel]] = {}


def _parse(path: Path, kind: type[Facts], error: type[InputError]) -> Facts:
    try:
        data = YAML(typ="safe").load(path.read_text(encoding="utf-8"))  # half the time of a round trip
        return kind.model_validate(data)
    except ValidationError as report:
        document = load_yaml(path, error)
        if not isinstance(document, dict):
            raise error(f"{path} line 1: expected keys and values, found {kind_of(document)}") from None
        line = _line(document, report.errors()[0]["loc"])
        raise error.from_validation(report, f"{path} line {line}") from None
    except RecursionError:
        raise error(f"{path}: not valid YAML, brackets within brackets go too deep") from None
    except (YAMLError, OSError, ValueError):
        load_yaml(path, error)  # says it in one line, with its place
        raise


def place(path: Path, *steps: int | str) -> str:
    """A file and the line of one of its keys, for an error line: ``facts.yaml line 4``."""
    return f"{path} line {_line(load_yaml(path, RecipeError), steps)}"


def _line(document: Any, steps: tuple[int | str, ...]) -> int:
    """Line of the deepest step that the document has; of its parent where a key is missing."""
    line, here = 0, document
    for step in steps:
        if isinstance(here, CommentedMap) and step in here:
            line = here.lc.key(step)[0]
        elif isinstance(here, CommentedSeq) and isinstance(step, int) and step < len(here):
            line = here.lc.item(step)[0]
        else:
            break
        here = here[step]
    return int(line) + 1
