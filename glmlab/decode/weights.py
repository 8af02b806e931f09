"""What a stage reads of its weights in one step, and how long that takes.

A step reads every dense weight of a rank once, whatever the batch: attention, feed-forward, shared experts,
router, norms, the head; of the embedding a row for each token, which is nothing. Of the routed experts it
reads those that a token chose. A quantized kv_b is counted beside the copy that MLA absorbs: at most 6 % of
attention's bytes too much.

Products are taken as limited by the memory. They are for batches up to some sixty sequences; beyond,
arithmetic begins to count and predictions are too low.
"""

from __future__ import annotations

from glmlab.decode.constants import Case
from glmlab.decode.experts import distinct_experts, fullest_rank
from glmlab.decode.setup import Setup

_NOT_DENSE = ("routed_experts", "embedding", "mtp")


def weights_ms(setup: Setup, stage: int, sequences: int, case: Case) -> float:
    """Milliseconds that a stage needs to read its weights.

    Parameters
    ----------
    setup : Setup
        What the prediction is about.
    stage : int
        Of the pipeline, from 0.
    sequences : int
        Of one replica, decoded together.
    case : {"best", "value", "worst"}
        Which end of the constants.
    """
    parts = setup.weights[stage].parts
    dense = sum(size for part, size in parts.items() if part not in _NOT_DENSE)
    if stage == len(setup.stages) - 1 and setup.shape.tie_word_embeddings:
        dense += parts["embedding"]
    experts = parts["routed_experts"] * expert_share(setup, sequences)
    constants = setup.constants
    seconds = dense / constants.dense_bandwidth_share.at(case)
    seconds += experts / constants.expert_bandwidth_share.at(case)
    return seconds / (setup.bandwidth_gb_s * 1e6)


def expert_share(setup: Setup, sequences: int) -> float:
    """Share of its routed experts' bytes that the slowest rank reads in a step.

    Parameters
    ----------
    setup : Setup
        What the prediction is about.
    sequences : int
        Of one replica; those of all replicas meet at the experts.
    """
    recipe, experts = setup.recipe, setup.shape.n_routed_experts
    hit = distinct_experts(experts, setup.shape.num_experts_per_tok, sequences * recipe.data_parallel)
    ranks = recipe.tensor_parallel * recipe.data_parallel
    if not recipe.expert_parallel:
        return hit / experts
    return fullest_rank(experts, hit, ranks) / -(-experts // ranks)
