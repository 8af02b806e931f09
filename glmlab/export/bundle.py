"""The exported directory: recipe, ``vllm serve`` configuration, environment, evidence."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

import glmlab
from glmlab.errors import ExportError
from glmlab.export.outcome import Outcome, outcome_of
from glmlab.export.tuned_tiles import VARIABLE
from glmlab.measurement import Evidence
from glmlab.storage import StudyStore
from glmlab.summary import Summary, summarize
from glmlab.trial_record import TrialRecord

_SCHEMA = 1
_FILES = {
    "recipe.yaml": "the tuned recipe, for glmlab",
    "serve.yaml": "for vllm serve --config",
    "env.sh": "environment that must be set before vLLM starts; source it",
    "evidence.json": "baseline, best, verdict with its interval, raw samples, provenance",
    "README.md": "how to start it, and what it is worth",
}


class Bundle(BaseModel):
    """An exported directory.

    Attributes
    ----------
    tuned : bool
        Whether it holds other settings than the baseline's.
    evidence : str
        What its numbers are: ``measured``, or ``replayed`` from a recording.
    headline : str
        What was found, in one sentence.
    command : str
        Starts a server with it.
    """

    model_config = ConfigDict(frozen=True)

    directory: Path
    files: dict[str, str]
    tuned: bool
    evidence: Evidence
    headline: str
    command: str

    def to_json(self) -> dict[str, Any]:
        body: dict[str, Any] = self.model_dump(mode="json")
        return body


def export_bundle(store: StudyStore, directory: str | Path) -> Bundle:
    """Write the outcome of a study as a directory.

    The tuned values go out only with a verdict of ``win``; otherwise the baseline does, since
    nothing better was proved.

    Parameters
    ----------
    store : StudyStore
        A study that has come to its verdict.
    directory : str or Path
        New or empty.

    Raises
    ------
    ExportError
        If there is nothing to export yet, or the directory cannot be written; nothing is then
        left half-written.
    """
    found = summarize(store)
    if found.baseline is None or found.best is None:
        raise ExportError(f"study {store.name!r}: has no complete trial; run `glmlab tune` on it")
    if found.verdict is None:
        raise ExportError(
            f"study {store.name!r}: its best trial is not confirmed yet; run `glmlab tune` again"
        )
    target = Path(directory)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ExportError(f"{target}: exists and is not empty; name a new directory")
    outcome = outcome_of(store, found)
    bundle = Bundle(
        directory=target,
        files=_FILES
        | {
            name: f"tiles of the experts' kernel; vLLM reads them through {VARIABLE}"
            for name in outcome.files
            if name not in _FILES
        },
        tuned=outcome.tuned,
        evidence=found.evidence,
        headline=found.headline,
        command=outcome.command,
    )
    _write(target, _contents(store, found, outcome))
    return bundle


def _contents(store: StudyStore, found: Summary, outcome: Outcome) -> dict[str, str]:
    evidence = {
        "schema_version": _SCHEMA,
        "glmlab": glmlab.__version__,
        "tuned": outcome.tuned,
        "evidence": found.evidence,
        "summary": found.to_json(),
        "recipe_fingerprint": outcome.recipe.fingerprint,
        "spec": store.spec,
        "provenance": store.provenance,
        "trials": [_trial(r, found) for r in store.records()],
        "confirmation": [visit.model_dump(mode="json") for visit in store.visits(found.best.trial)]
        if found.best
        else [],
    }
    return outcome.files | {
        "evidence.json": json.dumps(evidence, indent=1) + "\n",
        "README.md": _readme(store, found, outcome),
    }


def _trial(record: TrialRecord, found: Summary) -> dict[str, Any]:
    """A trial as evidence: raw samples for baseline and best, the figures for all others."""
    body = record.model_dump(mode="json")
    kept = {point.trial for point in (found.baseline, found.best) if point}
    if record.number not in kept:
        body.pop("measurement")
    return body


def _readme(store: StudyStore, found: Summary, outcome: Outcome) -> str:
    what = "Tuned settings" if outcome.tuned else "The default settings: nothing better was proved"
    lines = [
        f"# {outcome.recipe.name}, from study {store.name}",
        *_caution(found),
        "",
        f"{what}. {found.headline}.",
        "",
        f"    {outcome.command}",
        "",
        f"Evidence: {found.evidence}; see evidence.json.",
    ]
    for remark in outcome.remarks:
        lines += ["", remark]
    return "\n".join(lines) + "\n"


def _caution(found: Summary) -> list[str]:
    """What must be read first where the numbers were not measured by the study itself."""
    if found.evidence == "measured":
        return []
    origin = f" from {'; '.join(found.origins)}" if found.origins else ""
    return [
        "",
        f"**Evidence: {found.evidence}{origin}. Nothing was measured when this was tuned.**",
        "Run the same study with `engine: vllm` on the machine that is going to serve before you rely on it.",
    ]


def _write(target: Path, contents: dict[str, str]) -> None:
    """Write all files or none: into a neighbour first, which then takes the directory's name."""
    parent = target.resolve().parent
    try:
        if not parent.is_dir():
            raise ExportError(f"{target}: the folder {parent} does not exist; make it first")
        work = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=parent))
        try:
            work.chmod(0o755)
            for name, text in contents.items():
                (work / name).parent.mkdir(exist_ok=True)
                (work / name).write_text(text, encoding="utf-8")
            if target.exists():
                target.rmdir()  # empty, as was checked
            work.rename(target)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
    except OSError as error:
        raise ExportError(f"{target}: cannot be written ({error.strerror or error})") from None
