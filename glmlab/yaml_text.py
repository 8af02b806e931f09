"""YAML in and out: comments kept, errors in one line with their place."""

from __future__ import annotations

import copy
import io
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.scalarstring import LiteralScalarString

from glmlab.errors import InputError


def _yaml() -> YAML:
    yaml = YAML(typ="rt")
    yaml.width = 100
    yaml.indent(mapping=2, sequence=4, offset=2)
    return yaml


def load_yaml(path: Path, error: type[InputError]) -> Any:
    """Read a YAML file.

    Parameters
    ----------
    path : Path
        The file.
    error : type of InputError
        What to raise, in the caller's branch of the error tree.

    Returns
    -------
    CommentedMap or any YAML value
        Comments stay attached, for :func:`dump_yaml`.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as reason:
        raise error(f"{path}: cannot be read ({reason})") from None
    return parse_yaml(text, str(path), error)


def parse_yaml(text: str, where: str, error: type[InputError]) -> Any:
    """Parse YAML text; ``where`` names it in errors."""
    try:
        return _yaml().load(text)
    except MarkedYAMLError as reason:
        mark = reason.problem_mark or reason.context_mark
        place = f" line {mark.line + 1}, column {mark.column + 1}:" if mark else ""
        problem = (reason.problem or reason.context or "not valid YAML").splitlines()[0]
        raise error(f"{where}:{place} not valid YAML, {problem}") from None
    except (YAMLError, ValueError) as reason:
        raise error(f"{where}: not valid YAML, {str(reason).splitlines()[0]}") from None


def dump_yaml(values: dict[str, Any], like: Any = None) -> str:
    """Write a mapping as YAML, in the order and with the comments of ``like``.

    Parameters
    ----------
    values : dict
        What to write; keys of ``like`` that are missing here are dropped.
    like : CommentedMap, optional
        A document as :func:`load_yaml` gave it.
    """
    document = copy.deepcopy(like) if isinstance(like, CommentedMap) else CommentedMap()
    for key in [key for key in document if key not in values]:
        del document[key]
    for key, value in values.items():
        # As text: True and 1 are equal to Python and two things to YAML.
        if key not in document or repr(_plain(document[key])) != repr(value):
            document[key] = LiteralScalarString(value) if _is_paragraph(value) else value
    buffer = io.StringIO()
    _yaml().dump(document, buffer)
    return buffer.getvalue()


def kind_of(value: Any) -> str:
    """What a value is, in a user's words."""
    if value is None:
        return "nothing"
    if isinstance(value, list | tuple):
        return "a list"
    return "text" if isinstance(value, str) else f"a {type(value).__name__}"


def _is_paragraph(value: Any) -> bool:
    """Whether a value is text in plain lines: a block that reads better than quotes and escapes.

    Only the plainest, since ruamel.yaml writes a block without asking whether it can be one.
    """
    if not isinstance(value, str) or "\n" not in value:
        return False
    return all(line and line == line.strip() and line.isprintable() for line in value.split("\n"))


def _plain(value: Any) -> Any:
    """A round-trip value without its comments, for comparison."""
    if isinstance(value, CommentedMap | dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, CommentedSeq | list):
        return [_plain(item) for item in value]
    return value
