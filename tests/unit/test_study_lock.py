"""The lock of a study: who looks at it is no run, and keeps none away."""

from __future__ import annotations

import fcntl
import threading
from pathlib import Path

import pytest

from glmlab.errors import StorageError
from glmlab.study_lock import _lock_path, is_held, study_lock


@pytest.fixture
def url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'studies.db'}"


def test_a_run_holds_it_and_looking_writes_nothing(url: str, tmp_path: Path) -> None:
    assert not is_held("unit", url)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "studies.db").touch()
    with study_lock("unit", url):
        assert is_held("unit", url)
        assert not is_held("other", url)
        with pytest.raises(StorageError, match="another run holds it"), study_lock("unit", url):
            pass
    assert not is_held("unit", url)


def test_one_who_looks_is_no_run(url: str) -> None:
    path = _lock_path("unit", url)
    path.touch()
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        assert not is_held("unit", url)


def test_a_run_does_not_give_up_for_one_who_looks(url: str) -> None:
    path = _lock_path("unit", url)
    path.touch()
    with path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        threading.Timer(0.1, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
        with study_lock("unit", url):
            assert is_held("unit", url)
