"""Reports for tests: studies with everything in them, and how their pages are read."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import optuna

from glmlab.report import write_report
from glmlab.storage import StudyStore
from glmlab.study import Study
from tests.pages import Page

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&<b>"


def fails_at_64(recipe: Any) -> str | None:
    return f"no kernel for blocks of 64 {HOSTILE}" if recipe.block_size == 64 else None


def read(store: StudyStore, folder: Path) -> Page:
    return Page(write_report(store, folder / "report.html").read_text(encoding="utf-8"))


def many(study: Study, count: int) -> StudyStore:
    """A store with copies of a study's records, each with a value of its own; every 50th failed by itself."""
    copy = optuna.create_study(storage=optuna.storages.InMemoryStorage(), study_name="unit")
    for key, value in study.store.optuna_study.user_attrs.items():
        copy.set_user_attr(key, value)
    complete = [r for r in study.records() if r.status == "complete"]
    failed = next(r for r in study.records() if r.status == "failed")
    for number in range(count):
        record = complete[number % len(complete)]
        body = json.loads(record.model_dump_json())
        state = optuna.trial.TrialState.COMPLETE
        if number % 50 == 49:
            body = json.loads(failed.model_dump_json())
            body |= {"reason": f"reason {number}: {'x' * 3000}", "log_tail": "y" * 50_000}
            state = optuna.trial.TrialState.FAIL
        elif record.values and number:
            body["values"] = [record.values[0] * (1.5 + math.sin(number * number))]
        copy.add_trial(
            optuna.trial.create_trial(state=state, values=body["values"], user_attrs={"glmlab": body})
        )
    return StudyStore(copy, study.storage)
