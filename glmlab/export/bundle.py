"""The exported directory: recipe, ``vllm serve`` configuration, environment, evidence."""

from __future__ import annotations

import json
import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict

import glmlab
from glmlab.errors import ExportError
from glmlab.export.serve import plugin_knobs, serve_arguments, serve_command, serve_environment
from glmlab.export.tuned_tiles import FOLDER, VARIABLE, tuned_files
from glmlab.knobs import Params
from glmlab.measurement import Evidence
from glmlab.recipe import Recipe
from glmlab.storage import StudyStore
from glmlab.summary import Summary, summarize
from glmlab.trial_record import TrialRecord
from glmlab.yaml_text import dump_yaml

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
    tuned = found.verdict.outcome == "win"
    # Without a win the recipe goes out as it came in, not even with vLLM's defaults spelled out.
    recipe = tuned_recipe(store, found.best.params if tuned else {})
    command = f"source env.sh && {serve_command()}"
    tiles = tuned_files(recipe, store.provenance)
    bundle = Bundle(
        directory=target,
        files=_FILES
        | dict.fromkeys(tiles, f"tiles of the experts' kernel; vLLM reads them through {VARIABLE}"),
        tuned=tuned,
        evidence=found.evidence,
        headline=found.headline,
        command=command,
    )
    _write(target, _contents(store, found, recipe, bundle) | tiles)
    return bundle


def tuned_recipe(store: StudyStore, params: Params) -> Recipe:
    """The baseline's recipe with other values."""
    base = Recipe.parse(store.recipe, where=f"recipe of study {store.name}")
    return base.replace(**params)


def _contents(store: StudyStore, found: Summary, recipe: Recipe, bundle: Bundle) -> dict[str, str]:
    evidence = {
        "schema_version": _SCHEMA,
        "glmlab": glmlab.__version__,
        "tuned": bundle.tuned,
        "evidence": found.evidence,
        "summary": found.to_json(),
        "recipe_fingerprint": recipe.fingerprint,
        "spec": store.spec,
        "provenance": store.provenance,
        "trials": [_trial(r, found) for r in store.records()],
        "confirmation": [visit.model_dump(mode="json") for visit in store.visits(found.best.trial)]
        if found.best
        else [],
    }
    comment = f"# Written by glmlab {glmlab.__version__} from study {store.name}.\n"
    if found.evidence != "measured":
        comment += (
            f"# {found.evidence.upper()}, NOT MEASURED: {'; '.join(found.origins) or 'see evidence.json'}\n"
        )
    environment = serve_environment(recipe)
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    if any(name.startswith(f"{FOLDER}/") for name in bundle.files):
        exports.append(f'export {VARIABLE}="$(cd "$(dirname "${{BASH_SOURCE[0]:-$0}}")" && pwd)/{FOLDER}"')
    return {
        "recipe.yaml": comment + recipe.to_yaml(),
        "serve.yaml": comment + dump_yaml(serve_arguments(recipe)),
        "env.sh": "\n".join([comment.rstrip(), *exports, ""]),
        "evidence.json": json.dumps(evidence, indent=1) + "\n",
        "README.md": _readme(store, found, recipe, bundle),
    }


def _trial(record: TrialRecord, found: Summary) -> dict[str, Any]:
    """A trial as evidence: raw samples for baseline and best, the figures for all others."""
    body = record.model_dump(mode="json")
    kept = {point.trial for point in (found.baseline, found.best) if point}
    if record.number not in kept:
        body.pop("measurement")
    return body


def _readme(store: StudyStore, found: Summary, recipe: Recipe, bundle: Bundle) -> str:
    what = "Tuned settings" if bundle.tuned else "The default settings: nothing better was proved"
    lines = [
        f"# {recipe.name}, from study {store.name}",
        *_caution(found),
        "",
        f"{what}. {found.headline}.",
        "",
        f"    {bundle.command}",
        "",
        f"Evidence: {found.evidence}; see evidence.json.",
    ]
    forced = plugin_knobs(recipe)
    if forced:
        names = ", ".join(f"`{name}`" for name in forced)
        lines += [
            "",
            (
                f"{names}: vLLM has no option for this. The environment that serves must have glmlab"
                " installed; its vLLM plugin reads GLMLAB_KNOBS from env.sh and logs a line with the"
                " knobs in force. Without that line the setting is not in force."
            ),
        ]
    if tuned := [name for name in bundle.files if name.startswith(f"{FOLDER}/")]:
        lines += [
            "",
            (
                f"`moe_tiles` is in {', '.join(f'`{name}`' for name in tuned)}. vLLM looks for just that"
                " name, made from the experts on a rank, their size and the GPU, and logs `Using"
                " configuration from` when it has found it. With another GPU or other parallelism it takes"
                " its own tiles."
            ),
        ]
    if recipe.weights == "random":
        lines += ["", "The model has random weights: this bundle shows the way, it serves no answers."]
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
