"""Recordings by name: those that ship with glmlab, with the user's own laid over them."""

from __future__ import annotations

import os
from pathlib import Path

from glmlab.data_folders import data_folders
from glmlab.errors import RecordingError
from glmlab.names import did_you_mean
from glmlab.recordings.header import RECORDING_SCHEMA, RECORDING_SUFFIXES, GpuFacts, RecordingHeader
from glmlab.recordings.reader import read_header, read_recording, salvage_recording
from glmlab.recordings.recording import RecordedFailure, RecordedVisit, Recording
from glmlab.recordings.writer import RecordingWriter

__all__ = [
    "RECORDING_SCHEMA",
    "GpuFacts",
    "RecordedFailure",
    "RecordedVisit",
    "Recording",
    "RecordingHeader",
    "RecordingWriter",
    "list_recordings",
    "load_recording",
    "read_header",
    "read_recording",
    "recording_path",
    "salvage_recording",
]


def list_recordings() -> tuple[str, ...]:
    """Names of the packaged recordings and of those in ``GLMLAB_DATA``, sorted."""
    return tuple(sorted(_files()))


def recording_path(name_or_path: str | os.PathLike[str]) -> Path:
    """The file of a recording; a name wins over a file of the same name.

    Raises
    ------
    RecordingError
        If there is neither.
    """
    name = os.fspath(name_or_path)
    files = _files()
    if name in files:
        return files[name]
    path = Path(name).expanduser()
    if path.is_file():
        return path
    hint = did_you_mean(name, files) if files else "; no recording is installed, name a file"
    raise RecordingError(f"recording = {name!r}: no such recording or file{hint}")


def load_recording(name_or_path: str | os.PathLike[str]) -> Recording:
    """Read a recording by its name or from its file.

    Parameters
    ----------
    name_or_path : str or path
        A name of :func:`list_recordings`, or a ``.jsonl`` or ``.jsonl.gz`` file.

    Raises
    ------
    RecordingError
        As :func:`recording_path` and :func:`read_recording` raise it.
    """
    return read_recording(recording_path(name_or_path))


def _files() -> dict[str, Path]:
    return {
        _stem(file): file
        for folder in data_folders("recorded")
        for file in sorted(folder.iterdir())
        if file.name.endswith(RECORDING_SUFFIXES)
    }


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".jsonl")
