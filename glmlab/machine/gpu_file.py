"""Reads the file of one GPU: every value beside its source, errors with their line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from glmlab.errors import GpuError
from glmlab.machine.gpu import FORMATS, Disagreement, Gpu
from glmlab.names import did_you_mean
from glmlab.yaml_text import kind_of, load_yaml

_PLAIN = ("title", "device_names")
_SOURCED = tuple(
    name
    for name in Gpu.model_fields
    if name not in (*_PLAIN, "name", "sources", "disagreements", "dense_tflops")
)
_KEYS = (*_PLAIN, *_SOURCED, "dense_tflops")
_OF_A_VALUE = ("value", "source", "disagreements")
_OF_A_DISAGREEMENT = ("value", "source", "note")


def read_gpu_file(path: Path) -> Gpu:
    """Read the file of one GPU; it is named like the file.

    Parameters
    ----------
    path : Path
        A YAML file with ``title``, ``device_names`` and, for every other field of
        :class:`glmlab.machine.gpu.Gpu`, ``{value, source}``; ``disagreements`` beside them lists what
        others say, each with ``value``, ``source`` and, if it likes, ``note``.

    Raises
    ------
    GpuError
        With the file and the line.
    """
    return _File(path).gpu()


class _File:
    """One file while it is read: where each value stands, what was gathered of it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[str, int] = {}
        self._sources: dict[str, str] = {}
        self._disagreements: list[Disagreement] = []

    def gpu(self) -> Gpu:
        document = load_yaml(self._path, GpuError)
        if not isinstance(document, CommentedMap):
            raise GpuError(f"{self._path}: expected the values of a GPU, found {kind_of(document)}")
        self._check(document, "", _KEYS, _KEYS)
        values: dict[str, Any] = {"title": document["title"], "device_names": document["device_names"]}
        if isinstance(values["device_names"], list):
            values["device_names"] = tuple(document["device_names"])
        for name in _SOURCED:
            values[name] = self._value(document[name], name)
        formats = document["dense_tflops"]
        self._check(formats, "dense_tflops", FORMATS, FORMATS)
        values["dense_tflops"] = {
            each: self._value(formats[each], f"dense_tflops.{each}") for each in FORMATS
        }
        values |= {"name": self._path.stem, "sources": self._sources, "disagreements": self._disagreements}
        try:
            return Gpu.model_validate(values)
        except ValidationError as error:
            raise self._located(error) from None

    def _value(self, entry: Any, name: str) -> Any:
        """The value of ``{value, source}``, its source and its disagreements put aside."""
        self._check(entry, name, _OF_A_VALUE, ("value", "source"))
        value, source = _plain(entry["value"]), entry["source"]
        if not isinstance(source, str) or not source.strip():
            raise self._error(f"{name}.source", f"expected where the value is from, found {kind_of(source)}")
        self._sources[name] = str(source)
        others = entry.get("disagreements")
        if others is None:
            return value
        if not isinstance(others, CommentedSeq):
            raise self._error(f"{name}.disagreements", f"expected a list, found {kind_of(others)}")
        for number, other in enumerate(others):
            where = f"{name}.disagreements.{number}"
            self._lines[where] = others.lc.item(number)[0] + 1
            self._check(other, where, _OF_A_DISAGREEMENT, ("value", "source"))
            try:
                self._disagreements.append(
                    Disagreement(
                        field=name,
                        used=value,
                        says=_plain(other["value"]),
                        source=str(other["source"]),
                        note=str(other.get("note") or ""),
                    )
                )
            except ValidationError as error:
                raise self._error(f"{where}.value", error.errors()[0]["msg"]) from None
        return value

    def _check(self, entry: Any, where: str, allowed: tuple[str, ...], needed: tuple[str, ...]) -> None:
        """Refuse what is no mapping, keys that are unknown, keys that are missing."""
        if not isinstance(entry, CommentedMap):
            raise self._error(where, f"expected {{{', '.join(allowed)}}}, found {kind_of(entry)}")
        for key in entry:
            place = f"{where}.{key}" if where else str(key)
            self._lines[place] = entry.lc.key(key)[0] + 1
            if key not in allowed:
                raise self._error(place, f"unknown key{did_you_mean(str(key), allowed)}")
        for key in needed:
            if key not in entry:
                raise self._error(f"{where}.{key}" if where else key, "missing")

    def _located(self, error: ValidationError) -> GpuError:
        """The first fault that pydantic found, with its line: the next run shows the next."""
        first = error.errors(include_url=False)[0]
        place = ".".join(str(step) for step in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        if not place:  # a rule over several fields names them itself, the first one first
            return self._error(message.split(" ", 1)[0].rstrip(":"), message, named=True)
        shown = "" if isinstance(first["input"], dict) else f" = {first['input']!r}"
        return self._error(place, message, shown)

    def _error(self, where: str, message: str, shown: str = "", *, named: bool = False) -> GpuError:
        line = self._line(where)
        place = f"{self._path} line {line}" if line else str(self._path)
        return GpuError(
            f"{place}: {message}" if named or not where else f"{place}: {where}{shown}: {message}"
        )

    def _line(self, where: str) -> int | None:
        """Where its value stands, or the nearest thing around it that stands anywhere."""
        if f"{where}.value" in self._lines:
            return self._lines[f"{where}.value"]
        while where:
            if where in self._lines:
                return self._lines[where]
            where = where.rpartition(".")[0]
        return None


def _plain(value: Any) -> Any:
    """A number without the spelling that ruamel.yaml keeps of it."""
    if isinstance(value, bool) or value is None:
        return value
    if isinstance(value, int):
        return int(value)
    return float(value) if isinstance(value, float) else value
