"""In which order a study tries its plans: the fastest as predicted first, where anything is predicted."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from glmlab.gpus import Gpu
from glmlab.knobs import KnobSpace, Params, params_key
from glmlab.plans.measured_on import gpu_of_study
from glmlab.plans.study_plans import differing, plan_label
from glmlab.predictor import predict
from glmlab.recipe import Recipe
from glmlab.storage import StudyStore
from glmlab.study_spec import StudySpec
from glmlab.workload import Workload

_MOST_POINTS = 512  # of a space that is listed; each plan takes some milliseconds
_MOST_TOLD = 6


@dataclass(frozen=True)
class PredictedOrder:
    """What is predicted of the plans of a study, before they are tried.

    Attributes
    ----------
    gpu : str
        What was predicted for.
    labels : tuple of str
        The plans in their order.
    tpot_ms : dict
        Plan, as :func:`glmlab.knobs.params_key` writes it -> weighted milliseconds per output token over the
        workload, with the baseline's live knobs.
    """

    gpu: str
    labels: tuple[str, ...]
    tpot_ms: dict[str, float]

    @property
    def sentence(self) -> str:
        """The order in one line."""
        more = f" and {len(self.labels) - _MOST_TOLD} more" if len(self.labels) > _MOST_TOLD else ""
        labels = ", ".join(self.labels[:_MOST_TOLD])
        return f"after the baseline's, plans are tried as predicted for {self.gpu}: {labels}{more}"


def predicted_order(
    store: StudyStore, spec: StudySpec, space: KnobSpace, baseline: Params
) -> PredictedOrder | None:
    """The order; ``None`` where it is none: nothing to predict for, or the same time for all.

    It is by the packaged all-reduce tables: what a study measures does not change it, so that an interrupted
    one goes on as it would have.

    Parameters
    ----------
    store : StudyStore
        Has the GPU of this run.
    spec : StudySpec
        The study.
    space : KnobSpace
        With the baseline in it.
    baseline : dict
        Resolved values of all knobs.
    """
    gpu = gpu_of_study(store)
    if isinstance(gpu, str) or not space.rebuild or space.upper_count > _MOST_POINTS:
        return None
    plans = {params_key(plan): plan for plan in map(space.plan, space.grid())}
    work = spec.effective_workload
    tpot_ms: dict[str, float] = {}
    for key, plan in plans.items():
        # An order must not cost a study: what cannot be predicted comes last, and its trial says why.
        with contextlib.suppress(Exception):
            tpot_ms[key] = _weighted_ms(spec.recipe_at(plan, baseline), gpu, work)
    if len(set(tpot_ms.values())) < 2:
        return None
    told = differing([*plans.values()])
    order = sorted(tpot_ms, key=lambda key: tpot_ms[key])
    return PredictedOrder(
        gpu.name, tuple(plan_label(spec, plans[key], baseline, told) for key in order), tpot_ms
    )


def _weighted_ms(recipe: Recipe, gpu: Gpu, work: Workload) -> float:
    found = predict(recipe, gpu, points=work.points, together=True)
    weights = [work.weight(point.context) for point in found.points]
    return sum(p.tpot_ms * weight for p, weight in zip(found.points, weights, strict=True)) / sum(weights)
