"""attach: find the session of a study again, after a reload or in a new kernel."""

from __future__ import annotations

from pathlib import Path

from glmlab.session.registry import living
from glmlab.session.session import Session
from glmlab.storage import DEFAULT_URL, StudyStore
from glmlab.study_spec import StudySpec


def attach(study: str | Path, storage: str = DEFAULT_URL) -> Session:
    """The session of a study, with all that was measured so far.

    In the process that runs the study this is its very session, still running after the page was loaded
    anew. In another one, such as a restarted kernel, it is rebuilt from the storage; its ``start()`` goes on.

    Parameters
    ----------
    study : str or Path
        A study's name, or its file.
    storage : str
        Optuna storage URL, or ``journal://FILE``.

    Raises
    ------
    StorageError
        If the storage cannot be read, or holds no such study.
    """
    path = Path(study)
    name = StudySpec.load(path).study if path.suffix in (".yaml", ".yml") else str(study)
    session = living(name, storage)
    if session is not None:
        session.refresh()
        return session
    return Session(StudyStore.load(name, storage).parsed_spec, storage)
