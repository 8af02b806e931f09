"""Advice where something else than memory is in the way: too few GPUs, a context beyond the model's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from glmlab.footprint.advice_line import Advice, advice_of, attempt, said
from glmlab.memory import Fit


def enough_gpus(found: Fit) -> Iterator[Advice]:
    """The recipe as it is on as many GPUs as it has ranks, or what it needs on these.

    Parameters
    ----------
    found : Fit
        Of the recipe as it is.
    """
    where = f"on {found.ranks} GPUs"
    there = attempt(found, {}, found.ranks)
    if there is None:
        return
    if there.fits:
        yield advice_of(found, there, {}, f"the recipe as it is, {where}")
        return
    for each in there.advice:
        gpus = "" if each.gpus > found.ranks else f"{where}, "
        yield replace(each, what=f"{gpus}{each.what}")


def fewer_ranks(found: Fit) -> Iterator[Advice]:
    """Plans for the GPUs that are there: fewer replicas, then fewer stages, then fewer ranks of a layer.

    Parameters
    ----------
    found : Fit
        Of the recipe as it is.
    """
    recipe = found.recipe
    sizes = [size for size in found.model.tensor_parallel_choices if size < recipe.tensor_parallel]
    replicas = found.count // (found.ranks // recipe.data_parallel)
    plans: list[dict[str, Any]] = [{"data_parallel": replicas}] if replicas else []
    plans += [{"data_parallel": 1}, {"data_parallel": 1, "pipeline_parallel": 1}]
    plans += [plans[-1] | {"tensor_parallel": size} for size in sorted(sizes, reverse=True)]
    for plan in plans:
        changes = {field: value for field, value in plan.items() if getattr(recipe, field) != value}
        other = attempt(found, changes, found.count)
        if other is None or other.ranks > found.count:
            continue
        where = "the GPU that is there" if found.count == 1 else f"the {found.count} GPUs that are there"
        if other.fits:
            yield advice_of(found, other, changes, f"{said(changes)}, on {where}")
        return  # fewer ranks hold less


def within_model(found: Fit) -> Iterator[Advice]:
    """The model's own context in place of a longer one; where that is not enough, what it needs then.

    Parameters
    ----------
    found : Fit
        Of the recipe as it is.
    """
    shorter = {"max_model_len": found.model.max_model_len}
    there = attempt(found, shorter, found.count)
    if there is None:
        return
    what = f"{said(shorter)}, the model's own"
    if there.fits:
        yield advice_of(found, there, shorter, f"{what}, in place of {found.choices.max_model_len:,}")
        return
    already = found.short_bytes - there.short_bytes
    for each in there.advice:
        also = "" if "max_model_len" in each.changes else f"{what}, and "
        yield replace(
            each,
            what=f"{also}{each.what}",
            changes=shorter | each.changes,
            gain_bytes=already + each.gain_bytes,
        )
