"""Recording: what a real engine gave at each point of a grid, kept so that it can be replayed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from glmlab.dimension import same_value
from glmlab.errors import RecordingError
from glmlab.knobs import Params, params_key, word
from glmlab.measurement import Measurement
from glmlab.recordings.header import RecordingHeader, Value

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RecordedVisit(_Record):
    """One visit to one point.

    Attributes
    ----------
    knobs : dict
        The point: a value for every knob of the header.
    visit : int
        Which visit to this point it was, from 0.
    order : int
        Its place among all lines, from 0: what was drifting can be seen.
    apply_s : float
        What entering the point cost, up to the proof of state.
    kv_kept : bool
        Whether prefilled KV survived that.
    """

    kind: Literal["visit"] = "visit"
    knobs: dict[str, Value]
    visit: Annotated[int, Field(ge=0)]
    order: Annotated[int, Field(ge=0)]
    apply_s: Seconds
    kv_kept: bool = True
    measurement: Measurement


class RecordedFailure(_Record):
    """A point that the engine could not be brought to, or not be measured at.

    Attributes
    ----------
    error : str
        Why, in one line.
    seconds : float
        What the attempt cost.
    """

    kind: Literal["failed"] = "failed"
    knobs: dict[str, Value]
    order: Annotated[int, Field(ge=0)]
    error: str
    seconds: Seconds = 0.0


class Recording:
    """A header with its visits; read one with :func:`glmlab.recorded.load_recording`.

    Parameters
    ----------
    header : RecordingHeader
        What was recorded.
    lines : sequence of RecordedVisit or RecordedFailure
        In the order in which they were recorded.
    path, fingerprint
        Where it was read from, and twelve hex digits of what is in it.
    """

    def __init__(
        self,
        header: RecordingHeader,
        lines: Sequence[RecordedVisit | RecordedFailure],
        *,
        path: Path,
        fingerprint: str,
    ) -> None:
        self.header, self.path, self.fingerprint = header, path, fingerprint
        self.visits = tuple(line for line in lines if isinstance(line, RecordedVisit))
        self._visits: dict[str, list[RecordedVisit]] = {}
        self._failures: dict[str, RecordedFailure] = {}
        for line in lines:
            if isinstance(line, RecordedVisit):
                self._visits.setdefault(params_key(line.knobs), []).append(line)
            else:
                self._failures.setdefault(params_key(line.knobs), line)

    @property
    def name(self) -> str:
        return self.header.name

    def visits_of(self, point: Mapping[str, Any]) -> tuple[RecordedVisit, ...]:
        """All visits to a point, in order; empty where it was not recorded."""
        return tuple(self._visits.get(params_key(point), ()))

    def failure_of(self, point: Mapping[str, Any]) -> RecordedFailure | None:
        """The failure of a point. One that failed in any visit counts as failed."""
        return self._failures.get(params_key(point))

    @property
    def points(self) -> tuple[Params, ...]:
        """Every recorded point, failed ones too, in the order of the header's values."""
        known = {key: visits[0].knobs for key, visits in self._visits.items()}
        for key, failure in self._failures.items():
            known.setdefault(key, failure.knobs)
        listed = self.header.knobs
        places = {
            key: tuple(listed[name].index(point[name]) for name in listed) for key, point in known.items()
        }
        return tuple(dict(known[key]) for key in sorted(known, key=places.__getitem__))

    @property
    def fewest_visits(self) -> int:
        """Visits of the point that has the fewest, failed points left out."""
        return min((len(v) for key, v in self._visits.items() if key not in self._failures), default=0)

    def nearest(self, point: Mapping[str, Any]) -> Iterator[Params]:
        """Recorded points that differ from a point in one knob only."""
        for known in self.points:
            if sum(not same_value(known[name], point.get(name)) for name in known) == 1:
                yield known

    def __repr__(self) -> str:
        return f"Recording({self.header.origin}: {len(self._visits)} points, {len(self.visits)} visits)"

    def _repr_html_(self) -> str:
        header, workload = self.header, self.header.workload
        contexts, batches = (", ".join(map(str, v)) for v in (workload.contexts, workload.batch_sizes))
        lines = [
            header.title,
            f"from      {header.origin}",
            *(f"knob      {name}: {', '.join(map(word, values))}" for name, values in header.knobs.items()),
            f"points    {len(self._visits)}, {self.fewest_visits} or more visits each",
            f"failed    {len(self._failures)}",
            f"measured  contexts {contexts}, batches {batches}, {workload.new_tokens} new tokens"
            + (f", no more than {workload.most_tokens:,} tokens together" if workload.most_tokens else ""),
            *(f"note      {note}" for note in header.notes),
        ]
        return f"<pre>{escape(chr(10).join(lines))}</pre>"


def check_measured(measurement: Measurement) -> None:
    """Refuse what no engine measured: what is replayed counts as once measured."""
    if measurement.evidence != "measured":
        raise RecordingError(
            f"measurement.evidence = {measurement.evidence!r}: only what was measured can be recorded"
        )
