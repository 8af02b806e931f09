"""The study that most dashboards show, in each kind of storage."""

from __future__ import annotations

import pytest

from tests.doubles import scripted_start
from tests.studies import LIVE, run, split_helps


@pytest.fixture(params=["journal", "sqlite"])
def url(request, tmp_path):
    kinds = {"journal": f"journal://{tmp_path}/studies.log", "sqlite": f"sqlite:///{tmp_path}/studies.db"}
    return kinds[request.param]


@pytest.fixture
def study(url):
    return run(url, scripted_start(split_helps), space=LIVE)
