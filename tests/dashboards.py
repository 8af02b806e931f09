"""optuna-dashboard for tests: what a study holds for it, and a server to ask."""

from __future__ import annotations

import contextlib
import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

from glmlab.dashboard import Dashboard, artifact_folder, serve
from glmlab.storage import StudyStore


def attributes(store: StudyStore) -> dict[str, Any]:
    study = StudyStore.load(store.name, store.url).optuna_study
    return study._storage.get_study_system_attrs(study._study_id)


def recipe_in(store: StudyStore) -> tuple[str, bytes]:
    """Name and content of the one artifact."""
    [meta] = [json.loads(v) for k, v in attributes(store).items() if k.startswith("artifacts:")]
    return meta["filename"], (artifact_folder(store.url) / meta["artifact_id"]).read_bytes()


@contextlib.contextmanager
def serving(url: str, port: int | None = 0) -> Iterator[Dashboard]:
    with serve(url, port) as board:
        yield board


def ask(address: str, **headers: str) -> tuple[int, bytes]:
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()
