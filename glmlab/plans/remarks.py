"""What a possible plan costs or leaves: KV held more than once, stages that wait, unused GPUs."""

from __future__ import annotations

from collections.abc import Iterator

from glmlab.decode.experts import fullest_rank
from glmlab.footprint.part import GB
from glmlab.memory import Fit
from glmlab.models.shape import GqaShape
from glmlab.plans.space import Plan
from glmlab.ranks.stages import pipeline_stages
from glmlab.units import counted


def remarks_on(plan: Plan, found: Fit) -> Iterator[str]:
    """One line each.

    Parameters
    ----------
    plan : Plan
        The plan.
    found : Fit
        Of a recipe with it, which fits.
    """
    yield from _of_kv(plan, found)
    yield from _of_experts(plan, found)
    yield from _of_stages(plan, found)
    if plan.data_parallel > 1:
        yield (
            f"{plan.data_parallel} replicas: a single sequence gains nothing, and glmlab's engine runs one,"
            " so a study leaves this plan out"
        )
    unused = found.count - plan.ranks
    if unused:
        yield f"{counted(unused, 'GPU')} of {found.count} unused"
    if found.is_close:
        yield f"memory is close: its parts are known to ± {found.plus_minus_bytes / GB:.1f} GB a GPU"


def _of_kv(plan: Plan, found: Fit) -> Iterator[str]:
    tensor, shared = plan.tensor_parallel, plan.decode_context_parallel
    each = found.pool.bytes_per_token
    if tensor == 1:
        return
    shape = found.model.shape
    if isinstance(shape, GqaShape):
        copies, what = (
            max(1, tensor // shape.num_key_value_heads),
            f"each of {shape.num_key_value_heads} KV heads",
        )
    else:
        copies, what = tensor, "the MLA latent"
    copies //= shared
    if copies > 1:
        where = f"the {tensor} ranks" + (" of a stage" if plan.pipeline_parallel > 1 else "")
        yield (
            f"{what} lies on {copies} ranks: a token takes {each * tensor:,} B of KV over {where}, of which"
            f" {each * tensor // copies:,} would do"
        )
    if shared > 1:
        yield f"{shared} ranks share each sequence's KV, for three more collectives in each layer"


def _of_experts(plan: Plan, found: Fit) -> Iterator[str]:
    ranks, shape = plan.tensor_parallel * plan.data_parallel, found.model.shape
    if not plan.expert_parallel:
        return
    top_k = shape.num_experts_per_tok
    most = fullest_rank(shape.n_routed_experts, top_k, ranks)
    yield (
        f"of the {top_k} experts of a token the fullest of {ranks} ranks reads {most:.1f} on average; slices"
        f" of all are as much as {top_k / ranks:.3g}"
    )
    if shape.n_routed_experts % ranks:
        yield f"{shape.n_routed_experts} experts do not divide by {ranks} ranks: some have one more"


def _of_stages(plan: Plan, found: Fit) -> Iterator[str]:
    stages = plan.pipeline_parallel
    if stages == 1:
        return
    lengths = [last - first for first, last in pipeline_stages(found.recipe, found.model.layers)]
    unequal = f", of {min(lengths)} to {max(lengths)} layers" if len(set(lengths)) > 1 else ""
    yield f"{stages} stages{unequal}: one sequence passes them one after the other, several overlap"
