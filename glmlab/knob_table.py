"""The knobs that glmlab knows: each a field of the Recipe, with its reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from glmlab.errors import KnobError
from glmlab.names import did_you_mean

Reach = Literal["live", "rebuild"]


@dataclass(frozen=True, kw_only=True)
class Knob:
    """A named dimension of a Recipe.

    Parameters
    ----------
    name : str
        The Recipe field that it sets.
    reach : {"live", "rebuild"}
        Whether a running engine can take a new value. A probe of the running engine has the last
        word: what it cannot change there is refused, never pretended.
    kind : {"bool", "int", "choice"}
        What its values are.
    help : str
        One line for people.
    lowers_only : bool
        A live limit that the engine's buffers were sized for at start: a study starts the engine
        with the highest value of the space and lowers it live.
    prefill, decode : bool
        Whether it changes how prompts are processed, and whether it changes how tokens are made. A
        prompt that is served from the prefix cache hides what changes prefill only.
    kernel : bool
        Whether it selects kernel code, where device time decides rather than wall time.
    """

    name: str
    reach: Reach
    kind: Literal["bool", "int", "choice"]
    help: str
    lowers_only: bool = False
    prefill: bool = False
    decode: bool = True
    kernel: bool = False


_KNOBS = (
    Knob(
        name="cpu_split_kv",
        reach="live",
        kind="bool",
        kernel=True,
        help="CPU attention may split one sequence's KV over several threads",
    ),
    Knob(
        name="cpu_attn_isa",
        reach="live",
        kind="choice",
        kernel=True,
        prefill=True,
        help="kernel variant of CPU attention (amx, vec, vec16, neon, ...)",
    ),
    Knob(
        name="kv_splits",
        reach="live",
        kind="int",
        kernel=True,
        help="parts that decode attention cuts a sequence's KV into (Triton backends); 0: vLLM's own choice",
    ),
    Knob(
        name="kv_split_min_grid",
        reach="live",
        kind="int",
        kernel=True,
        help="decode attention splits KV only up to this many KV heads x sequences (TRITON_ATTN)",
    ),
    Knob(
        name="flash_attn_max_splits",
        reach="live",
        kind="int",
        kernel=True,
        help="most KV splits of FlashAttention 3 in CUDA graphs, on Hopper",
    ),
    Knob(
        name="attn_decode_tile",
        reach="live",
        kind="int",
        kernel=True,
        help="KV tokens that decode attention takes at a time (Triton backends)",
    ),
    Knob(
        name="attn_decode_warps",
        reach="live",
        kind="int",
        kernel=True,
        help="warps of one program of decode attention (Triton backends)",
    ),
    Knob(
        name="attn_decode_stages",
        reach="live",
        kind="int",
        kernel=True,
        help="software-pipeline stages of decode attention (Triton backends)",
    ),
    Knob(
        name="attn_prefill_tile",
        reach="live",
        kind="int",
        kernel=True,
        prefill=True,
        decode=False,
        help="KV tokens that prefill attention takes at a time (TRITON_ATTN)",
    ),
    Knob(
        name="attn_prefill_warps",
        reach="live",
        kind="int",
        kernel=True,
        prefill=True,
        decode=False,
        help="warps of one program of prefill attention (TRITON_ATTN)",
    ),
    Knob(
        name="attn_prefill_stages",
        reach="live",
        kind="int",
        kernel=True,
        prefill=True,
        decode=False,
        help="software-pipeline stages of prefill attention (TRITON_ATTN)",
    ),
    Knob(
        name="moe_tiles",
        reach="live",
        kind="choice",
        kernel=True,
        help="tiles of the Triton fused-MoE kernel, such as '16x64x128 g1 w4 s3'; default: vLLM's own",
    ),
    Knob(
        name="fp8_gemm_tiles",
        reach="live",
        kind="choice",
        kernel=True,
        help="tiles of the Triton block-FP8 GEMM, written like moe_tiles; default: vLLM's own",
    ),
    Knob(
        name="max_num_seqs",
        reach="live",
        kind="int",
        lowers_only=True,
        help="sequences decoded together at most",
    ),
    Knob(
        name="max_num_batched_tokens",
        reach="live",
        kind="int",
        lowers_only=True,
        prefill=True,
        decode=False,
        help="tokens of one step at most: the size of a prefill chunk",
    ),
    Knob(
        name="long_prefill_token_threshold",
        reach="live",
        kind="int",
        prefill=True,
        decode=False,
        help="tokens that one long prompt may take of a step; 0 sets no limit",
    ),
    Knob(name="block_size", reach="rebuild", kind="int", help="tokens of one KV block"),
    Knob(name="cpu_threads", reach="rebuild", kind="int", help="OpenMP threads of a CPU worker"),
    Knob(name="kv_cache_dtype", reach="rebuild", kind="choice", help="number format of the KV cache"),
    Knob(name="tensor_parallel", reach="rebuild", kind="int", help="ranks that share each layer"),
    Knob(name="pipeline_parallel", reach="rebuild", kind="int", help="stages of layers"),
    Knob(
        name="expert_parallel", reach="rebuild", kind="bool", help="whole experts per rank instead of slices"
    ),
    Knob(
        name="decode_context_parallel",
        reach="rebuild",
        kind="int",
        help="ranks that share the KV of one sequence",
    ),
    Knob(
        name="custom_all_reduce",
        reach="rebuild",
        kind="bool",
        help="vLLM's own all-reduce kernel between GPUs; off: NCCL only",
    ),
    Knob(
        name="mtp_tokens",
        reach="rebuild",
        kind="int",
        help="tokens that the model's MTP layer drafts a step; 0: no speculation",
    ),
    Knob(name="prefix_caching", reach="rebuild", kind="bool", help="KV of equal prompt starts is reused"),
    Knob(name="attention_backend", reach="rebuild", kind="choice", help="attention implementation"),
    Knob(name="moe_backend", reach="rebuild", kind="choice", help="fused-MoE implementation"),
    Knob(name="linear_backend", reach="rebuild", kind="choice", help="dense GEMM implementation"),
    Knob(name="enforce_eager", reach="rebuild", kind="bool", help="no torch.compile, no CUDA graphs"),
    Knob(name="cudagraph_mode", reach="rebuild", kind="choice", help="which steps run as CUDA graphs"),
)

KNOBS: dict[str, Knob] = {knob.name: knob for knob in _KNOBS}


def knob(name: str) -> Knob:
    """Look a knob up.

    Raises
    ------
    KnobError
        For an unknown name, with the nearest known ones.
    """
    try:
        return KNOBS[name]
    except KeyError:
        raise KnobError(f"{name}: no such knob{did_you_mean(name, KNOBS)}") from None
