"""Where studies live: any Optuna storage; one Optuna study each; glmlab's detail in attributes."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from optuna.samplers import RandomSampler
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import SQLAlchemyError

from glmlab.all_reduce_time import AllReduceTime
from glmlab.errors import InputError, StorageError
from glmlab.knobs import KnobSpace, Params
from glmlab.measurement import SCHEMA
from glmlab.names import did_you_mean
from glmlab.search import distributions
from glmlab.storage_url import exists, file_of, must_exist, shown
from glmlab.study_spec import StudySpec
from glmlab.trial_record import TrialRecord, Visit

Direction = Literal["minimize", "maximize"]
DEFAULT_URL = "sqlite:///glmlab.db"
_RECORD = "glmlab"  # trial attribute
_STATES = {
    "complete": TrialState.COMPLETE,
    "failed": TrialState.FAIL,
    "blocked": TrialState.PRUNED,
    "interrupted": TrialState.FAIL,
}

logging.getLogger("alembic").setLevel(logging.WARNING)


class StudyStore:
    """One stored study. Every method that writes has written when it returns.

    Build it with :meth:`open` or :meth:`create`.
    """

    def __init__(self, study: optuna.Study, url: str) -> None:
        self._study = study
        self.url = url

    # ------------------------------------------------------------------ opening
    @classmethod
    def open(cls, name: str, url: str) -> StudyStore | None:
        """The stored study of this name, or ``None``; writes nothing.

        Raises
        ------
        StorageError
            If the storage cannot be reached, is no storage, or is of a newer schema.
        """
        if not exists(url):
            return None
        with _in_one_line(url):
            storage = connect(url)
            if name not in optuna.get_all_study_names(storage):
                return None
            study = optuna.load_study(study_name=name, storage=storage, sampler=RandomSampler(0))
        store = cls(study, url)
        schema = store._attribute("schema")
        if schema is None and store._is_stillborn():
            return None
        if schema is None:
            raise StorageError(
                f"study {name!r} in {shown(url)}: was not made by glmlab; choose another name or storage"
            )
        if schema > SCHEMA:
            raise StorageError(
                f"study {name!r} in {shown(url)}: has schema {schema}, this glmlab reads up to {SCHEMA};"
                " upgrade glmlab"
            )
        return store

    @classmethod
    def load(cls, name: str, url: str) -> StudyStore:
        """Like :meth:`open`, but a missing study is an error that names the known ones."""
        store = cls.open(name, url)
        if store is not None:
            return store
        must_exist(url)
        known = study_names(url)
        hint = did_you_mean(name, known) if known else "; it holds no study yet"
        raise StorageError(f"study {name!r}: not in {shown(url)}{hint}")

    @classmethod
    def create(cls, spec: StudySpec, url: str, *, directions: list[Direction]) -> StudyStore:
        """Make a new study; the caller holds its lock."""
        check_writable(url)
        with _in_one_line(url):
            storage = connect(url)
            if spec.study in optuna.get_all_study_names(storage):
                former = optuna.load_study(study_name=spec.study, storage=storage)
                if not cls(former, url)._is_stillborn():
                    raise StorageError(f"study {spec.study!r} in {shown(url)}: appeared just now; try again")
                optuna.delete_study(study_name=spec.study, storage=storage)
            study = optuna.create_study(
                study_name=spec.study,
                storage=storage,
                directions=directions,
                sampler=RandomSampler(0),
            )
            with warnings.catch_warnings():
                # Experimental since Optuna 3; dashboards show the names.
                warnings.simplefilter("ignore", ExperimentalWarning)
                study.set_metric_names(list(spec.objective))
        store = cls(study, url)
        # Recordings where they were found: whoever reads the study may stand in another folder.
        store._set("spec", {**spec.model_dump(mode="json"), "recording": list(spec.recordings)})
        store._set("identity", spec.identity())
        store._set("recipe", json.loads(spec.base_recipe.model_dump_json(exclude_defaults=True)))
        # Last: a study without it was interrupted in the making, and is made anew.
        store._set("schema", SCHEMA)
        return store

    def _is_stillborn(self) -> bool:
        """Whether making this study was interrupted: no trial, and nothing but glmlab's beginnings."""
        ours = all(key.startswith(f"{_RECORD}:") for key in self._study.user_attrs)
        return ours and not self._study.get_trials(deepcopy=False)

    # ------------------------------------------------------------------ trials
    def begin(self, params: Params, space: KnobSpace) -> optuna.Trial:
        """Start a trial with given values; it is in the storage, as running, from now on."""
        fixed = {name: distributions(space)[name] for name in params}
        with _writing(self.url):
            self._study.enqueue_trial(dict(params))
            return self._study.ask(fixed_distributions=fixed)

    def finish(self, trial: optuna.Trial, record: TrialRecord) -> TrialRecord:
        """Store a trial's record and end it; the record with its number."""
        record = record.model_copy(update={"number": trial.number})
        with _writing(self.url):
            self._finish(trial, record)
        return record

    def _finish(self, trial: optuna.Trial, record: TrialRecord) -> None:
        trial.set_user_attr(_RECORD, json.loads(record.model_dump_json()))
        trial.set_user_attr("status", record.status)
        if record.reason:
            trial.set_user_attr("reason", record.reason)
        if record.evidence != "measured":
            trial.set_user_attr("evidence", record.evidence)  # for whoever looks with Optuna's own tools
        for name, violation in record.violations.items():
            trial.set_constraint(name, violation)
        self._study.tell(trial, list(record.values) if record.values else None, state=_STATES[record.status])

    def end_interrupted(self) -> int:
        """Close trials that a former driver left running; how many there were."""
        stale = [
            trial
            for trial in self._study.get_trials(deepcopy=False)
            if trial.state in (TrialState.RUNNING, TrialState.WAITING)
        ]
        for trial in stale:
            record = _record_of(trial) or TrialRecord(
                status="interrupted", params=dict(trial.params), reason="the driver was interrupted"
            )
            if trial.state is TrialState.WAITING:
                self._study.ask()  # takes it off the queue, as running
            self._study.tell(
                trial.number,
                list(record.values) if record.values else None,
                state=_STATES[record.status],
            )
        return len(stale)

    def records(self) -> list[TrialRecord]:
        """All trials, in the order of their numbers."""
        found = []
        for trial in self._study.get_trials(deepcopy=False):
            record = _record_of(trial)
            if record is None:
                status = "interrupted" if trial.state.is_finished() else None
                if status is None:
                    continue
                record = TrialRecord(
                    status="interrupted",
                    params=dict(trial.params),
                    reason="the driver was interrupted",
                )
            found.append(record.model_copy(update={"number": trial.number}))
        return found

    # ------------------------------------------------------------------ study attributes
    @property
    def name(self) -> str:
        return self._study.study_name

    @property
    def optuna_study(self) -> optuna.Study:
        """The Optuna study itself, for its own plots and dashboards."""
        return self._study

    @property
    def spec(self) -> dict[str, Any]:
        """The study file as it was first run."""
        return dict(self._attribute("spec"))

    @property
    def parsed_spec(self) -> StudySpec:
        """The study file as it was first run, validated, with the recipe as it was then."""
        return StudySpec.parse({**self.spec, "recipe": self.recipe}, where=f"study {self.name}")

    @property
    def identity(self) -> dict[str, Any]:
        return dict(self._attribute("identity"))

    @property
    def recipe(self) -> dict[str, Any]:
        """The baseline recipe's keys and values."""
        return dict(self._attribute("recipe"))

    @property
    def baseline(self) -> Params | None:
        """The baseline's values, resolved by the first engine."""
        return self._attribute("baseline")  # type: ignore[no-any-return]

    @baseline.setter
    def baseline(self, params: Params) -> None:
        self._set("baseline", params)

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions and machine of each run, newest last."""
        return {"runs": self._attribute("provenance") or []}

    def add_provenance(self, run: dict[str, Any]) -> None:
        """Remember where and with what a run was made, unless the last run was the same."""
        runs = self._attribute("provenance") or []
        if not runs or runs[-1] != run:
            self._set("provenance", [*runs, run])

    def visits(self, best: int) -> list[Visit]:
        """Confirmation visits that were made for a best trial, in order."""
        attributes = self._study.user_attrs  # each look is one at the database
        found: list[Visit] = []
        while (body := attributes.get(f"{_RECORD}:visit:{best}:{len(found)}")) is not None:
            found.append(Visit.model_validate(body))
        return found

    def add_visit(self, best: int, visit: Visit) -> None:
        """Store one more visit."""
        index = len(self.visits(best))
        self._set(f"visit:{best}:{index}", json.loads(visit.model_dump_json()))

    @property
    def all_reduce_times(self) -> dict[str, list[AllReduceTime]]:
        """What an all-reduce costs, by plan, e.g. ``tensor_parallel=2``; one rank has none."""
        stored = self._attribute("all_reduce_times") or {}
        return {plan: [AllReduceTime(**each) for each in times] for plan, times in stored.items()}

    def add_all_reduce_times(self, plan: str, times: Sequence[AllReduceTime]) -> None:
        """Keep those of a plan."""
        known = self._attribute("all_reduce_times") or {}
        self._set("all_reduce_times", {**known, plan: [each.model_dump() for each in times]})

    @property
    def verdict(self) -> dict[str, Any] | None:
        """``{"best": number, "verdict": ...}`` of the last confirmation."""
        return self._attribute("verdict")  # type: ignore[no-any-return]

    @verdict.setter
    def verdict(self, body: dict[str, Any]) -> None:
        self._set("verdict", body)

    def _attribute(self, key: str) -> Any:
        return self._study.user_attrs.get(f"{_RECORD}:{key}")

    def _set(self, key: str, value: Any) -> None:
        with _writing(self.url):
            self._study.set_user_attr(f"{_RECORD}:{key}", value)


def study_names(url: str) -> list[str]:
    """Names of all studies of a storage."""
    with _in_one_line(url):
        return sorted(optuna.get_all_study_names(connect(url)))


def check_writable(url: str) -> None:
    """Refuse a storage that could not be written, before anything is paid for."""
    path = file_of(url)
    if path is None:
        return
    folder = path.parent
    if not folder.is_dir():
        raise StorageError(f"storage {shown(url)}: folder {folder} does not exist; make it first")
    if not os.access(path if path.exists() else folder, os.W_OK) or not os.access(folder, os.W_OK):
        raise StorageError(f"storage {shown(url)}: {path} cannot be written")


def _record_of(trial: FrozenTrial) -> TrialRecord | None:
    body = trial.user_attrs.get(_RECORD)
    return None if body is None else TrialRecord.model_validate(body)


def connect(url: str) -> BaseStorage:
    """The storage itself, for Optuna's own tools; makes its tables where there are none."""
    if url.startswith("journal://"):
        from optuna.storages.journal import JournalFileBackend

        return JournalStorage(JournalFileBackend(url.removeprefix("journal://")))
    options: dict[str, Any] = {}
    if url.startswith("sqlite"):
        options["connect_args"] = {"timeout": 60}  # a dashboard may be reading
    return RDBStorage(url, engine_kwargs=options)


@contextlib.contextmanager
def _writing(url: str) -> Iterator[None]:
    """Say what a database said of a write: Optuna takes a full disk for invalid data."""
    try:
        yield
    except (StorageInternalError, SQLAlchemyError, OSError) as error:
        cause = error.__cause__ or error
        said = str(getattr(cause, "orig", cause)).strip().splitlines()
        raise StorageError(
            f"storage {shown(url)}: cannot be written ({shown(said[0]) if said else type(cause).__name__})"
        ) from error


@contextlib.contextmanager
def _in_one_line(url: str) -> Iterator[None]:
    """Fold what a database or Optuna says about a storage into one line."""
    try:
        yield
    except InputError:
        raise
    except (SQLAlchemyError, RuntimeError, OSError, ValueError, ImportError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise StorageError(f"storage {shown(url)}: cannot be used ({shown(first)})") from None
