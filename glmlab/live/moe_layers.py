"""Which kernel the mixture-of-experts layers of a model run, and what decides its tiles.

Every such layer holds a quantization method, that a modular kernel, and that the *experts*: the class
that launches the GEMMs. Those of the classes in :data:`READERS` ask vLLM's tile tables. Read in vLLM
0.26 and 0.32: model_executor/layers/fused_moe/ (fused_moe.py, experts/, oracle/).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

# Class of experts -> the Triton kernel that it launches with a tile from the table.
READERS = {
    "TritonExperts": "fused_moe_kernel",
    "Int4EmulationTritonExperts": "fused_moe_kernel",
    "Mxfp8EmulationTritonExperts": "fused_moe_kernel",
    "TritonWNA16Experts": "fused_moe_kernel_gptq_awq",
    "BatchedTritonExperts": "batched_triton_kernel",
    "Nvfp4QuantizationEmulationTritonExperts": "fused_moe_nvfp4_emulation_kernel",
}
_W2_NAMES = ("w2_weight", "w2_weight_packed", "w2_qweight")
_W13_NAMES = ("w13_weight", "w13_weight_packed", "w13_qweight")

Lookup = tuple[int, int, str | None, int, int]  # experts, N, dtype, block n, block k


@dataclass(frozen=True)
class MoeLayer:
    """What matters of one layer whose experts read tiles; equal layers are equal.

    Parameters
    ----------
    kernel : str
        That the experts launch.
    lookup : tuple
        Arguments with which they ask for tiles, as ``try_get_optimal_moe_config`` forms them.
    gemms : tuple
        (N, K) of the two products.
    a_bytes, b_bytes : float
        Bytes of one number of the activations and of the weights, as the kernel loads them.
    dtype_name : str
        Of the weights, as torch writes it.
    """

    kernel: str
    lookup: Lookup
    gemms: tuple[tuple[int, int], tuple[int, int]]
    a_bytes: float
    b_bytes: float
    dtype_name: str

    @property
    def block_shape(self) -> tuple[int, int] | None:
        """Quantization blocks (n, k) of the weights."""
        block_n, block_k = self.lookup[3:]
        return (block_n, block_k) if block_n and block_k else None


@dataclass(frozen=True)
class MoeLayers:
    """The mixture layers of one worker.

    Parameters
    ----------
    readers : tuple of MoeLayer
        Those that read tiles, each kind once.
    why : str
        Why none does; else what to know of those that do not.
    """

    readers: tuple[MoeLayer, ...]
    why: str


def moe_layers(worker: Any) -> MoeLayers:
    """Look at every mixture layer of the worker's model, and of its drafter."""
    readers: dict[MoeLayer, None] = {}
    reasons: dict[str, None] = {}
    found = 0
    for module in _mixtures(worker):
        found += 1
        experts, name, reason = _experts(module)
        if reason:
            reasons[reason] = None
        if experts is not None and name in READERS:
            readers[_layer(module, experts, name)] = None
    if not found:
        return MoeLayers((), "the model has no mixture-of-experts layers on this rank")
    return MoeLayers(tuple(readers), "; ".join(reasons))


def models(worker: Any) -> Iterator[Any]:
    """The worker's model and, with speculative decoding, the drafter's."""
    runner = worker.model_runner
    yield runner.get_model()
    for holder in ("drafter", "speculator"):
        drafter = getattr(getattr(runner, holder, None), "model", None)
        if hasattr(drafter, "modules"):
            yield drafter


def _mixtures(worker: Any) -> Iterator[Any]:
    from vllm.model_executor.layers.fused_moe.fused_moe_method_base import FusedMoEMethodBase

    for model in models(worker):
        for module in model.modules():
            if isinstance(getattr(module, "quant_method", None), FusedMoEMethodBase):
                yield module


def _experts(module: Any) -> tuple[Any, str, str]:
    """Experts of a layer, their class, and why (or when) they read no tiles."""
    method = module.quant_method
    kernel = getattr(method, "moe_kernel", None)
    if kernel is None:
        name = type(method).__name__
        return None, name, _no_reader(name, None)
    experts = kernel.fused_experts
    name = type(experts).__name__
    fallback = getattr(experts, "fallback_experts", None)
    if type(fallback).__name__ not in READERS:
        return experts, name, "" if name in READERS else _no_reader(name, experts)
    main = type(experts.experts).__name__
    if _never_falls_back(experts):
        return None, name, _no_reader(main, experts)
    return (
        fallback,
        type(fallback).__name__,
        f"batches too large for Triton run {main} instead, which reads no tiles",
    )


def _never_falls_back(experts: Any) -> bool:
    """As ``_select_experts_impl`` of the two classes that have a fallback decide."""
    if hasattr(experts, "is_sm100"):  # TritonOrCutlassExperts: Triton for up to 8 tokens, there only
        return not experts.is_sm100
    from vllm.utils.deep_gemm import is_deep_gemm_e8m0_used

    return bool(is_deep_gemm_e8m0_used())  # TritonOrDeepGemmExperts


def _no_reader(name: str, experts: Any) -> str:
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        return f"the experts run {name} on the CPU, and tiles are those of vLLM's Triton kernels on GPUs"
    quant = getattr(experts, "quant_config", None)
    weights = getattr(quant, "weight_quant_dtype", None)
    if weights in ("nvfp4", "mxfp4"):
        only = "" if weights == "mxfp4" else ", but that of moe_backend: emulation, which is slow"
        return (
            f"the experts run {name}, which reads no tiles: no effect here. No {weights.upper()} kernel of"
            f" vLLM's reads them{only}; choose among moe_backend values instead, with a new engine"
        )
    return (
        f"the experts run {name}, which reads no tiles: no effect here. Build the engine with"
        " moe_backend: triton, where vLLM has that for these weights"
    )


def _layer(module: Any, experts: Any, name: str) -> MoeLayer:
    w13, w2 = _weight(module, _W13_NAMES), _weight(module, _W2_NAMES)
    activations = module.moe_config.in_dtype
    dtype = experts.quant_config.config_name(activations)
    quantized = experts.quant_dtype
    a_bytes = float(getattr(quantized, "itemsize", activations.itemsize))
    # Emulations hand the kernel dequantized weights; NVFP4 loads two numbers per byte.
    b_bytes = a_bytes
    if name in ("TritonExperts", "TritonWNA16Experts", "BatchedTritonExperts"):
        b_bytes = float(w13.element_size())
    elif name.startswith("Nvfp4"):
        b_bytes = 0.5
    block = None if name.startswith("Nvfp4") else experts.block_shape
    block_n, block_k = block or (0, 0)
    hidden, width = int(module.hidden_size), int(module.intermediate_size_per_partition)
    return MoeLayer(
        kernel=READERS[name],
        lookup=(
            int(w2.shape[0]),
            int(w2.shape[2]) * (2 if dtype == "int4_w4a16" else 1),
            dtype,
            int(block_n),
            int(block_k),
        ),
        gemms=((int(w13.shape[1]), hidden), (int(w2.shape[1]), width)),
        a_bytes=a_bytes,
        b_bytes=b_bytes,
        dtype_name=str(w13.dtype),
    )


def _weight(module: Any, names: tuple[str, ...]) -> Any:
    for name in names:
        weight = getattr(module, name, None)
        if weight is not None:
            return weight
    raise AttributeError(f"{type(module).__name__} has none of {', '.join(names)}")
