"""Points that a user asks for, checked before they wait for their turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glmlab.errors import KnobError
from glmlab.knobs import KnobSpace, Params, in_words, params_key
from glmlab.names import did_you_mean
from glmlab.study_run import grown
from glmlab.trial_record import TrialRecord


def checked_wish(
    space: KnobSpace, baseline: Params | None, records: Sequence[TrialRecord], knobs: Mapping[str, Any]
) -> Params:
    """The point that is meant; knobs that are not named stay at the baseline's values.

    Raises
    ------
    KnobError
        For a knob or a value that is not in the space, or a point that was tried.
    """
    if baseline is not None:
        space = grown(space, baseline)
    if not knobs:
        raise KnobError(f"enqueue: name at least one of {', '.join(d.name for d in space)}")
    for name, value in knobs.items():
        if name not in space:
            known = [dimension.name for dimension in space]
            raise KnobError(f"{name}: is not in the space of this study{did_you_mean(name, known)}")
        if value not in space[name]:
            raise KnobError(f"{name} = {value!r}: is not in the space: {space[name].as_spec()!r}")
    point = space.active({**(baseline or {}), **knobs})
    if left_out := sorted(set(knobs) - set(point)):
        raise KnobError(f"{left_out[0]}: has no effect at this point; see its `when` in the space")
    if not space.allows({**(baseline or {}), **knobs}):
        listed = space.plans[0]
        asked = {name: value for name, value in point.items() if name in listed}
        raise KnobError(
            f"{in_words(asked)}: is none of the plans of this study; name each of {', '.join(listed)}"
        )
    for record in records:
        if record.status != "interrupted" and params_key(record.params) == params_key(point):
            raise KnobError(f"{in_words(point)}: was tried as trial #{record.number}")
    return point
