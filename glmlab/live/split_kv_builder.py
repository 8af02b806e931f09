"""What a metadata builder of TRITON_ATTN holds for split KV: segments, threshold, and scratch of both.

Read in vLLM 0.26, 0.32 and 0.33: ``TritonAttentionMetadataBuilder.__init__`` in
v1/attention/backends/triton_attn.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glmlab.live.forced import forced


def remember_own(builder: Any) -> None:
    """Keep what vLLM chose, for going back."""
    builder.glmlab_own = {
        "splits": builder.num_par_softmax_segments,
        "threshold": builder.seq_threshold_3D,
        "adaptive_seqs": getattr(builder, "max_seqs_64_segments", 0),
        "rows": builder.softmax_segm_max.shape[0],
        "heads": builder.softmax_segm_output.shape[1],
        "head_size": builder.softmax_segm_output.shape[3],
    }


def resize(builder: Any) -> None:
    """Give a builder the forced values, with scratch to match.

    Graphs that were captured with the old scratch must be gone.
    """
    own = builder.glmlab_own
    wanted = forced("kv_splits")
    splits = wanted or own["splits"]
    threshold = split_threshold(builder)
    rows = own["rows"] if not wanted and threshold == own["threshold"] else rows_of(own, threshold)
    if hasattr(builder, "max_seqs_64_segments"):
        # On SM12x 0.32 switches between 64 and 16 segments by batch size; with 0 it never does.
        builder.max_seqs_64_segments = 0 if wanted else own["adaptive_seqs"]
    builder.num_par_softmax_segments = splits
    builder.seq_threshold_3D = threshold
    # The old scratch goes first, so that both never exist at once.
    builder.softmax_segm_output = builder.softmax_segm_max = builder.softmax_segm_expsum = None
    shape = (rows, own["heads"], splits)
    builder.softmax_segm_output = _scratch(builder, (*shape, own["head_size"]))
    builder.softmax_segm_max = _scratch(builder, shape)
    builder.softmax_segm_expsum = _scratch(builder, shape)


def _scratch(builder: Any, shape: tuple[int, ...]) -> Any:
    import torch

    return torch.empty(shape, dtype=torch.float32, device=builder.device)


def rows_of(own: Mapping[str, int], threshold: int) -> int:
    """Rows of scratch: one per sequence, or (0.33, speculating) one per token that is verified."""
    return threshold * max(own["rows"] // own["threshold"], 1)


def split_threshold(builder: Any, min_grid: int | None = None) -> int:
    """Sequences up to which decode is split, by vLLM's own rule for a minimal launch grid.

    ``min_grid // kv_heads``, moved to the nearest size that a CUDA graph is captured for, so that
    each graph holds one kind of kernel (``TritonAttentionMetadataBuilder.__init__``).
    """
    grid = min_grid or forced("kv_split_min_grid")
    if not grid:
        return int(builder.glmlab_own["threshold"])
    threshold = max(grid // builder.num_heads_kv, 1)
    if builder.decode_cudagraph_enabled:
        sizes = builder.vllm_config.compilation_config.cudagraph_capture_sizes
        threshold = min(sizes, key=lambda size: abs(size - threshold))
    return int(threshold)
