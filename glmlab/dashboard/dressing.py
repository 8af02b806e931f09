"""What glmlab puts into a study for optuna-dashboard: a note, its own charts, the recipe."""

from __future__ import annotations

import io
import json
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.artifacts import FileSystemArtifactStore
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna_dashboard import get_note, save_note, save_plotly_graph_object
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects
from platformdirs import user_cache_path

from glmlab.dashboard.note import write_note
from glmlab.report.charts import Chart, charts_of
from glmlab.report.material import Material
from glmlab.storage import StudyStore
from glmlab.storage_url import file_of

_MOST_CHART = 600_000  # characters: each view of the study loads them all
_TOO_LARGE = "More trials than this page should carry: `glmlab report` writes one that has them."
_HEIGHT = 470  # pixels: what the dashboard's cells show whole
_FILE = "recipe.yaml"
_OURS = uuid.UUID("5d6a1c1e-9d1b-4b0a-9f53-6c0c5d1f7a0e")


Stage = tuple[int, bool]


@dataclass(frozen=True)
class Dressed:
    """What was written into a study; nothing where all of it was there already.

    Attributes
    ----------
    note, recipe : bool
        Whether these were written.
    charts : tuple of str
        Those that were written.
    stage : Stage
        How far the study had come.
    """

    note: bool
    charts: tuple[str, ...]
    recipe: bool
    stage: Stage


def dress(store: StudyStore, artifacts: Path | None = None) -> Dressed:
    """Put glmlab's note, charts and recipe into a study; what has not changed is left alone.

    Only attributes that optuna-dashboard reads are written, none of the study's own, so that another
    process may run the study meanwhile.

    Parameters
    ----------
    store : StudyStore
        The study.
    artifacts : Path, optional
        The folder of its artifacts; :func:`artifact_folder` of its storage by default.
    """
    stage = stage_of(store)  # first: what comes in meanwhile is news
    material = Material.read(store)
    return Dressed(
        stage=stage,
        note=_put_note(material),
        charts=tuple(_put_charts(material)),
        recipe=_put_recipe(material, artifacts or artifact_folder(store.url)),
    )


def stage_of(store: StudyStore) -> Stage:
    """Finished trials, and whether there is a verdict: what a note is out of date by."""
    trials = store.optuna_study.get_trials(deepcopy=False)
    return sum(trial.state.is_finished() for trial in trials), store.verdict is not None


def artifact_folder(url: str) -> Path:
    """Where the artifacts of a storage lie: beside its file, for a server in the user's cache."""
    file = file_of(url)
    if file is not None:
        return file.absolute().with_name(f"{file.name}.artifacts")
    return user_cache_path("glmlab") / "artifacts" / uuid.uuid5(_OURS, url).hex


def _put_note(material: Material) -> bool:
    study = material.store.optuna_study
    former = get_note(study)
    note = write_note(material, former)
    if note == former:
        return False
    save_note(study, note)
    return True


def _put_charts(material: Material) -> list[str]:
    study = material.store.optuna_study
    known = get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id))
    written = []
    for key, chart in charts_of(material).items():
        name = f"glmlab-{key}"
        figure = _figure(chart)
        drawn = figure.to_json()
        if len(drawn) > _MOST_CHART:  # put something there, lest an earlier one stay and look current
            figure = _figure(chart.saying(_TOO_LARGE))
            drawn = figure.to_json()
        if known.get(name) != drawn:
            save_plotly_graph_object(study, figure, graph_object_id=name)
            written.append(key)
    return written


def _figure(chart: Chart) -> Any:
    """A chart as the dashboard's cells have room for it."""
    figure = chart.figure("auto", _HEIGHT)
    figure.update_layout(title={"font": {"size": 13}, "subtitle": {"font": {"size": 10}}})
    return figure


def _put_recipe(material: Material, folder: Path) -> bool:
    """The recipe that an export would write, or the baseline's while nothing is confirmed.

    Its identity follows from the study, so that a new text takes the place of the former.
    """
    outcome = material.outcome
    if isinstance(outcome, str):
        content = f"# The baseline: {outcome}\n{material.spec.base_recipe.to_yaml()}"
    else:
        content = outcome.files[_FILE]
    study, body = material.store.optuna_study, content.encode()
    identity = str(uuid.uuid5(_OURS, material.store.name))
    meta = {"artifact_id": identity, "filename": _FILE, "mimetype": "text/plain", "encoding": None}
    key = f"artifacts:{identity}"
    folder.mkdir(parents=True, exist_ok=True)
    files = FileSystemArtifactStore(folder)
    changed = _read(files, identity) != body
    if changed:
        files.write(identity, io.BytesIO(body))
    listed = study._storage.get_study_system_attrs(study._study_id).get(key)
    if listed != json.dumps(meta):
        study._storage.set_study_system_attr(study._study_id, key, json.dumps(meta))
        changed = True
    return changed


def _read(files: FileSystemArtifactStore, identity: str) -> bytes | None:
    try:
        with files.open_reader(identity) as file:
            return file.read()
    except ArtifactNotFound:
        return None
