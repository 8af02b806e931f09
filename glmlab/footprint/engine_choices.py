"""What an engine chooses on a GPU where a recipe is silent, as far as memory depends on it."""

from __future__ import annotations

from dataclasses import dataclass

from glmlab.catalog import Model
from glmlab.footprint.attention import attention_backend
from glmlab.gpus import Gpu
from glmlab.models.shape import DsaShape, MlaShape
from glmlab.recipe import Recipe

# CacheConfig.gpu_memory_utilization of vLLM 0.26 and 0.32.
VLLM_UTILIZATION = 0.92
# sglang reckons it from the GPU and the chunk of a prefill; this is what it comes to on large cards
# (server_args.py). A recipe for sglang had better say.
SGLANG_STATIC_FRACTION = 0.88
_LARGE_GPU_BYTES = 70 * 2**30  # get_batch_defaults, engine/arg_utils.py of vLLM 0.32
_MOST_CAPTURED = 512  # 1024 on data-centre Blackwell (VllmConfig._set_cudagraph_sizes)
_FULL_MODES = ("FULL", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE")
_PIECEWISE_MODES = ("PIECEWISE", "FULL_AND_PIECEWISE")
# Pages that these take where nothing is said: get_supported_kernel_block_sizes of their backends.
_PAGE_OF_BACKEND = {
    "FLASHINFER_MLA_SPARSE_SM120": 64,
    "FLASHINFER_MLA_SPARSE": 64,
    "FLASHMLA_SPARSE": 64,
    "FLASHMLA": 64,
    "FLASHINFER_MLA": 64,
    "CUTLASS_MLA": 128,
    "B12X": 64,
}


@dataclass(frozen=True)
class EngineChoices:
    """A recipe's open fields, filled in for one GPU.

    Attributes
    ----------
    utilization : float
        vLLM: share of the GPU's memory that the engine may fill. sglang: share, of what is free
        before the weights are loaded, that weights and KV pool get together.
    attention_backend, moe_backend : str
        Upper case as vLLM names attention backends, lower case as it names the others.
    capture_sizes : tuple of int
        Batch sizes that CUDA graphs are captured for.
    full_graphs, piecewise_graphs : int
        How many of each.
    """

    utilization: float
    max_model_len: int
    batched_tokens: int
    block_size: int
    attention_backend: str
    moe_backend: str
    capture_sizes: tuple[int, ...]
    full_graphs: int
    piecewise_graphs: int
    sparse: bool


def engine_choices(recipe: Recipe, model: Model, gpu: Gpu, expert_format: str) -> EngineChoices:
    """Fill in what a recipe leaves to the engine.

    Parameters
    ----------
    recipe : Recipe
        What is to run.
    model : Model
        Its model.
    gpu : Gpu
        What it runs on.
    expert_format : str
        How the experts' weights are stored: a format of ``data/formats``.
    """
    sglang = recipe.serving_engine == "sglang"
    sparse = isinstance(model.shape, DsaShape) and not recipe.dense_mla
    backend = chosen_attention(recipe, model, gpu)
    sizes = _capture_sizes(recipe, gpu)
    mode = recipe.cudagraph_mode or "FULL_AND_PIECEWISE"
    decode_rows = recipe.max_num_seqs * (1 + recipe.mtp_tokens)
    default_share = SGLANG_STATIC_FRACTION if sglang else VLLM_UTILIZATION
    return EngineChoices(
        utilization=recipe.gpu_memory_utilization or default_share,
        max_model_len=recipe.max_model_len or model.max_model_len,
        batched_tokens=recipe.max_num_batched_tokens or _batched_tokens(gpu),
        block_size=recipe.block_size or _PAGE_OF_BACKEND.get(backend, 1 if sglang else 16),
        attention_backend=backend,
        moe_backend=recipe.moe_backend or _moe(expert_format, gpu),
        capture_sizes=sizes,
        full_graphs=sum(size <= decode_rows for size in sizes) if mode in _FULL_MODES else 0,
        piecewise_graphs=len(sizes) if mode in _PIECEWISE_MODES and not sglang else 0,
        sparse=sparse,
    )


def _batched_tokens(gpu: Gpu) -> int:
    """What ``vllm serve`` takes; a GPU counts as large by what CUDA sees of it.

    Source: EngineArgs.get_batch_defaults of vLLM 0.32.0, usage context OPENAI_API_SERVER.
    """
    if gpu.usable_memory_bytes >= 160 * 2**30:
        return 16384
    return 8192 if gpu.usable_memory_bytes >= _LARGE_GPU_BYTES else 2048


def chosen_attention(recipe: Recipe, model: Model, gpu: Gpu) -> str:
    """The attention backend, in upper case; on GPUs that are not known the first that takes this attention.

    Parameters
    ----------
    recipe : Recipe
        What is to run.
    model : Model
        Its model.
    gpu : Gpu
        What it runs on.
    """
    if recipe.serving_engine == "sglang":
        return (recipe.attention_backend or "triton").upper()
    known = attention_backend(recipe, model.attention, gpu.capability_major)
    if known is not None:
        return known
    if isinstance(model.shape, DsaShape) and not recipe.dense_mla:
        return "FLASHMLA_SPARSE"
    return "FLASHINFER_MLA" if isinstance(model.shape, MlaShape) else "FLASHINFER"


def _moe(expert_format: str, gpu: Gpu) -> str:
    """The first of the oracle that a GPU can run (fused_moe/oracle of vLLM 0.26 and 0.32)."""
    if expert_format == "nvfp4":
        return {10: "flashinfer_trtllm", 12: "flashinfer_cutlass"}.get(gpu.capability_major, "marlin")
    # For BF16 and FP8 the choice depends on what is installed; Triton is always there, and of all
    # of them takes the most scratch.
    return "marlin" if expert_format.startswith("int4") else "triton"


def _capture_sizes(recipe: Recipe, gpu: Gpu) -> tuple[int, ...]:
    """Source: VllmConfig._set_cudagraph_sizes of vLLM 0.32.0."""
    if recipe.enforce_eager or recipe.cudagraph_mode == "NONE":
        return ()
    most_tokens = recipe.max_num_batched_tokens or _batched_tokens(gpu)
    if recipe.cudagraph_capture_sizes is not None:
        return tuple(sorted({size for size in recipe.cudagraph_capture_sizes if size <= most_tokens}))
    ceiling = _MOST_CAPTURED * (2 if gpu.capability.startswith("10.") else 1)
    largest = min(recipe.max_num_seqs * (1 + recipe.mtp_tokens) * 2, ceiling, most_tokens)
    sizes = {*(1, 2, 4), *range(8, 256, 8), *range(256, largest + 1, 16)}
    return tuple(sorted(size for size in sizes if size <= largest))
