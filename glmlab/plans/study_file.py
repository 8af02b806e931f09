"""A study of plans: what is possible as ``space.plans``, with what is live in each of them inside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from glmlab.catalog import find_model
from glmlab.errors import InputError
from glmlab.footprint.engine_choices import chosen_attention
from glmlab.memory import fit
from glmlab.models.shape import DsaShape, GqaShape
from glmlab.plans.judged import JudgedPlan
from glmlab.plans.ranking import RankedPlans
from glmlab.plans.space import Plan
from glmlab.predictor import predicted
from glmlab.recipe import Recipe
from glmlab.study_spec import StudySpec
from glmlab.workload import Workload
from glmlab.yaml_text import dump_yaml

_SPLITS = {"TRITON_ATTN": (16, 32, 64, 128, 256), "TRITON_MLA": (0, 16, 32, 64, 128)}
_KNOBS = ("tensor_parallel", "pipeline_parallel", "expert_parallel", "decode_context_parallel")
_NEW_TOKENS = 32
_MOST_TRIALS = 60
_SUFFIXES = (".yaml", ".yml")


def write_study(found: RankedPlans, path: Path) -> Path:
    """Write a study of the possible plans.

    Raises
    ------
    InputError
        If no plan is possible, the file is there already or cannot be written, or is not named as a study
        file.
    """
    if path.suffix not in _SUFFIXES:
        raise InputError(f"--study {path}: expected a name that ends in {' or '.join(_SUFFIXES)}")
    text = study_text(found)
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise InputError(f"--study {path}: exists already; name a new file") from None
    except OSError as error:
        raise InputError(f"--study {path}: cannot be written ({error.strerror})") from None
    return path


def study_text(found: RankedPlans) -> str:
    """A study file of the possible plans, the fastest as predicted first.

    Plans with replicas are left out: glmlab's own engine runs one.

    Raises
    ------
    InputError
        If there is no such plan.
    """
    singles = [_as_run(each, found) for each in found.possible if each.plan.data_parallel == 1]
    if not singles:
        raise InputError(
            f"--study: no plan of {found.base.recipe.name} is possible on {found.count} x {found.gpu.name}"
            " with one"
            " replica; glmlab plan says why"
        )
    work = _workload(found, singles)
    plans = sorted((_as_measured(each, work) for each in singles), key=lambda each: -(each.tokens_per_s or 0))
    recipe = _recipe(found, plans)
    splits, why_none = _splits(recipe, found)
    inside = f"  kv_splits: {list(splits)}  # live" if splits else f"  # {why_none}"
    trials = min(len(plans) * max(1, len(splits)), _MOST_TRIALS)
    text = (
        "\n".join([*_lines(found, work, plans, recipe, inside), f"budget: {{trials: {trials}}}", "seed: 0"])
        + "\n"
    )
    StudySpec.parse_text(text, "the study")  # what is written can be run
    return text


def _lines(
    found: RankedPlans, work: Workload, plans: list[JudgedPlan], recipe: Recipe, inside: str
) -> Iterator[str]:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{recipe.name}-plans-{found.count}x-{found.gpu.name}")[:100]
    where = f"{found.count} x {found.gpu.name}"
    yield f"# Plans of {recipe.name} on {where}: those that fit and that no rule forbids,"
    yield "# the fastest as predicted first, all sequences of a point starting together. Each is an engine of"
    yield "# its own; what is live is changed within it."
    yield f"study: {name}"
    yield "recipe:"
    body = recipe.model_dump(mode="json", exclude_defaults=True)
    yield from (f"  {line}".rstrip() for line in dump_yaml(body).splitlines())
    if find_model(recipe.model).on_hub:
        yield "  # loaded from the hub by this name; put the folder of a downloaded checkpoint in its place"
    if recipe.attention_backend != found.base.recipe.attention_backend:
        yield f"  # {recipe.attention_backend} is named, since kv_splits acts there"
    yield "engine: vllm"
    yield "home: child"
    limit = "" if work.most_tokens is None else f", most_tokens: {work.most_tokens}"
    yield (
        f"workload: {{contexts: {list(work.contexts)}, batch_sizes: {list(work.batch_sizes)}, new_tokens:"
        f" {work.new_tokens}, warmup_tokens: {work.warmup_tokens}, seed: {work.seed}{limit}}}"
    )
    yield "space:"
    yield "  plans:  # tokens/s as predicted over all points, with its range; to be measured"
    width = max(len(_written(each.plan, plans, recipe)) for each in plans)
    for each in plans:
        yield f"    - {_written(each.plan, plans, recipe):<{width}}  # {_rate(each)}"
    yield inside
    yield "objective: tpot_ms  # wall time: what a rank waits for others is in no kernel of its own"


def _workload(found: RankedPlans, plans: list[JudgedPlan]) -> Workload:
    """What is measured of all plans; with a limit where the KV cache of one does not hold all points.

    Sequences that wait for room would tell plans apart by it. Each context and each batch size keeps a point.
    """
    longest = max(found.workload.contexts)
    room = (found.base.recipe.max_model_len or longest + _NEW_TOKENS) - longest
    tokens = {"new_tokens": max(2, min(_NEW_TOKENS, room)), "warmup_tokens": 2}
    work = found.workload.model_copy(update=tokens)
    fits = min((each.kv_tokens for each in plans if each.kv_tokens is not None), default=0)
    least = max(
        *(work.tokens(context, min(work.batch_sizes)) for context in work.contexts),
        *(work.tokens(min(work.contexts), batch) for batch in work.batch_sizes),
    )
    limit = max(fits, least)
    if max(work.tokens(*point) for point in work.points) <= limit:
        return work
    return work.model_copy(update={"most_tokens": limit})


def _as_run(each: JudgedPlan, found: RankedPlans) -> JudgedPlan:
    """A plan with the attention that the study names."""
    assert each.recipe is not None
    if not (changes := _attention(found)):
        return each
    recipe = each.recipe.replace(**changes)
    return replace(each, recipe=recipe, fit=fit(recipe, found.gpu, found.count))


def _attention(found: RankedPlans) -> dict[str, str]:
    """Of a model, for which the engine would choose: one that has ``kv_splits``."""
    is_gqa = isinstance(find_model(found.base.recipe.model).shape, GqaShape)
    return {"attention_backend": "TRITON_ATTN"} if found.base.of_model and is_gqa else {}


def _as_measured(each: JudgedPlan, work: Workload) -> JudgedPlan:
    """A plan with what is predicted of just these points, whose sequences all start at once."""
    assert each.prediction is not None
    assert each.fit is not None
    again = predicted(each.fit, work.points, measured=each.prediction.setup.measured, together=True)
    return replace(each, prediction=again)


def _recipe(found: RankedPlans, plans: list[JudgedPlan]) -> Recipe:
    """The baseline: the recipe as it is where its own plan is possible, else with the first."""
    base = found.base.recipe
    changes: dict[str, Any] = {}
    own = Plan(
        base.tensor_parallel, base.pipeline_parallel, base.data_parallel, base.expert_parallel,
        base.decode_context_parallel,
    )  # fmt: skip
    if found.base.of_model or own not in [each.plan for each in plans]:
        changes |= {**plans[0].plan.fields, "notes": ""}  # a recipe's notes are on its own plan
    model = find_model(base.model)
    if model.path is None or model.facts.hub:  # the catalog has sizes, and no weights
        changes |= {"model": model.facts.hub[0]} if model.facts.hub and not model.on_hub else {}
    if found.base.of_model and base.model.startswith("tiny/"):
        changes["weights"] = "random"
    changes |= _attention(found)
    return base.replace(**changes) if changes else base


def _splits(recipe: Recipe, found: RankedPlans) -> tuple[tuple[int, ...], str]:
    """Values of ``kv_splits``; where there are none, why."""
    model = find_model(recipe.model)
    backend = chosen_attention(recipe, model, found.gpu)
    splits = _SPLITS.get(backend, ())
    if splits and recipe.serving_engine == "vllm":
        own = () if recipe.kv_splits is None or recipe.kv_splits in splits else (recipe.kv_splits,)
        return tuple(sorted((*splits, *own))), ""
    if isinstance(model.shape, DsaShape) and not recipe.dense_mla:
        return (), "no kv_splits: sparse attention takes none; dense_mla: true is the path that does"
    return (), f"no kv_splits: {backend} takes none; attention_backend: TRITON_ATTN or TRITON_MLA does"


def _written(plan: Plan, plans: list[JudgedPlan], recipe: Recipe) -> str:
    """One plan with every knob that differs between plans, or from the recipe."""
    told = [
        name
        for name in _KNOBS
        if any(each.plan.fields[name] != getattr(recipe, name) for each in plans) or name == _KNOBS[0]
    ]
    fields = {name: plan.fields[name] for name in told}
    return "{" + ", ".join(f"{name}: {str(value).lower()}" for name, value in fields.items()) + "}"


def _rate(each: JudgedPlan) -> str:
    assert each.prediction is not None
    points = each.prediction.points
    batch = sum(point.batch for point in points) * 1e3
    low, high = (batch / sum(getattr(point.tpot, end) for point in points) for end in ("high", "low"))
    return f"{each.tokens_per_s:.1f} ({low:.1f} to {high:.1f})"
