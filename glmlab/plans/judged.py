"""JudgedPlan: a plan of a recipe on some GPUs: possible, or why not; and what it would be worth.

Nothing here decides by itself whether a plan is possible: the Recipe's own validation, what an engine
refuses (:mod:`glmlab.ranks.plan`), what a study skips (:mod:`glmlab.feasibility`), the rules
(:mod:`glmlab.rules`) and the memory (:mod:`glmlab.memory`) do, in this order, and the first that refuses
gives the reason.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from glmlab.all_reduce_time import AllReduceTime, all_reduce_plan
from glmlab.decode.measured_all_reduce import MeasuredAllReduce
from glmlab.decode.prediction import Prediction
from glmlab.errors import RecipeError
from glmlab.feasibility import blocked
from glmlab.gpus import Gpu
from glmlab.memory import Fit, fit
from glmlab.plans.remarks import remarks_on
from glmlab.plans.space import Plan
from glmlab.predictor import predicted
from glmlab.ranks.plan import check_plan
from glmlab.ranks.stages import pipeline_stages
from glmlab.recipe import Recipe
from glmlab.rules import check
from glmlab.workload import Workload

BlockedBy = Literal["plan", "rule", "memory"]


@dataclass(frozen=True)
class JudgedPlan:
    """A plan and what became of it.

    Attributes
    ----------
    plan : Plan
        What was asked.
    recipe : Recipe or None
        With this plan; None where there can be none.
    blocked : str or None
        Why it is not possible, in one line; None where it is.
    blocked_by : {"plan", "rule", "memory"} or None
        What refused: how the model is spread, a compatibility rule, or too little memory.
    fit : Fit or None
        Its memory; None where the plan itself is refused.
    prediction : Prediction or None
        Of a possible plan.
    warnings : tuple of str
        Ids of rules that warn of it.
    remarks : tuple of str
        What it costs or leaves, one line each.
    may_be_best : bool
        Whether some constants within their ranges would make it the fastest of all.
    """

    plan: Plan
    recipe: Recipe | None = None
    blocked: str | None = None
    blocked_by: BlockedBy | None = None
    fit: Fit | None = None
    prediction: Prediction | None = None
    warnings: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    may_be_best: bool = False
    unused_gpus: int = 0

    @property
    def tokens_per_s(self) -> float | None:
        """Over all points, as many steps at each; None where it is not possible."""
        return None if self.prediction is None else self.prediction.tokens_per_s

    @property
    def kv_tokens(self) -> int | None:
        """That its KV pool holds; None where it is not possible."""
        return None if self.prediction is None or self.fit is None else self.fit.kv_tokens

    def to_json(self) -> dict[str, Any]:
        """What ``glmlab plan --json`` prints of it."""
        rate, found = self.tokens_per_s, self.prediction
        short = self.fit.short_bytes / 1e9 if self.fit is not None and self.blocked_by == "memory" else None
        return {
            "plan": self.plan.label,
            **self.plan.fields,
            "gpus": self.plan.ranks,
            "unused_gpus": self.unused_gpus,
            "tokens_per_s": None if rate is None else round(rate, 4),
            "kv_tokens": self.kv_tokens,
            "longest_context": None if found is None or self.fit is None else self.fit.longest_context,
            "kv_bytes_per_token": None if self.fit is None else self.fit.pool.bytes_per_token,
            "blocked": self.blocked,
            "blocked_by": self.blocked_by,
            "short_gb": None if short is None else round(short, 3),
            "may_be_best": self.may_be_best,
            "remarks": list(self.remarks),
            "warnings": list(self.warnings),
            "points": [] if found is None else [point.to_json() for point in found.points],
        }


def judge(
    plan: Plan,
    base: Recipe,
    gpu: Gpu,
    count: int,
    *,
    workload: Workload,
    versions: Mapping[str, str] | None,
    all_reduces: Mapping[str, Sequence[AllReduceTime]] | None = None,
    together: bool = False,
) -> JudgedPlan:
    """Whether a plan is possible, and if so what is predicted of it.

    Parameters
    ----------
    plan : Plan
        What is asked.
    base : Recipe
        Everything else.
    gpu : Gpu
        Of which kind the GPUs are.
    count : int
        How many there are.
    workload : Workload
        Contexts and batch sizes that it is to be good for.
    versions : mapping or None
        Package -> version, as :func:`glmlab.rules.check` takes them.
    all_reduces : mapping, optional
        As :func:`glmlab.plans.ranking.plan` takes them.
    together : bool
        As for :func:`glmlab.predictor.predict`.
    """
    unused = count - plan.ranks
    try:
        # Each plan under the same name, so that a refusal is the same line wherever it is the same.
        recipe = base.replace(**plan.fields)
        found = fit(recipe, gpu, count)
        check_plan(recipe, found.model)
        pipeline_stages(recipe, found.model.layers)
    except RecipeError as error:
        reason = str(error).removeprefix(f"recipe {base.name}: ")
        return JudgedPlan(plan, blocked=reason, blocked_by="plan", unused_gpus=unused)
    if (reason_or_none := blocked(recipe, workload)) is not None:
        return JudgedPlan(plan, recipe, reason_or_none, "plan", found, unused_gpus=unused)
    findings = check(recipe, gpu, count, versions)
    for finding in findings:
        if finding.severity == "blocks":
            why = f"{finding.why} (rule {finding.id})"
            return JudgedPlan(plan, recipe, why, "rule", found, unused_gpus=unused)
    if found.reasons:
        return JudgedPlan(plan, recipe, found.reasons[0], "memory", found, unused_gpus=unused)
    times = None if all_reduces is None else all_reduces.get(all_reduce_plan(recipe), ())
    measured = None if times is None else MeasuredAllReduce.of(times)
    return JudgedPlan(
        plan,
        recipe,
        fit=found,
        prediction=predicted(found, workload.points, measured=measured, together=together),
        warnings=tuple(finding.id for finding in findings if finding.severity == "warns"),
        remarks=tuple(remarks_on(plan, found)),
        unused_gpus=unused,
    )
