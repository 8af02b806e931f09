"""Which GPUs a recipe is judged for: those that were named, or this machine's own."""

from __future__ import annotations

from collections import Counter
from typing import Any

from glmlab.errors import InputError
from glmlab.gpus import Gpu, find_gpu, gpu_of_device, list_gpus
from glmlab.hardware import machine
from glmlab.recipe import Recipe


def fit_target(
    recipe: Recipe, name: str | None = None, count: int | None = None, nvml: Any = None
) -> tuple[Gpu, int]:
    """The kind of GPU and how many of them.

    Parameters
    ----------
    recipe : Recipe
        What is judged.
    name : str, optional
        A GPU of the catalog; by default what most of this machine's GPUs are.
    count : int, optional
        How many; by default as many as this machine has, or, of a GPU that was named, as the recipe uses.
    nvml : module, optional
        Stands in for ``pynvml``.

    Raises
    ------
    InputError
        For an unknown GPU, or where none was named and this machine has none that is known.
    """
    if name is not None:
        return find_gpu(name), recipe.ranks if count is None else count
    allowed = ", ".join(list_gpus())
    found = machine(nvml)
    if not found.gpus:
        raise InputError(f"--gpu: not given, and {found.gpu_note}; name one of {allowed}")
    known = [gpu for device in found.gpus if (gpu := gpu_of_device(device)) is not None]
    if not known:
        names = ", ".join(dict.fromkeys(device.name for device in found.gpus))
        raise InputError(f"--gpu: not given, and the catalog has no {names}; name one of {allowed}")
    kind, present = Counter(gpu.name for gpu in known).most_common(1)[0]
    # Of several alike the one with the least memory decides, since every rank must fit.
    smallest = min((gpu for gpu in known if gpu.name == kind), key=lambda gpu: gpu.usable_memory_bytes)
    return smallest, present if count is None else count
