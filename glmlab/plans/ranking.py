"""plan: all plans of a model or recipe on some GPUs, the fastest first, impossible ones with the reason."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from glmlab.all_reduce_time import AllReduceTime
from glmlab.decode.notes import KV_POOL, UNUSED
from glmlab.decode.prediction import TERMS
from glmlab.errors import InputError
from glmlab.gpus import Gpu, find_gpu
from glmlab.memory import check_count
from glmlab.plans.base import Base, base_of
from glmlab.plans.judged import JudgedPlan, judge
from glmlab.plans.space import every_plan, listed
from glmlab.predictor import BATCH_SIZES, CONTEXTS, checked_numbers, with_room
from glmlab.recipe import Recipe
from glmlab.rulebook.pins import newest_release
from glmlab.rules import Versions, versions_in_force
from glmlab.units import counted
from glmlab.workload import Workload

_NEW_TOKENS = 2  # the fewest that a Workload has; a context must leave room for them
_MOST_CONTEXT = 10**8
_MOST_BATCH = 10**4
_WAITS = "the KV cache is smaller than the largest point: of its sequences a part would wait"


@dataclass(frozen=True, repr=False)
class RankedPlans:
    """What :func:`plan` found.

    Attributes
    ----------
    base : Base
        What all plans have in common.
    gpu, count
        Of which kind the GPUs are, and how many.
    workload : Workload
        The points that plans are ranked by.
    versions : Versions
        What legality goes by.
    plans : tuple of JudgedPlan
        Possible ones first, the fastest first.
    notes : tuple of str
        What a reader must know of all of them.
    together : bool
        Whether all sequences start at once.
    """

    base: Base
    gpu: Gpu
    count: int
    workload: Workload
    versions: Versions
    plans: tuple[JudgedPlan, ...]
    notes: tuple[str, ...] = ()
    together: bool = False

    @property
    def possible(self) -> tuple[JudgedPlan, ...]:
        """Those that are not blocked, the fastest first."""
        return tuple(each for each in self.plans if each.blocked is None)

    @property
    def best(self) -> JudgedPlan | None:
        """The fastest; None where none is possible."""
        return next(iter(self.possible), None)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Ids of rules that warn of every possible plan."""
        lists = [each.warnings for each in self.possible]
        return tuple(rule for rule in lists[0] if all(rule in other for other in lists)) if lists else ()

    def to_json(self) -> dict[str, Any]:
        """What ``glmlab plan --json`` prints."""
        return {
            "evidence": "predicted",
            "recipe": self.base.recipe.name,
            "model": self.base.recipe.model,
            "max_model_len": self.base.recipe.max_model_len,
            "gpu": self.gpu.name,
            "count": self.count,
            "contexts": list(self.workload.contexts),
            "batch_sizes": list(self.workload.batch_sizes),
            "together": self.together,
            "versions": dict(self.versions),
            "possible": len(self.possible),
            "plans": [each.to_json() for each in self.plans],
            "recipes": list(self.base.recipes),
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        best = "none" if self.best is None else f"{self.best.plan.label} the fastest"
        return (
            f"RankedPlans({self.base.recipe.name} on {self.count} x {self.gpu.name}: {len(self.possible)} of"
            f" {counted(len(self.plans), 'plan')} possible, {best}, predicted)"
        )

    def _repr_html_(self) -> str:
        from glmlab.plans.tables import plans_html

        return plans_html(self)


def plan(
    model: str | Path | Recipe | Mapping[str, Any],
    gpu: Gpu | str,
    count: int,
    *,
    contexts: Iterable[int] = CONTEXTS,
    batch_sizes: Iterable[int] = BATCH_SIZES,
    versions: Mapping[str, str] | None = None,
    all_reduces: Mapping[str, Sequence[AllReduceTime]] | None = None,
    together: bool = False,
) -> RankedPlans:
    """Every plan of a model on some GPUs, ranked by what is predicted of it.

    Parameters
    ----------
    model : str, Path, Recipe or mapping
        A recipe, its name or file; or a model's name or folder, for which the engine chooses everything else.
    gpu : Gpu or str
        Of which kind the GPUs are, or its name.
    count : int
        How many of them.
    contexts, batch_sizes : iterable of int
        The points that plans are ranked by: output tokens a second over all of them, as many steps at each.
    versions : mapping, optional
        Package -> version, before the recipe's own and what is installed.
    all_reduces : mapping, optional
        What an engine of each plan measured, as a study keeps it (``store.all_reduce_times``): taken in place
        of the packaged tables.
    together : bool
        Whether all sequences start at once, as those of a study do; see :func:`glmlab.predict`.

    Raises
    ------
    InputError
        If there is no such model, recipe or GPU, or a number cannot be.
    """
    contexts = checked_numbers("contexts", contexts, least=1, most=_MOST_CONTEXT)
    batch_sizes = checked_numbers("batch_sizes", batch_sizes, least=1, most=_MOST_BATCH)
    check_count(count)
    gpu = find_gpu(gpu) if isinstance(gpu, str) else gpu
    base = base_of(model, contexts, batch_sizes)
    # A limit of this machine's CPUs says nothing of those GPUs.
    recipe = base.recipe.replace(cpu_threads=None) if base.recipe.cpu_threads else base.recipe
    kept, notes = _within(recipe, contexts)
    if (roomy := with_room(recipe, batch_sizes)) is not recipe:
        notes.append(
            f"max_num_seqs {roomy.max_num_seqs} in place of {recipe.max_num_seqs}, for the largest batch"
        )
        recipe = roomy
    notes += [base.note] if base.note else []
    workload = Workload(contexts=kept, batch_sizes=batch_sizes, new_tokens=_NEW_TOKENS, warmup_tokens=1)
    asked = _versions(recipe, versions, notes)
    judged = [
        judge(
            each,
            recipe,
            gpu,
            count,
            workload=workload,
            versions=asked,
            all_reduces=all_reduces,
            together=together,
        )
        for each in every_plan(count, shares_context=recipe.serving_engine == "vllm")
    ]
    possible = _marked(
        sorted(
            (each for each in judged if each.blocked is None),
            key=lambda each: (-(each.tokens_per_s or 0), each.plan.ranks),
        )
    )
    others = [each for each in judged if each.blocked is not None]
    return RankedPlans(
        base=base._replace(recipe=recipe),
        gpu=gpu,
        count=count,
        workload=workload,
        versions=versions_in_force(recipe, asked),
        plans=(*possible, *others),
        notes=(*notes, *_said_of_plans(possible)),
        together=together,
    )


def _said_of_plans(possible: Sequence[JudgedPlan]) -> Iterator[str]:
    """What must be known of predictions, once, with the plans that it is about where it is not all."""
    about: dict[str, list[str]] = {}
    for each in possible:
        for note in each.prediction.notes if each.prediction is not None else ():
            if not note.endswith(UNUSED):  # that is a remark on the plan
                # Each has another number, which the tables have, too.
                said = _WAITS if note.startswith(KV_POOL) else note
                about.setdefault(said, []).append(each.plan.label)
    for note, labels in about.items():
        others = [each.plan.label for each in possible if each.plan.label not in labels]
        named = listed(labels) if len(labels) <= len(others) else f"all but {listed(others)}"
        yield f"{named}: {note}" if others else note


def _versions(recipe: Recipe, given: Mapping[str, str] | None, notes: list[str]) -> Mapping[str, str] | None:
    """The versions that were given; where nobody says which engine, its newest release that was looked into.

    Rules speak only of versions that are known, so a plan for a machine to come would miss what each of them
    refuses.
    """
    engine = recipe.serving_engine
    newest = newest_release(engine)
    if newest is None or engine in versions_in_force(recipe, given):
        return given
    notes.append(f"no {engine} is installed or named: planned for {newest}; --{engine} names another version")
    return {**(given or {}), engine: newest}


def _within(recipe: Recipe, contexts: tuple[int, ...]) -> tuple[tuple[int, ...], list[str]]:
    """The contexts that the recipe's ``max_model_len`` leaves room for, and what is said of the others."""
    most = recipe.max_model_len
    if most is None:
        return contexts, []
    kept = tuple(context for context in contexts if context + _NEW_TOKENS <= most)
    if not kept:
        raise InputError(
            f"contexts: {min(contexts):,} and all others are beyond max_model_len {most:,} of {recipe.name}"
        )
    left = [f"{context:,}" for context in contexts if context not in kept]
    said = f"left out, beyond max_model_len {most:,}: a context of {', '.join(left)}" if left else ""
    return kept, [said] if said else []


def _marked(possible: Sequence[JudgedPlan]) -> list[JudgedPlan]:
    """Those marked that some constants within their ranges would make the fastest.

    The constants are the same for all plans, so two plans are compared at the same end of each term.
    """
    corners = [_at_corners(each) for each in possible]
    fastest = [min(times) for times in zip(*corners, strict=True)]
    return [
        replace(each, may_be_best=any(time <= best for time, best in zip(times, fastest, strict=True)))
        for each, times in zip(possible, corners, strict=True)
    ]


def _at_corners(judged: JudgedPlan) -> list[float]:
    """Time of all points with each term at one of its ends, or all at their values."""
    assert judged.prediction is not None
    sums = {
        term: tuple(sum(p.terms[term][end] for p in judged.prediction.points) for end in (0, 2))
        for term in TERMS
    }
    usual = sum(point.tpot_ms for point in judged.prediction.points)
    return [usual, *(sum(corner) for corner in itertools.product(*sums.values()))]
