"""The study that most reports are about."""

from __future__ import annotations

import math

import pytest

from tests.doubles import scripted_start
from tests.reports import fails_at_64
from tests.studies import TWO_PLANS, run, split_helps


@pytest.fixture
def study(url):
    """Three plans' worth of trials: a win by a live knob, and a plan that does not start."""
    script = scripted_start(
        split_helps, start_fails=fails_at_64, drift=lambda n: 1 + 0.004 * math.sin(n * n), device=True
    )
    return run(
        url, script, space=TWO_PLANS, workload={"contexts": [64, 128], "batch_sizes": [1, 2], "new_tokens": 4}
    )
