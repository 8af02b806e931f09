"""Write a recording while it is made."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Self

from glmlab.errors import RecordingError
from glmlab.knobs import params_key
from glmlab.measurement import Measurement
from glmlab.recordings.header import RECORDING_SUFFIXES, RecordingHeader
from glmlab.recordings.recording import RecordedFailure, RecordedVisit, check_measured


class RecordingWriter:
    """Writes a recording while it is made: each line is on the disk when the call returns.

    Parameters
    ----------
    path : str or path
        A new ``.jsonl`` or ``.jsonl.gz`` file.
    header : RecordingHeader
        What is going to be recorded.
    decimals : int, optional
        Round the samples to so many; 3 keep milliseconds to a microsecond. As measured by default.

    Raises
    ------
    RecordingError
        If the file exists already, cannot be made or has another ending.
    """

    def __init__(
        self, path: str | os.PathLike[str], header: RecordingHeader, *, decimals: int | None = None
    ) -> None:
        self.path, self.header, self._decimals = Path(path), header, decimals
        self._visits: dict[str, int] = {}
        self._order = 0
        if not self.path.name.endswith(RECORDING_SUFFIXES):
            raise RecordingError(
                f"{self.path}: expected a name that ends in {' or '.join(RECORDING_SUFFIXES)}"
            )
        try:
            self._raw: IO[bytes] = self.path.open("xb")
        except FileExistsError:
            raise RecordingError(f"{self.path}: exists already; name a new file") from None
        except OSError as error:
            raise RecordingError(f"{self.path}: cannot be written ({error.strerror})") from None
        # Neither name nor time in it, so that the same lines give the same file.
        self._zip = (
            gzip.GzipFile(filename="", mode="wb", fileobj=self._raw, mtime=0)
            if self.path.name.endswith(".gz")
            else None
        )
        self._write(header.model_dump(mode="json"))

    def visit(
        self,
        *,
        knobs: Mapping[str, Any],
        apply_s: float,
        measurement: Measurement,
        kv_kept: bool = True,
    ) -> None:
        """Append one visit.

        Parameters
        ----------
        knobs : mapping
            The point: a value for every knob of the header.
        apply_s : float
            What entering it cost: ``ApplyReport.seconds``.
        measurement : Measurement
            Of the header's workload.
        kv_kept : bool
            ``ApplyReport.kv_kept``.
        """
        check_measured(measurement)
        point = self.header.checked(knobs)
        key = params_key(point)
        number = self._visits.get(key, 0)
        line = RecordedVisit(
            knobs=point,
            visit=number,
            order=self._order,
            apply_s=round(apply_s, 6),
            kv_kept=kv_kept,
            measurement=measurement,
        )
        body = line.model_dump(mode="json")
        body["measurement"]["points"] = _rounded(body["measurement"]["points"], self._decimals)
        self._write(body)
        self._visits[key] = number + 1
        self._order += 1

    def failed(self, knobs: Mapping[str, Any], reason: str, *, seconds: float = 0.0) -> None:
        """Append a point that could not be entered or measured, with the reason in one line."""
        line = RecordedFailure(
            knobs=self.header.checked(knobs),
            order=self._order,
            error=" ".join(reason.split()),
            seconds=round(seconds, 6),
        )
        self._write(line.model_dump(mode="json"))
        self._order += 1

    def _write(self, body: dict[str, Any]) -> None:
        _append(self._zip or self._raw, json.dumps(body, separators=(",", ":"), allow_nan=False))
        with contextlib.suppress(OSError):  # a pipe has no disk behind it
            os.fsync(self._raw.fileno())

    def close(self) -> None:
        """End the file; calling it again does nothing."""
        if self._zip is not None:
            self._zip.close()
        self._raw.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _append(file: IO[bytes] | gzip.GzipFile, line: str) -> None:
    file.write(line.encode() + b"\n")
    file.flush()


def _rounded(value: Any, decimals: int | None) -> Any:
    if decimals is None:
        return value
    if isinstance(value, float):
        return round(value, decimals)
    if isinstance(value, dict):
        return {key: _rounded(item, decimals) for key, item in value.items()}
    return [_rounded(item, decimals) for item in value] if isinstance(value, list) else value
