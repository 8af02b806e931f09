"""``make demo``: the main job, start to end, on whatever engine is installed.

A real engine is started, its knobs are changed while it runs, the best setting is confirmed
against the baseline, and the tuned configuration is written.
"""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

from glmlab import render
from glmlab.data_folders import data_folders
from glmlab.errors import GlmlabError
from glmlab.export import export_bundle
from glmlab.progress import automatic
from glmlab.study import Study
from glmlab.vllm_install import installed_vllm


def main() -> None:
    """Run the demo in a new folder below ``glmlab-demo``."""
    try:
        kind = "cpu" if installed_vllm().for_cpu else "gpu"
    except GlmlabError as error:
        raise SystemExit(f"glmlab: {error}") from None
    file = next(
        path for folder in data_folders("studies") if (path := folder / f"demo-{kind}.yaml").is_file()
    )
    folder = Path("glmlab-demo") / time.strftime("%Y%m%d-%H%M%S")
    folder.mkdir(parents=True)
    storage = f"sqlite:///{folder / 'glmlab.db'}"
    study = Study(file, storage)
    try:
        summary = study.run(progress=automatic())
        render.to_terminal(render.study(summary, study.records(), study.spec.effective_workload))
        bundle = export_bundle(study.store, folder / "bundle")
    except GlmlabError as error:
        raise SystemExit(f"glmlab: {error}") from None
    except KeyboardInterrupt:
        raise SystemExit("glmlab: stopped") from None
    render.to_terminal(render.bundle(bundle))
    render.to_terminal(f"\nlook at it again:  {_glmlab()} show demo --storage {storage}")


def _glmlab() -> str:
    """What to type for the command: its file, where the environment that has it is not active."""
    here = Path(sys.executable).with_name("glmlab")
    if shutil.which("glmlab") or not here.is_file():
        return "glmlab"
    try:
        return str(here.relative_to(Path.cwd()))
    except ValueError:
        return str(here)


if __name__ == "__main__":
    main()
