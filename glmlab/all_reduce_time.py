"""AllReduceTime: what ranks pay to add up their parts, as an engine measured it."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from glmlab.recipe import Recipe

_DECIDING = ("NCCL_", "VLLM_ALLREDUCE_", "VLLM_DISABLE_PYNCCL")  # variables that choose a path, or slow it


class AllReduceTime(BaseModel):
    """One path at one size; of several ranks the slowest counts.

    Attributes
    ----------
    path : str
        ``vllm``: its own choice, as a decode step makes it; ``nccl``, ``custom``: that path alone.
    bytes : int
        Of one rank's part; a decode step sends batch x hidden size x 2.
    ranks : int
        That take part.
    right : bool
        Whether the sums were.
    wall_us : float
        Median time of one call, waited for; its launch included, which a CUDA graph saves.
    device_us : float or None
        Of one of many calls in a CUDA graph, as decode steps make them; ``None`` on a CPU.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)  # stored with a study

    path: str
    bytes: int
    ranks: int
    right: bool
    wall_us: float
    device_us: float | None


def slowest(by_rank: list[list[AllReduceTime]]) -> list[AllReduceTime]:
    """The ranks' answers as one: a step waits for the slowest, and one wrong sum is one too many.

    Parameters
    ----------
    by_rank : list of list of AllReduceTime
        One list per rank, in the same order of paths and sizes.
    """
    found = []
    for same in zip(*by_rank, strict=True):
        worst = max(same, key=lambda time: time.device_us if time.device_us is not None else time.wall_us)
        found.append(worst.model_copy(update={"right": all(time.right for time in same)}))
    return found


def all_reduce_plan(recipe: Recipe) -> str:
    """What of a recipe decides between paths, as studies name it: e.g. ``tensor_parallel=2``.

    Parameters
    ----------
    recipe : Recipe
        Of the engine.
    """
    plan = f"tensor_parallel={recipe.tensor_parallel}"
    if recipe.custom_all_reduce is not None:
        plan += f", custom_all_reduce={str(recipe.custom_all_reduce).lower()}"
    deciding = (name for name in sorted(recipe.env) if name.startswith(_DECIDING))
    return ", ".join([plan, *(f"{name}={recipe.env[name]}" for name in deciding)])
