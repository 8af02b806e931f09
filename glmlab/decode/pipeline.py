"""Pipeline stages: in series for one sequence, overlapping where several can be under way.

With ``P`` stages and ``b`` sequences up to ``min(P, b)`` batches are under way, each of its share of the
sequences, and a token of a sequence takes its batch once through all stages. That is what vLLM comes to
where sequences arrive one after the other. Those that start together stay together (async_scheduler.py of
0.32.0 keeps a sequence ``P`` steps apart from itself, but does not part a batch), and then each stage takes
all of them while the others wait: the ``worst`` case, and the only one where they are known to.
"""

from __future__ import annotations

from glmlab.decode.constants import Case
from glmlab.decode.setup import Setup

_TENSORS = 2  # hidden states and residual: IntermediateTensors of vLLM


def batches_under_way(setup: Setup, sequences: int, case: Case) -> int:
    """Into how many batches the sequences of a replica part."""
    together = setup.together or case == "worst"
    return 1 if together else min(setup.recipe.pipeline_parallel, sequences)


def pipeline_ms(setup: Setup, stage_ms: list[float], sequences: int, batches: int, case: Case) -> float:
    """Milliseconds that a token takes longer for going through stages: hops, the slowest stage, the host.

    Parameters
    ----------
    setup : Setup
        What the prediction is about.
    stage_ms : list of float
        What each stage takes for one batch.
    sequences : int
        Of one batch.
    batches : int
        Under way.
    case : {"best", "value", "worst"}
        Which end of the constants.
    """
    stages = len(stage_ms)
    if stages == 1:
        return 0.0
    slower = max(0.0, batches * max(stage_ms) - sum(stage_ms))  # all wait for the slowest where each has work
    hops = stages * setup.constants.hop_us.of(setup.gpu.link).at(
        case
    )  # the last sends its tokens to the first
    return (stages - 1) * _transfer_ms(setup, sequences, case) + hops / 1e3 + slower + _host_ms(setup, case)


def _transfer_ms(setup: Setup, sequences: int, case: Case) -> float:
    """Of one batch from stage to stage: each rank sends its part, and the next stage gathers them."""
    tensor, link = setup.recipe.tensor_parallel, setup.gpu.link
    size = sequences * setup.hidden_bytes * _TENSORS
    gathered = setup.all_reduce_ms(tensor, size / _TENSORS / 2, case)
    wire = size / tensor / (setup.constants.link_gb_s.of(link).at(case) * 1e6)
    return wire + _TENSORS * gathered


def _host_ms(setup: Setup, case: Case) -> float:
    return setup.constants.pipeline_host_ms.at(case)
