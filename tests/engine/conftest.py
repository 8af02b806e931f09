"""Engines are dear: one per module. Their logs go where a failed test can be read from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from glmlab import Workload, find_recipe
from glmlab.recipe import Recipe


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/engine/" in item.nodeid:
            item.add_marker(pytest.mark.engine)


@pytest.fixture(scope="session", autouse=True)
def _logs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("logs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GLMLAB_LOGS", str(folder))
        yield folder


@pytest.fixture(scope="session")
def recipe() -> Recipe:
    return find_recipe("tiny-glm4-moe")


@pytest.fixture(scope="session")
def workload() -> Workload:
    return Workload(contexts=(64, 700), batch_sizes=(1, 4), new_tokens=12, warmup_tokens=2)
