"""Where a recipe is checked for: the GPUs that were named, this machine's, or none with a note."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glmlab.errors import InputError
from glmlab.footprint.target import fit_target
from glmlab.gpus import Gpu, gpu_of_device
from glmlab.hardware import machine
from glmlab.recipe import Recipe


@dataclass(frozen=True)
class CheckTarget:
    """What the rules are to go by.

    Attributes
    ----------
    gpu : Gpu or None
        None where no GPU was named and this machine has none that is known.
    note : str
        Why there is none, empty otherwise.
    """

    gpu: Gpu | None
    count: int
    note: str = ""


def check_target(
    recipe: Recipe, name: str | None = None, count: int | None = None, nvml: Any = None
) -> CheckTarget:
    """The GPUs to check for.

    Parameters
    ----------
    recipe : Recipe
        What is judged.
    name : str, optional
        A GPU of the catalog; by default this machine's own.
    count : int, optional
        How many; as for :func:`glmlab.footprint.target.fit_target`.
    nvml : module, optional
        Stands in for ``pynvml``.

    Raises
    ------
    InputError
        For an unknown GPU, or a count that cannot be.
    """
    if count is not None and count < 1:
        raise InputError(f"--count = {count}: expected a number of GPUs, 1 or more")
    if name is not None:
        return CheckTarget(*fit_target(recipe, name, count))
    found = machine(nvml)
    if any(gpu_of_device(device) is not None for device in found.gpus):
        return CheckTarget(*fit_target(recipe, None, count, nvml))
    names = ", ".join(dict.fromkeys(device.name for device in found.gpus))
    why = f"the catalog has no {names}" if names else found.gpu_note
    return CheckTarget(None, 1, f"{why}: rules that need to know the GPU were left out; name one with --gpu")
