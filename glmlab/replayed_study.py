"""What a study over recordings needs beyond its engine: enough visits, the same data, no visit twice."""

from __future__ import annotations

from glmlab.dimension import same_value
from glmlab.engines.replay_start import Replay
from glmlab.errors import StudyError
from glmlab.knobs import Params
from glmlab.progress import Progress
from glmlab.recorded import Recording
from glmlab.storage import StudyStore
from glmlab.storage_url import shown
from glmlab.study_spec import StudySpec
from glmlab.trial import TrialRunner

_LEAST_VISITS = 3  # for an interval that no visit is in twice; one more keeps the search's own apart


def find_replay(spec: StudySpec) -> Replay:
    """The recordings of a study: those that it names, or those of its plans.

    Raises
    ------
    RecordingError
        If there are none.
    """
    return Replay.find(
        spec.base_recipe,
        free=spec.knob_space.rebuild,
        moved=spec.knob_space.live,
        named=spec.recordings,
        seed=spec.seed,
    )


def within(spec: StudySpec, replay: Replay, show: Progress) -> StudySpec:
    """The study with no more rounds of confirmation than there are visits for.

    A visit that counted twice would make the verdict look surer than the data are. Points that the study
    never goes to do not count.

    Raises
    ------
    StudyError
        If there are too few visits to decide anything.
    """
    fewest, poorest = min(
        ((_fewest_visits(spec, recording), recording.name) for recording in replay.recordings),
        key=lambda found: found[0],
    )
    if fewest < _LEAST_VISITS:
        raise StudyError(
            f"study {spec.study!r}: recording {poorest} has a point with {fewest}"
            f" visits; a study needs one to search and three to confirm: record {_LEAST_VISITS + 1} or more"
        )
    for recording in replay.recordings:
        show.message(f"replaying {recording.header.origin}: nothing is measured here")
    most = max(fewest - 1, _LEAST_VISITS)
    if max(spec.confirm.rounds, spec.confirm.rebuild_rounds) > most:
        show.message(f"the recording has {fewest} visits to a point: at most {most} rounds confirm the best")
        return spec.with_rounds(most)
    return spec


def _fewest_visits(spec: StudySpec, recording: Recording) -> int:
    """Visits of the point that has the fewest, of those that the study can come to; failed ones left out."""
    counts = [
        len(recording.visits_of(point))
        for point in recording.points
        if recording.failure_of(point) is None and _is_within(spec, recording, point)
    ]
    # Where none is, the study is refused with what was recorded, once its baseline is looked for.
    return min(counts, default=recording.fewest_visits)


def _is_within(spec: StudySpec, recording: Recording, point: Params) -> bool:
    """Whether each knob has a value of the space, or the one that the baseline has."""
    space, header, recipe = spec.knob_space, recording.header, spec.base_recipe
    for name, value in point.items():
        own = getattr(recipe, name) if name in recipe.model_fields_set else None
        baseline = header.value_at_start(name) if own is None else own
        if not same_value(value, baseline) and not (name in space and value in space[name]):
            return False
    return True


def check_same_recordings(replay: Replay, store: StudyStore) -> None:
    """A recording that was replaced between runs would mix what cannot be compared."""
    known = {
        each["name"]: each["fingerprint"]
        for run in store.provenance["runs"]
        for each in run.get("replayed", [])
    }
    for recording in replay.recordings:
        before = known.get(recording.name, recording.fingerprint)
        if before != recording.fingerprint:
            raise StudyError(
                f"study {store.name!r} in {shown(store.url)}: recording {recording.name}"
                f" changed since its first run (fingerprint {before}, now {recording.fingerprint}); give the"
                " study another name"
            )


def continue_replay(replay: Replay, store: StudyStore, runner: TrialRunner, baseline: Params) -> None:
    """Go on behind the visits that earlier runs were given, as one run without a break would."""
    replay.forget_given()
    for record in store.records():
        if record.measurement is not None:
            replay.count_given(runner.recipe(record.params))
        for visit in store.visits(record.number):
            replay.count_given(runner.recipe(baseline if visit.side == "baseline" else record.params))
