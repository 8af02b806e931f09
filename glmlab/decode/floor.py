"""What a step takes whatever it reads: small kernels of each layer, and the host that must keep up."""

from __future__ import annotations

from glmlab.decode.attention import attention_floor_us
from glmlab.decode.constants import Case
from glmlab.decode.setup import Setup
from glmlab.models.weight_table import Part
from glmlab.ranks.weights import recipe_layout

_QUANTIZING = ("fp8", "nvfp4", "mxfp4", "int8")  # formats whose kernels quantize activations, too


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
    quantized = constants.quantized_matrix_us.of(setup.recipe.linear_backend).at(case)
    products = _quantized_products(setup, layers, with_experts)
    return (layers * each + with_experts * constants.expert_layer_us.at(case) + products * quantized) / 1e3


def _quantized_products(setup: Setup, layers: int, with_experts: int) -> int:
    """Products with dense matrices whose inputs have to be quantized, as vLLM fuses them.

    Queries, keys and values are one product, MLA's two down-projections, too, and so are gate and up; kv_b is
    absorbed, in 16 bits.
    """
    layout, shape = recipe_layout(setup.recipe, setup.model), setup.shape
    counted: list[tuple[Part, int]] = [
        ("attention", layers * (2 if shape.attention == "gqa" else 3)),
        ("indexer", layers * 2 if setup.sparse else 0),
        ("dense_ffn", (layers - with_experts) * 2),
        ("shared_experts", with_experts * 2 if shape.n_shared_experts else 0),
    ]
    return sum(
        number
        for part, number in counted
        if any(name.startswith(_QUANTIZING) for name, _, _ in layout.mix(part).formats)
    )


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
