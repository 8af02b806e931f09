"""All-reduces that a study measured, taken for predictions of other recipes on the same kind of GPUs."""

from __future__ import annotations

from glmlab.all_reduce_time import AllReduceTime, all_reduce_plan
from glmlab.errors import InputError
from glmlab.gpus import Gpu
from glmlab.plans.measured_on import gpu_of_study
from glmlab.recipe import Recipe
from glmlab.storage import DEFAULT_URL, StudyStore
from glmlab.study_spec import named_study


def all_reduces_of(study: str, gpu: Gpu, storage: str = DEFAULT_URL) -> dict[str, list[AllReduceTime]]:
    """Those of one study, by plan as :func:`glmlab.all_reduce_time.all_reduce_plan` names it.

    Parameters
    ----------
    study : str
        Its name, or its file.
    gpu : Gpu
        What is predicted for.
    storage : str
        Storage URL.

    Raises
    ------
    InputError
        If there is no such study, it measured none, or it measured them on another kind of GPU.
    """
    store = StudyStore.load(named_study(study), storage)
    times = {plan: found for plan, found in store.all_reduce_times.items() if found}
    if not times:
        raise InputError(
            f"--all-reduces-of {study!r}: holds no measured all-reduces; a study that is run now has them"
            " where a plan of it has tensor_parallel above 1"
        )
    measured_on = gpu_of_study(store)
    if isinstance(measured_on, str):
        raise InputError(f"--all-reduces-of {study!r}: {measured_on}")
    if measured_on.name != gpu.name:
        raise InputError(
            f"--all-reduces-of {study!r}: measured on {measured_on.name}, and these predictions are for"
            f" {gpu.name}; give a study of that GPU, or leave it out for the packaged tables"
        )
    return times


def all_reduces_for(
    recipe: Recipe, study: str | None, gpu: Gpu, storage: str = DEFAULT_URL
) -> list[AllReduceTime] | None:
    """Those of the plan that a recipe has; ``None`` without a study or any need, for the packaged tables.

    Parameters
    ----------
    recipe : Recipe
        What is predicted.
    study, gpu, storage
        As for :func:`all_reduces_of`.

    Raises
    ------
    InputError
        As there, or where the study has none of this plan.
    """
    if study is None:
        return None
    times, plan = all_reduces_of(study, gpu, storage), all_reduce_plan(recipe)
    if recipe.tensor_parallel == 1:
        return None  # nothing is reduced
    if plan not in times:
        raise InputError(
            f"--all-reduces-of {study!r}: has those of {'; '.join(times)}, and {recipe.name} is {plan}; leave"
            " it out for the packaged tables"
        )
    return times[plan]
