"""Scratch of split-KV decode: where the parts of one sequence's attention wait to be joined."""

from __future__ import annotations

from glmlab.footprint.engine_choices import EngineChoices
from glmlab.gpus import Gpu
from glmlab.models.shape import GqaShape, MlaShape, ModelShape
from glmlab.recipe import Recipe

_FLOAT32 = 4
# triton_attn.py: MIN_LAUNCH_GRID_SIZE_2D, NUM_PAR_SOFTMAX_SEGMENTS; from 0.32 on 64 segments on SM12x
# at small batches.
_MIN_GRID = 128
_SEGMENTS = 16
_SEGMENTS_SM12X = 64
# triton_mla.py: _MIN_WORK_PER_SPLIT, _SPLIT_OCCUPANCY_MULTIPLIER.
_MIN_WORK = 512
_WAVES = 2
_SGLANG_SPLITS = 8  # --triton-attention-num-kv-splits, 0.5.10 and 0.5.23


def split_kv_scratch(
    recipe: Recipe, shape: ModelShape, gpu: Gpu, choices: EngineChoices
) -> tuple[float, bool, str]:
    """Bytes on one rank, whether they lie in vLLM's shared workspace, and the formula with its numbers.

    Sources: TritonAttentionMetadataBuilder.__init__ (v1/attention/backends/triton_attn.py),
    _reserve_attn_logits_workspace and _compute_num_kv_splits (mla/triton_mla.py) of vLLM 0.26.0 and
    0.32.0; get_num_kv_splits of sglang 0.5.10 (triton_backend.py).
    """
    heads = max(1, shape.num_attention_heads // recipe.tensor_parallel)
    rows = recipe.max_num_seqs * (1 + recipe.mtp_tokens)
    if recipe.serving_engine == "sglang":
        if choices.attention_backend != "TRITON":
            return 0.0, False, f"{choices.attention_backend} keeps none that is known"
        width = shape.kv_lora_rank if isinstance(shape, MlaShape) else _head_size(shape)
        splits = decode_splits(recipe, shape, gpu, choices)
        size = rows * heads * splits * (width + 1) * _FLOAT32
        return size, False, f"{rows} rows x {heads} heads x {splits} splits x ({width} + 1) x 4 B"
    if choices.attention_backend == "TRITON_MLA" and isinstance(shape, MlaShape):
        splits = decode_splits(recipe, shape, gpu, choices)
        gathered = heads * recipe.decode_context_parallel
        size = rows * gathered * splits * (shape.kv_lora_rank + 1) * _FLOAT32
        how = f"{rows} rows x {gathered} heads x {splits} splits x ({shape.kv_lora_rank} + 1) x 4 B"
        return size, True, how
    if choices.attention_backend == "TRITON_ATTN" and isinstance(shape, GqaShape):
        segments = decode_splits(recipe, shape, gpu, choices)
        threshold = _threshold(recipe, shape, choices)
        padded = 1 << (shape.head_size - 1).bit_length()
        size = threshold * heads * segments * (padded + 2) * _FLOAT32
        how = f"{threshold} rows x {heads} heads x {segments} segments x ({padded} + 2) x 4 B"
        return size, False, how
    return 0.0, False, f"{choices.attention_backend} has none, or in its own workspace"


def decode_splits(
    recipe: Recipe, shape: ModelShape, gpu: Gpu, choices: EngineChoices, sequences: int = 1
) -> int:
    """Parts that decode attention of the Triton backends cuts the KV of each sequence into.

    Parameters
    ----------
    recipe : Recipe
        Whose ``kv_splits`` goes first; else what the engine chooses.
    shape, gpu, choices
        As for :func:`split_kv_scratch`.
    sequences : int
        Decoded together: beyond a minimal grid TRITON_ATTN does not split at all.
    """
    if recipe.serving_engine == "sglang":
        return recipe.kv_splits or _SGLANG_SPLITS
    if isinstance(shape, GqaShape):
        if sequences > _threshold(recipe, shape, choices):
            return 1
        return recipe.kv_splits or (_SEGMENTS_SM12X if gpu.capability == "12.0" else _SEGMENTS)
    return recipe.kv_splits or mla_splits(choices.max_model_len, gpu.sms)


def mla_splits(max_model_len: int, sms: int) -> int:
    """Splits that TRITON_MLA reserves for: those of the longest sequence."""
    wanted = max(1, max_model_len // _MIN_WORK)
    next_power = 1 << (wanted - 1).bit_length()
    return min(next_power, _WAVES * sms)


def _threshold(recipe: Recipe, shape: GqaShape, choices: EngineChoices) -> int:
    """Sequences up to which decode is split: a minimal grid, moved to the nearest captured size."""
    kv_heads = max(1, shape.num_key_value_heads // recipe.tensor_parallel)
    threshold = max(1, (recipe.kv_split_min_grid or _MIN_GRID) // kv_heads)
    if choices.full_graphs:
        return min(choices.capture_sizes, key=lambda size: abs(size - threshold))
    return threshold


def _head_size(shape: ModelShape) -> int:
    assert isinstance(shape, GqaShape)
    return shape.head_size
