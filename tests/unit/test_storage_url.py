"""Storage URLs: a password is shown nowhere, and other tools get a path that holds from any folder."""

from __future__ import annotations

import pytest

from glmlab.errors import StorageError
from glmlab.storage import StudyStore, study_names
from glmlab.storage_url import exists, file_of, from_anywhere, shown

SERVER = "postgresql+psycopg://ann:hunter2@db.lab:5432/glm"


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("sqlite:///glmlab.db", "sqlite:///glmlab.db"),
        ("sqlite:////tmp/a:b@c/x.db", "sqlite:////tmp/a:b@c/x.db"),
        ("journal://studies.log", "journal://studies.log"),
        (SERVER, "postgresql+psycopg://ann:***@db.lab:5432/glm"),
        ("postgresql://ann@db/glm", "postgresql://ann@db/glm"),
        ("postgresql://:hunter2@db/glm", "postgresql://:***@db/glm"),
        ("postgresql://ann:hunt@r2@db/glm", "postgresql://ann:***@db/glm"),
        ("postgresql://db/glm?user=ann&password=hunter2", "postgresql://db/glm?user=ann&password=***"),
        ("nonsense://ann:hunter2@db:port/glm", "nonsense://ann:***@db:port/glm"),
    ],
)
def test_shown_hides_the_password_and_nothing_else(url, seen):
    assert shown(url) == seen


@pytest.mark.parametrize(
    "url", [SERVER, SERVER.replace("+psycopg", ""), "postgresql+nodriver://ann:hunter2@d/g"]
)
def test_a_server_that_cannot_be_used_is_named_without_its_password(url):
    url = url.replace("db.lab:5432", "127.0.0.1:1")
    for ask in (lambda: study_names(url), lambda: StudyStore.load("unit", url)):
        with pytest.raises(StorageError) as refusal:
            ask()
        assert "hunter2" not in str(refusal.value)
        assert "ann:***@" in str(refusal.value)


def test_a_url_that_is_none_is_refused_without_its_password():
    with pytest.raises(StorageError, match=r"ann:\*\*\*@db:port.*is no URL") as refusal:
        file_of("nonsense://ann:hunter2@db:port/glm")
    assert "hunter2" not in str(refusal.value)


@pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
def test_memory_is_refused(url):
    with pytest.raises(StorageError, match="in memory"):
        file_of(url)


def test_from_anywhere_is_the_same_file_from_another_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert from_anywhere("sqlite:///a b.db") == f"sqlite:///{tmp_path}/a b.db"
    assert from_anywhere("journal://sub/log") == f"{tmp_path}/sub/log"
    assert from_anywhere(SERVER) == SERVER
    assert not exists("sqlite:///a b.db")
    (tmp_path / "a b.db").touch()
    monkeypatch.chdir("/")
    assert exists(f"sqlite:///{tmp_path}/a b.db")
    assert file_of(from_anywhere(f"sqlite:///{tmp_path}/a b.db")) == tmp_path / "a b.db"
