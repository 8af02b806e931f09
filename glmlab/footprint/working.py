"""What an engine needs on a GPU beside weights and KV: activations, workspaces, graphs, the driver's own.

vLLM runs one step of ``max_num_batched_tokens`` dummy tokens, takes the peak of what PyTorch allocated,
adds what it keeps and an estimate of its CUDA graphs, and gives the rest to the KV pool. The formulas here
are of the tensors that make that peak (vLLM 0.26.0 and 0.32.0, v1/worker/gpu_worker.py). Constants that no
source has were set from two things: what stays allocated in the recordings of twins on an H100, and
GLM-5.2-REAP-504B on four RTX PRO 6000 (hermia-ai/glm-5.2-sm120-stock-vllm, vLLM 0.25.1: 0.92 of 94.97 GiB
left 8.25 GiB for KV beside 79.1 GB of weights, at 131,072 tokens; and 6.96 GiB with decode context
parallelism over four ranks, at 250,000).
"""

from __future__ import annotations

from collections.abc import Iterator

from glmlab.footprint.engine_choices import EngineChoices
from glmlab.footprint.part import GB, MemoryPart
from glmlab.footprint.split_kv import split_kv_scratch
from glmlab.gpus import Gpu
from glmlab.models.shape import MlaShape, ModelShape
from glmlab.recipe import Recipe
from glmlab.units import counted

_HALF = 2  # bytes of a bfloat16 activation
_FLASHINFER_WORKSPACE = 394 * 2**20  # VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE
_INDEXER_LOGITS = 512 * 2**20  # VLLM_SPARSE_INDEXER_MAX_LOGITS_MB
_INDEXER_ROWS = 40  # get_max_prefill_buffer_size of mla/indexer.py: rows per token of max_model_len
_CONTEXT_ROWS = 64 * 1024  # determine_chunked_prefill_workspace_size of mla_attention.py, its ceiling
_CUSTOM_ALL_REDUCE = 2 * 8 * 2**20  # custom_all_reduce.py: max_size for the buffer, as much for IPC data
# Bytes of logits and sampler per sequence and token id: bfloat16 logits, float32 logits, probabilities
# and the random numbers that they are divided by (v1/sample/sampler.py).
_SAMPLER_BYTES = 2 + 4 + 4 + 4
_PLAIN_MODULES = 0.3 * GB
_JIT_MODULES = 0.9 * GB
_CONTEXT_PARALLEL = 0.75 * GB
# What a row of NVFP4 with its scales takes, per value (flashinfer_cutlass_moe quantizes its inputs).
_NVFP4_BYTES = 0.5625


def working_memory(
    recipe: Recipe, shape: ModelShape, gpu: Gpu, choices: EngineChoices
) -> Iterator[MemoryPart]:
    """The parts, weights and KV pool left out.

    Parameters
    ----------
    recipe : Recipe
        What is to run.
    shape : ModelShape
        Its model's sizes.
    gpu : Gpu
        What it runs on.
    choices : EngineChoices
        The recipe's open fields, filled in.
    """
    kept, transient, how_moe = _moe(recipe, shape, choices)
    scratch, shared, how_scratch = split_kv_scratch(recipe, shape, gpu, choices)
    gather = _indexer_gather(recipe, shape, choices)
    # One buffer serves the experts, the indexer and TRITON_MLA in turn, as large as the largest of
    # them (v1/worker/workspace.py). The others cost nothing.
    workspace = max(kept, gather)
    yield MemoryPart(
        group="activations",
        name="shared workspace",
        size=workspace,
        plus_minus=0.1 * workspace,
        kind="computed",
        how=how_moe
        if kept >= gather
        else f"the indexer gathers {_INDEXER_ROWS} x {choices.max_model_len:,} keys of"
        f" {shape.indexer_bytes_per_layer} B; the experts' {kept / GB:.2f} GB lie in it, too",
    )
    yield _forward(recipe, shape, choices, transient)
    extra = max(0.0, scratch - workspace) if shared else scratch
    inside = ", inside the shared workspace" if shared and scratch else ""
    yield MemoryPart(
        group="split_kv",
        name="split-KV scratch",
        size=extra,
        plus_minus=0.0,
        kind="computed",
        how=f"{how_scratch} = {scratch / GB:.3f} GB{inside}" if scratch else how_scratch,
    )
    yield from _attention_workspace(recipe, shape, choices)
    yield _graphs(choices)
    yield from _modules(recipe, choices)
    yield from _runtime(recipe, gpu)


def _moe(recipe: Recipe, shape: ModelShape, choices: EngineChoices) -> tuple[float, float, str]:
    """Of the experts: bytes that are kept, bytes while they run, and the formula with its numbers.

    Source: ``workspace_shapes`` of fused_moe/experts (triton_moe, marlin_moe, flashinfer_cutlass_moe);
    what FlashInfer takes on its own follows from the stages of its kernel.
    """
    rows = choices.batched_tokens * shape.num_experts_per_tok
    hidden, width = shape.hidden_size, shape.moe_intermediate_size
    if not recipe.expert_parallel:
        width = max(1, width // recipe.tensor_parallel)
    if choices.moe_backend.startswith(("triton", "marlin", "humming", "emulation")):
        columns = max(width, hidden) + max(2 * width, hidden)
        how = f"experts ({choices.moe_backend}): {rows:,} rows x {columns:,} x 2 B"
        return rows * columns * _HALF, 0.0, how
    output = choices.batched_tokens * hidden * _HALF
    inner = rows * (hidden * (_NVFP4_BYTES + _HALF) + width * (_NVFP4_BYTES + 2 * _HALF))
    how = f"experts ({choices.moe_backend}): {choices.batched_tokens:,} x {hidden:,} x 2 B"
    return output, inner, how


def _indexer_gather(recipe: Recipe, shape: ModelShape, choices: EngineChoices) -> float:
    if not choices.sparse or recipe.serving_engine == "sglang":
        return 0.0
    return float(_INDEXER_ROWS * choices.max_model_len * shape.indexer_bytes_per_layer)


def _forward(recipe: Recipe, shape: ModelShape, choices: EngineChoices, experts: float) -> MemoryPart:
    """The higher of two peaks: a step of prefill, or the sampler."""
    tokens = choices.batched_tokens
    heads = max(1, shape.num_attention_heads // recipe.tensor_parallel)
    kept = tokens * shape.hidden_size * _HALF  # the last hidden states stay (seen in both recordings)
    attention = 0.0
    if isinstance(shape, MlaShape):
        # MLAAttention.forward allocates this in the profile run, for kv_b_proj over a gathered context.
        up = shape.qk_nope_head_dim + shape.v_head_dim
        attention = 0.0 if choices.sparse else _context_rows(recipe, choices) * heads * up * _HALF
    if choices.sparse:
        attention = max(attention, _INDEXER_LOGITS)
    stream = 4 * tokens * shape.hidden_size * _HALF  # residual, input, normed, output
    prefill = stream + max(attention, experts)
    sampler = recipe.max_num_seqs * shape.vocab_size * _SAMPLER_BYTES
    peak = max(prefill, sampler)
    how = (
        f"{tokens:,} tokens: residual stream {stream / GB:.2f} GB and the larger of attention"
        f" {attention / GB:.2f} and experts {experts / GB:.2f} GB; or logits of"
        f" {counted(recipe.max_num_seqs, 'sequence')} {sampler / GB:.2f} GB; and {kept / GB:.2f} GB of hidden"
        " states that stay"
    )
    return MemoryPart(
        group="activations",
        name="step",
        size=peak + kept,
        plus_minus=0.1 * GB + 0.25 * peak,
        kind="estimated",
        how=how,
    )


def _context_rows(recipe: Recipe, choices: EngineChoices) -> int:
    rows = max(8 * choices.max_model_len, 4 * recipe.max_num_seqs * choices.block_size)
    return min(rows, _CONTEXT_ROWS)


def _attention_workspace(recipe: Recipe, shape: ModelShape, choices: EngineChoices) -> Iterator[MemoryPart]:
    if choices.attention_backend.startswith("FLASHINFER"):
        yield MemoryPart(
            group="workspace",
            name="FlashInfer",
            size=_FLASHINFER_WORKSPACE,
            plus_minus=0.0,
            kind="computed",
            how="VLLM_FLASHINFER_WORKSPACE_BUFFER_SIZE, 394 MiB",
        )
    if isinstance(shape, MlaShape) and recipe.serving_engine == "vllm":
        rows = _context_rows(recipe, choices)
        if recipe.decode_context_parallel > 1:
            rows += rows // recipe.decode_context_parallel
        yield MemoryPart(
            group="workspace",
            name="chunked prefill",
            size=rows * shape.kv_values_per_layer * _HALF,
            plus_minus=0.0,
            kind="computed",
            how=f"MLA gathers {rows:,} tokens of context x {shape.kv_values_per_layer} x 2 B",
        )


def _modules(recipe: Recipe, choices: EngineChoices) -> Iterator[MemoryPart]:
    yield MemoryPart(
        group="workspace",
        name="kernel modules",
        size=_PLAIN_MODULES,
        plus_minus=0.2 * GB,
        kind="estimated",
        how="loaded kernels, cuBLAS workspaces",
    )
    if choices.attention_backend.startswith("FLASHINFER") or choices.moe_backend.startswith("flashinfer"):
        yield MemoryPart(
            group="workspace",
            name="FlashInfer modules",
            size=_JIT_MODULES,
            plus_minus=0.5 * GB,
            kind="measured",
            how="what GLM-5.2-REAP-504B on four RTX PRO 6000 leaves beside the other parts (vLLM 0.25.1)",
        )
    if recipe.decode_context_parallel > 1:
        yield MemoryPart(
            group="workspace",
            name="context parallelism",
            size=_CONTEXT_PARALLEL,
            plus_minus=0.4 * GB,
            kind="measured",
            how="four ranks of GLM-5.2-REAP-504B: 1.29 GiB less for KV, 0.63 GB of it the indexer's (0.25.1)",
        )


def _graphs(choices: EngineChoices) -> MemoryPart:
    """CUDA graphs: a pool that they share, and a little for each.

    Measured by others: start-up logs of vLLM 0.19 to 0.25 on one GPU say 0.36 GiB for 2 graphs, 0.22 for 15,
    0.36 for 16, 0.37 for 54, 0.64 and 0.78 for 86; 0.61 for 9 and 1.21 for 18 where prefill chunks are large.
    """
    count = choices.full_graphs + choices.piecewise_graphs
    how = (
        f"{choices.full_graphs} full and {counted(choices.piecewise_graphs, 'piecewise graph')}: 0.3 GB and"
        " 6 MB each, as start-up logs of vLLM 0.19 to 0.25 say"
    )
    return MemoryPart(
        group="graphs",
        name="CUDA graphs",
        size=0.3 * GB + 6e6 * count if count else 0.0,
        plus_minus=0.3 * GB if count else 0.0,
        kind="estimated",
        how=how if count else "none captured",
    )


def _runtime(recipe: Recipe, gpu: Gpu) -> Iterator[MemoryPart]:
    """What is taken before vLLM looks at the free memory the first time: no utilization counts it."""
    yield MemoryPart(
        group="runtime",
        name="CUDA context",
        size=0.55 * GB,
        plus_minus=0.15 * GB,
        kind="estimated",
        how="driver and PyTorch, 0.4 to 0.7 GB as a rule; gpu_memory_utilization does not count it",
    )
    if recipe.ranks == 1:
        return
    # GLM-5.1 REAP-160 on four RTX PRO 6000: 0.94 of what sglang found free was 77.15 + 11.26 GiB, so 94.05
    # of 94.97 GiB were free once NCCL was up (runtime statistics of 0xSero's launch notes).
    yield MemoryPart(
        group="runtime",
        name="NCCL",
        size=0.45 * GB,
        plus_minus=0.25 * GB,
        kind="measured",
        how="before loading, four RTX PRO 6000 had 0.99 GB less than all free, the context included",
    )
    two_or_nvlink = recipe.tensor_parallel == 2 or gpu.link == "nvlink"
    if recipe.tensor_parallel > 1 and recipe.custom_all_reduce is not False and two_or_nvlink:
        yield MemoryPart(
            group="runtime",
            name="custom all-reduce",
            size=_CUSTOM_ALL_REDUCE,
            plus_minus=0.0,
            kind="computed",
            how="two buffers of 8 MiB (custom_all_reduce.py); off on more than two PCIe GPUs",
        )
