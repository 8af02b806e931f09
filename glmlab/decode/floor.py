"""What a step takes whatever it reads: small kernels of each layer, and the host that must keep up."""

from __future__ import annotations

from glmlab.decode.attention import attention_floor_us
from glmlab.decode.constants import Case
from glmlab.decode.setup import Setup


def kernels_ms(setup: Setup, stage: int, sequences: int, case: Case) -> float:
    """Milliseconds of a stage that go with its layers alone: norms, rotary, routing, launches.

    Parameters
    ----------
    setup : Setup
        What the prediction is about.
    stage : int
        Of the pipeline, from 0.
    sequences : int
        Decoded together.
    case : {"best", "value", "worst"}
        Which end of the constants.
    """
    first, last = setup.stages[stage]
    layers = last - first
    with_experts = layers - max(0, min(last, setup.shape.first_k_dense_replace) - first)
    kind = "mla+dsa" if setup.sparse else "gqa" if setup.shape.attention == "gqa" else "mla"
    constants = setup.constants
    each = constants.layer_us[kind].at(case) + attention_floor_us(setup, sequences, case)  # type: ignore[index]
    return (layers * each + with_experts * constants.expert_layer_us.at(case)) / 1e3


def waiting_ms(setup: Setup, device_ms: float, steps: int, case: Case) -> float:
    """Milliseconds that the GPUs wait for the host, which prepares the next step while they work on this one.

    Parameters
    ----------
    setup : Setup
        What the prediction is about.
    device_ms : float
        What the GPUs need.
    steps : int
        Steps that the host prepares meanwhile: one, or one for each batch in a pipeline.
    case : {"best", "value", "worst"}
        Which end of the constants.
    """
    return max(0.0, steps * setup.constants.host_step_ms.at(case) - device_ms)
