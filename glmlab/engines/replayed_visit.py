"""One recorded visit as the measurement that a replayed engine gives: cut to size and labelled."""

from __future__ import annotations

from collections.abc import Sequence

from glmlab.knobs import in_words
from glmlab.measurement import Measurement, PointMeasurement
from glmlab.recorded import RecordedVisit, Recording, RecordingHeader
from glmlab.workload import Workload

PREFILL_NOTE = "the prefill was"  # begins each note on how far it is known
AGAIN_NOTE = "this visit was given out before: it is no new sample"
_SAME = ("new_tokens", "warmup_tokens", "seed", "cold_prefill")  # else it is another measurement


def workload_problem(header: RecordingHeader, workload: Workload) -> str:
    """Why a recording does not hold a workload; empty where it does."""
    recorded = header.workload
    for name in _SAME:
        wanted, found = getattr(workload, name), getattr(recorded, name)
        if wanted != found:
            return f"workload.{name} = {wanted!r}: recording {header.name} was made with {found!r}"
    for name in ("contexts", "batch_sizes"):
        wanted, found = getattr(workload, name), getattr(recorded, name)
        if strangers := sorted(set(wanted) - set(found)):
            listed = ", ".join(map(str, sorted(found)))
            return f"workload.{name}: {strangers[0]} is not in recording {header.name}, which has {listed}"
    if missing := sorted(set(workload.points) - set(recorded.points)):
        context, batch = missing[0]
        return (
            f"workload: context {context} at batch size {batch} is not in recording {header.name}, which was"
            f" made with most_tokens = {recorded.most_tokens}"
        )
    return ""


def replay_visit(
    recording: Recording, visit: RecordedVisit, workload: Workload, *, cold: bool, again: bool
) -> Measurement:
    """A visit as the engine gives it.

    The measured passes are as recorded. The warm-up passes are those of the recording's first
    visit if no prompt is in the cache yet, else those of a later one: a recording pays the prefill
    only once, in whichever point came first.

    Parameters
    ----------
    recording : Recording
        What the visit is from.
    visit : RecordedVisit
        The visit.
    workload : Workload
        The recorded one, or a part of it.
    cold : bool
        Whether this is the first measurement after a start.
    again : bool
        Whether the visit was given out before.
    """
    whole = visit.measurement
    donor = _warmup_donor(recording, visit, cold=cold).measurement
    points = [
        _with_warmup(whole.point(context, batch), donor.point(context, batch))
        for context, batch in workload.points
    ]
    # What came between and after the passes was recorded for the whole workload only.
    between_s = max(whole.duration_s - _passes_s(whole.points), 0.0) * len(points) / len(whole.points)
    count = len(recording.visits_of(visit.knobs))
    notes = [f"replayed: visit {visit.visit + 1} of {count} to {in_words(visit.knobs)}, {recording.name}"]
    if again:
        notes.append(AGAIN_NOTE)
    if cold and not sum(max(p.context - min(p.warmup_cached_tokens), 0) for p in points):
        notes.append(f"{PREFILL_NOTE} not recorded, since the engine knew the prompts: a start costs more")
    elif cold and (known := _known_before(points)):
        notes.append(
            f"{PREFILL_NOTE} recorded with {known} prompt tokens in the cache, from points that are left"
            " out here: a real one takes longer"
        )
    return whole.model_copy(
        update={
            "evidence": "replayed",
            "points": points,
            "duration_s": round(_passes_s(points) + between_s, 4),
            "notes": [*notes, *whole.notes],
        }
    )


def entering_s(recording: Recording, visit: RecordedVisit) -> float:
    """What changing to the point of a visit costs.

    The first visit of a recording is one to the point that the engine was started at: nothing
    changed, so that another visit to it tells.
    """
    later = (v for v in recording.visits_of(visit.knobs) if v is not recording.visits[0])
    own = recording.header.state.knobs
    is_no_change = all(own.get(name) == value for name, value in visit.knobs.items())
    if visit is recording.visits[0] and is_no_change:
        return next(later, visit).apply_s
    return visit.apply_s


def _warmup_donor(recording: Recording, visit: RecordedVisit, *, cold: bool) -> RecordedVisit:
    first = recording.visits[0]
    if not visit.kv_kept:
        return visit  # its own change of knobs emptied the cache: it pays the prefill wherever it comes
    if cold:
        return first
    if visit is not first:
        return visit
    same = (v for v in recording.visits_of(visit.knobs) if v is not first and v.kv_kept)
    any_other = (v for v in recording.visits if v is not first and v.kv_kept)
    return next(same, None) or next(any_other, None) or visit


def _with_warmup(point: PointMeasurement, donor: PointMeasurement) -> PointMeasurement:
    return point.model_copy(
        update={
            "warmup_ms": donor.warmup_ms,
            "warmup_ttft_ms": donor.warmup_ttft_ms,
            "warmup_cached_tokens": donor.warmup_cached_tokens,
        }
    )


def _passes_s(points: Sequence[PointMeasurement]) -> float:
    return sum(p.warmup_ms + p.elapsed_ms + p.device_pass_ms for p in points) / 1e3


def _known_before(points: Sequence[PointMeasurement]) -> int:
    """Prompt tokens that the cache held for points which are not among these."""
    seen: dict[int, int] = {}
    known = 0
    for point in points:
        for request, cached in enumerate(point.warmup_cached_tokens):
            known += max(cached - seen.get(request, 0), 0)
            seen[request] = max(seen.get(request, 0), point.context)
    return known
