"""Fixtures of the unit tests."""

from __future__ import annotations

import pytest


@pytest.fixture
def url(tmp_path):
    return f"journal://{tmp_path}/studies.log"
