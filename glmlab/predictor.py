"""predict: how long decode steps of a recipe take on some GPUs, before anything is bought or started.

From first principles and the facts of the catalog: the bytes of weights and KV that each rank must read,
over the memory's bandwidth; what ranks and stages send each other; what small kernels and the host take in
any case (:mod:`glmlab.decode`). Its constants are data with sources, each with the ends of what it may be,
and all ends together make the range of a prediction. ``benchmarks/predict_against_measured.py`` holds it
against what was measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from glmlab.all_reduce_time import AllReduceTime
from glmlab.decode.constants import constants
from glmlab.decode.measured_all_reduce import MeasuredAllReduce
from glmlab.decode.notes import notes_on
from glmlab.decode.prediction import Prediction, predict_point
from glmlab.decode.setup import Setup
from glmlab.errors import InputError
from glmlab.footprint.reasons import sizes_text
from glmlab.gpus import Gpu
from glmlab.memory import Fit, fit
from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe

CONTEXTS = (256, 4096, 16384, 150_000)  # those of the published table for GLM-5.1 REAP-160
BATCH_SIZES = (1,)
_MOST_TOKENS = 10**8
_MOST_SEQUENCES = 10**5


def predict(
    recipe: Recipe | str | Path | Mapping[str, Any],
    gpu: Gpu | str,
    count: int | None = None,
    *,
    contexts: Iterable[int] = CONTEXTS,
    batch_sizes: Iterable[int] = BATCH_SIZES,
    all_reduce: Iterable[AllReduceTime] | None = None,
    together: bool = False,
    points: Iterable[tuple[int, int]] | None = None,
) -> Prediction:
    """Decode steps of a recipe, each context with each batch size.

    Parameters
    ----------
    recipe : Recipe, str, Path or mapping
        What is to run, the name of one, a file, or its keys and values.
    gpu : Gpu or str
        Of which kind the GPUs are, or its name.
    count : int, optional
        How many there are; as many as the recipe has ranks by default.
    contexts : iterable of int
        Tokens that each sequence has when the step begins; 0 for none.
    batch_sizes : iterable of int
        Sequences decoded together, over all replicas.
    all_reduce : iterable of AllReduceTime, optional
        All-reduces as an engine of this plan measured them, such as a study's
        ``store.all_reduce_times["tensor_parallel=2"]``. They take the place of the packaged tables for the
        ranks and sizes that they have; the notes say so.
    together : bool
        Whether all sequences start at once, as those of a workload do: then they stay together, and the
        stages of a pipeline take turns with all of them.
    points : iterable of (int, int), optional
        Contexts and batch sizes in pairs, such as ``Workload.points``, in place of each with each.

    Raises
    ------
    InputError
        If there is no such recipe or GPU, there are fewer GPUs than ranks, a context or batch size cannot
        be, the engine refuses the plan, or an all-reduce is there twice.
    """
    pairs = None if points is None else _pairs(points)
    if pairs is not None:
        contexts, batch_sizes = ({pair[place] for pair in pairs} for place in (0, 1))
    contexts = checked_numbers("contexts", contexts, least=0, most=_MOST_TOKENS)
    batch_sizes = checked_numbers("batch_sizes", batch_sizes, least=1, most=_MOST_SEQUENCES)
    measured = None if all_reduce is None else MeasuredAllReduce.of(all_reduce)
    asked = find_recipe(recipe)
    found = fit(with_room(asked, batch_sizes), gpu, count)
    if found.ranks > found.count:
        raise InputError(
            f"count = {found.count}: {found.recipe.name} has {found.ranks} ranks"
            f" ({sizes_text(found.recipe)}); glmlab plan lists what fewer GPUs can do"
        )
    pairs = list(itertools.product(contexts, batch_sizes)) if pairs is None else pairs
    return predicted(found, pairs, asked, measured, together=together)


def _pairs(points: Iterable[Any]) -> list[tuple[int, int]]:
    found = list(points)
    for point in found:
        if not isinstance(point, tuple | list) or len(point) != 2:
            raise InputError(f"points: {point!r} is no pair of a context and a batch size, such as (4096, 8)")
    return sorted({(context, batch) for context, batch in found})


def with_room(recipe: Recipe, batch_sizes: Iterable[int]) -> Recipe:
    """The recipe with limits that let the largest batch run at once.

    Parameters
    ----------
    recipe : Recipe
        As it is.
    batch_sizes : iterable of int
        Over all replicas.
    """
    most = -(-max(batch_sizes) // recipe.data_parallel)
    if most <= recipe.max_num_seqs:
        return recipe
    changes: dict[str, Any] = {"max_num_seqs": most}
    if recipe.max_num_batched_tokens is not None and recipe.max_num_batched_tokens < most:
        changes["max_num_batched_tokens"] = most
    return recipe.replace(**changes)


def predicted(
    found: Fit,
    pairs: Sequence[tuple[int, int]],
    asked: Recipe | None = None,
    measured: MeasuredAllReduce | None = None,
    *,
    together: bool = False,
) -> Prediction:
    """The prediction for a recipe whose memory is computed already.

    Parameters
    ----------
    found : Fit
        Of the recipe.
    pairs : sequence of (int, int)
        Contexts and batch sizes, checked.
    asked : Recipe, optional
        The recipe before :func:`with_room`.
    measured : MeasuredAllReduce, optional
        In place of packaged tables.
    together : bool
        As for :func:`predict`.
    """
    setup = Setup(found.recipe, found.model, found.gpu, found.choices, constants(), measured, together)
    points = tuple(predict_point(setup, context, batch) for context, batch in pairs)
    notes = tuple(notes_on(setup, found, pairs, asked or found.recipe))
    return Prediction(setup, found.count, points, notes)


def checked_numbers(name: str, numbers: Iterable[int] | int, *, least: int, most: int) -> tuple[int, ...]:
    """Whole numbers within bounds, each once, in ascending order.

    Raises
    ------
    InputError
        With what is allowed.
    """
    found = (numbers,) if isinstance(numbers, int) else tuple(numbers)
    if not found:
        raise InputError(f"{name}: is empty; give at least one number")
    for number in found:
        if type(number) is not int or not least <= number <= most:
            raise InputError(f"{name} = {number!r}: expected whole numbers from {least} to {most:,}")
    return tuple(sorted(set(found)))


def parse_numbers(option: str, text: str) -> tuple[int, ...]:
    """Read whole numbers as people type them on a command line: ``256,4096``.

    Raises
    ------
    InputError
        If the text is anything else.
    """
    parts = [part.strip().replace("_", "") for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise InputError(
            f"{option} = {text!r}: expected whole numbers with commas between them, such as 256,4096"
        )
    return tuple(int(part) for part in parts)
