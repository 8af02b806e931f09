"""A replay is asked for the points that its recording has, and for no others."""

from __future__ import annotations

from glmlab.engines.replayed_visit import workload_problem
from glmlab.recorded import load_recording


def test_a_point_that_the_recordings_limit_left_out_is_refused() -> None:
    header = load_recording("h100-glm-4.7-tp4-splits").header
    whole = header.workload
    assert workload_problem(header, whole) == ""
    limited = whole.model_copy(update={"most_tokens": whole.tokens(150_000, 1)})
    assert limited.points != whole.points
    cut = header.model_copy(update={"workload": limited})
    assert workload_problem(cut, limited) == ""
    assert workload_problem(cut, whole) == (
        "workload: context 16384 at batch size 16 is not in recording h100-glm-4.7-tp4-splits, which was made"
        f" with most_tokens = {limited.most_tokens}"
    )
