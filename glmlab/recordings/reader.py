"""Read a recording file: every line is checked, and what is wrong is said with its line."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from glmlab.errors import RecordingError
from glmlab.knobs import in_words, params_key
from glmlab.recordings.header import RECORDING_SCHEMA, RecordingHeader
from glmlab.recordings.recording import RecordedFailure, RecordedVisit, Recording, check_measured


def read_recording(path: str | os.PathLike[str]) -> Recording:
    """Read and check a recording file.

    Raises
    ------
    RecordingError
        With one line that names the file, the line and what is wrong in it.
    """
    path = Path(path)
    try:
        stat = path.stat()
    except OSError as error:
        raise RecordingError(f"{path}: cannot be read ({error.strerror})") from None
    return _read(path, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=16)
def _read(path: Path, _mtime_ns: int, _size: int) -> Recording:
    """Read once, as long as the file stays as it is: a study asks for it again and again."""
    lines, is_whole = _lines(path)
    if not lines:
        raise RecordingError(f"{path}: is empty; a recording begins with a header")
    header = _header(lines[0], f"{path}:1")
    reader = _LineReader(header)
    for number, line in enumerate(lines[1:], start=2):
        where = f"{path}:{number}"
        if number == len(lines) and not is_whole:
            raise _cut_off(where)
        reader.add(_parsed(line, where), where)
    if not any(isinstance(line, RecordedVisit) for line in reader.lines):
        raise RecordingError(f"{path}: holds no visit, so there is nothing to replay")
    return Recording(
        header,
        reader.lines,
        path=path,
        fingerprint=hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12],
    )


class _LineReader:
    """Turns lines after the header into visits and failures, and refuses what contradicts itself."""

    def __init__(self, header: RecordingHeader) -> None:
        self._header = header
        self._points = set(header.workload.points)
        self._visits: dict[str, int] = {}
        self.lines: list[RecordedVisit | RecordedFailure] = []

    def add(self, body: dict[str, Any], where: str) -> None:
        kind = body.get("kind")
        if kind not in ("visit", "failed"):
            raise RecordingError(f"{where}: kind = {kind!r}: expected visit or failed")
        model = RecordedVisit if kind == "visit" else RecordedFailure
        try:
            line = model.model_validate(body)
        except ValidationError as error:
            raise RecordingError.from_validation(error, where) from None
        try:
            point = self._header.checked(line.knobs)
            if line.order != len(self.lines):
                raise RecordingError(
                    f"order = {line.order}: expected {len(self.lines)}; a line is missing or doubled"
                )
            if isinstance(line, RecordedVisit):
                self._check_visit(line, point)
        except RecordingError as error:
            raise RecordingError(f"{where}: {error}") from None
        self.lines.append(line)

    def _check_visit(self, line: RecordedVisit, point: Mapping[str, Any]) -> None:
        key = params_key(dict(point))
        expected = self._visits.get(key, 0)
        if line.visit != expected:
            told = "is there twice" if line.visit < expected else f"comes before visit {expected}"
            raise RecordingError(f"visit {line.visit} of {in_words(point)}: {told}")
        self._visits[key] = expected + 1
        check_measured(line.measurement)
        found = {(p.context, p.batch) for p in line.measurement.points}
        if found != self._points:
            stray = min(found ^ self._points)
            told = "was not measured" if stray in self._points else "is not in the header's workload"
            raise RecordingError(f"measurement: context {stray[0]}, batch {stray[1]} {told}")


def read_header(path: Path) -> RecordingHeader:
    """The first line only: enough to know what a recording is of."""
    opened = gzip.open if path.name.endswith(".gz") else open
    try:
        with opened(path, "rt", encoding="utf-8") as file:
            line = file.readline()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise RecordingError(f"{path}: cannot be read ({error})") from None
    return _header(line, f"{path}:1")


def _header(line: str, where: str) -> RecordingHeader:
    body = _parsed(line, where)
    schema = body.get("schema_version")
    if isinstance(schema, int) and schema > RECORDING_SCHEMA:
        raise RecordingError(
            f"{where}: schema_version = {schema}: this glmlab reads up to {RECORDING_SCHEMA}; upgrade glmlab"
        )
    if schema is None or "recipe" not in body:
        raise RecordingError(f"{where}: is no header of a recording (schema_version and recipe are missing)")
    try:
        return RecordingHeader.model_validate(body)
    except ValidationError as error:
        raise RecordingError.from_validation(error, where) from None


def _parsed(line: str, where: str) -> dict[str, Any]:
    try:
        body = json.loads(line, parse_constant=_no_number)
    except ValueError as error:
        raise RecordingError(f"{where}: not valid JSON, {error}") from None
    if not isinstance(body, dict):
        raise RecordingError(f"{where}: expected an object, found {line[:40]!r}")
    return body


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _lines(path: Path) -> tuple[list[str], bool]:
    """All lines, and whether the file is whole: one that was cut off has no end of line or archive."""
    try:
        data, is_whole = path.read_bytes(), True
        if path.name.endswith(".gz"):
            data, is_whole = _unzipped(data)
        text = data.decode()
    except (OSError, zlib.error, UnicodeDecodeError) as error:
        raise RecordingError(f"{path}: cannot be read ({error})") from None
    return text.removesuffix("\n").split("\n") if text else [], is_whole and text.endswith("\n")


def _unzipped(data: bytes) -> tuple[bytes, bool]:
    whole = bytearray()
    while data:
        member = zlib.decompressobj(wbits=31)
        whole += member.decompress(data)
        if not member.eof:
            return bytes(whole), False
        data = member.unused_data
    return bytes(whole), True


def _cut_off(where: str) -> RecordingError:
    return RecordingError(
        f"{where}: is cut off, the recording was interrupted here;"
        " glmlab.recorded.salvage_recording(file, new_file) keeps the lines before"
    )


def salvage_recording(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> int:
    """Copy the complete lines of a recording that was cut off into a new file.

    Returns
    -------
    int
        How many lines were kept, the header among them.
    """
    lines, _ = _lines(Path(source))
    try:
        _parsed(lines[-1] if lines else "", str(source))
    except RecordingError:
        lines = lines[:-1]
    if not lines:
        raise RecordingError(f"{source}: holds no complete line, nothing can be kept")
    data = "".join(f"{line}\n" for line in lines).encode()
    target = Path(target)
    try:
        with target.open("xb") as file:
            file.write(gzip.compress(data, mtime=0) if target.name.endswith(".gz") else data)
    except OSError as error:
        raise RecordingError(f"{target}: cannot be written ({error.strerror}); name a new file") from None
    return len(lines)
