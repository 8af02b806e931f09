"""Live knobs of TRITON_ATTN: into how many segments decode splits KV, when, and the kernel's tiles.

vLLM's ``TritonAttentionMetadataBuilder`` holds the segment count, the batch size up to which the
split ("3D") kernel runs, and the scratch of both. One Triton kernel serves prefill and decode; its
tile comes from ``_get_tile_size``, its warps and stages are Triton's defaults. Read in vLLM 0.26,
0.32 and 0.33: v1/attention/backends/triton_attn.py and v1/attention/ops/triton_unified_attention.py.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from glmlab.live import attention_groups as groups
from glmlab.live.compile_ahead import Attempt, device_limits, refuse_what_cannot_run
from glmlab.live.forced import force, forced, release
from glmlab.live.kernel_launches import Used, WatchedKernel
from glmlab.live.split_kv_builder import remember_own, resize, rows_of, split_threshold

BACKEND = "TRITON_ATTN"
TRITON_WARPS, TRITON_STAGES = 4, 3  # Triton's own where a launch names none (CUDAOptions)
_MOST_SPLITS = 512
_MOST_GRID = 4096
_RESERVE_BYTES = 512 * 2**20  # what a change of scratch must leave free on the GPU

_used = Used()
_decode_was_split: dict[int, bool] = {}  # sequences of a decode launch -> split or not


def _is_decode(launch: Mapping[str, Any]) -> bool:
    return bool(launch["IS_3D"]) or launch["query_ptr"].shape[0] == launch["num_seqs"]


def _kind(launch: Mapping[str, Any]) -> str:
    return "split" if launch["IS_3D"] else "decode" if _is_decode(launch) else "prefill"


def _decide(launch: Mapping[str, Any]) -> dict[str, Any]:
    """Warps and stages of one launch, and what it had, for :meth:`TritonAttention.used`."""
    phase = "decode" if _is_decode(launch) else "prefill"
    options = _options(phase)
    if phase == "decode":
        _decode_was_split[int(launch["num_seqs"])] = bool(launch["IS_3D"])
    if launch["IS_3D"]:
        _used.saw("kv_splits", int(launch["NUM_SEGMENTS_PER_SEQ"]))
        _used.saw("attn_decode_tile", int(launch["TILE_SIZE"]))
    elif phase == "prefill":
        _used.saw("attn_prefill_tile", int(launch["TILE_SIZE"]))
    had = {**launch, **options}
    _used.saw(f"attn_{phase}_warps", int(had.get("num_warps") or TRITON_WARPS))
    _used.saw(f"attn_{phase}_stages", int(had.get("num_stages") or TRITON_STAGES))
    return options


def _options(phase: str) -> dict[str, int]:
    wanted = {"num_warps": forced(f"attn_{phase}_warps"), "num_stages": forced(f"attn_{phase}_stages")}
    return {name: value for name, value in wanted.items() if value is not None}


def forget() -> None:
    """Forget launches, for a new engine of this process."""
    from vllm.v1.attention.ops import triton_unified_attention as ops

    _used.clear()
    _decode_was_split.clear()
    for name in ("kernel_unified_attention", "reduce_segments"):
        if isinstance(getattr(ops, name, None), WatchedKernel):
            getattr(ops, name).forget()


def install() -> str:
    """Put the watches in place, before the first launch; say why not where a part is missing."""
    try:
        from vllm.v1.attention.backends.triton_attn import TritonAttentionMetadataBuilder as Builder
        from vllm.v1.attention.ops import triton_unified_attention as ops
    except ImportError as error:
        return f"this vLLM has no {BACKEND} ({error})"
    parts = ("kernel_unified_attention", "reduce_segments", "_get_tile_size")
    if not all(hasattr(ops, part) for part in parts):
        return f"this vLLM's {BACKEND} kernel is not the one that 0.26 to 0.33 have"
    if isinstance(ops.kernel_unified_attention, WatchedKernel):
        return ""
    own_tile = ops._get_tile_size

    @functools.wraps(own_tile)
    def tile_size(*args: Any, **kwargs: Any) -> int:
        is_prefill = kwargs["is_prefill"] if "is_prefill" in kwargs else args[3]
        wanted = forced("attn_prefill_tile" if is_prefill else "attn_decode_tile")
        return int(wanted or own_tile(*args, **kwargs))

    tile_size.glmlab_wraps = own_tile  # type: ignore[attr-defined]
    ops._get_tile_size = tile_size
    ops.kernel_unified_attention = WatchedKernel(ops.kernel_unified_attention, decide=_decide, kind=_kind)
    # Left as it is: it has the segment count too, so it is compiled anew with each.
    ops.reduce_segments = WatchedKernel(ops.reduce_segments, decide=lambda _: {}, kind=lambda _: "reduce")
    own_init = Builder.__init__

    @functools.wraps(own_init)
    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        own_init(self, *args, **kwargs)
        remember_own(self)
        if forced("kv_splits") or forced("kv_split_min_grid"):
            resize(self)

    Builder.__init__ = init
    return ""


class TritonAttention:
    """The knobs of TRITON_ATTN in one worker; a :class:`glmlab.live.seam.Seam`."""

    KNOBS: ClassVar[tuple[str, ...]] = (
        "kv_splits",
        "kv_split_min_grid",
        "attn_decode_tile",
        "attn_decode_warps",
        "attn_decode_stages",
        "attn_prefill_tile",
        "attn_prefill_warps",
        "attn_prefill_stages",
    )

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._builders = groups.builders(worker, BACKEND)
        self._why = self._missing_parts()

    def _missing_parts(self) -> str:
        if not self._builders:
            return groups.why_not(self._worker, BACKEND)
        if reason := install():
            return reason
        for builder in self._builders:
            if not hasattr(builder, "glmlab_own"):
                return f"this engine was built before glmlab's plugin was in place, or {BACKEND} changed"
        return ""

    @functools.cached_property
    def _limits(self) -> dict[str, int]:
        return device_limits(self._worker.device)

    @functools.cached_property
    def _element_bytes(self) -> int:
        """Bytes of one query number as the kernel sees it: FP8 KV has the query quantized too."""
        cache_dtype = str(self._worker.cache_config.cache_dtype)
        return 1 if cache_dtype.startswith("fp8") and "per_token" not in cache_dtype else 2

    # ------------------------------------------------------------------ what can be
    def probe(self) -> dict[str, dict[str, Any]]:
        if self._why:
            return {name: {"live": False, "why": self._why} for name in self.KNOBS}
        values, own = self.values(), self._own_values()
        smallest = 32 if self._element_bytes == 1 else 16  # of tl.dot, by type
        tiles = tuple(size for size in (16, 32, 64, 128, 256) if size >= smallest)
        allowed: dict[str, dict[str, Any]] = {
            "kv_splits": {"values": self._splits_that_fit()},
            "kv_split_min_grid": {"low": 1, "high": _MOST_GRID},
        }
        for phase in ("decode", "prefill"):
            allowed[f"attn_{phase}_tile"] = {"values": tiles}
            allowed[f"attn_{phase}_warps"] = {"values": (1, 2, 4, 8)}
            allowed[f"attn_{phase}_stages"] = {"low": 1, "high": 8}
        found = {
            name: {"live": True, "value": values[name], "default": own[name], **allowed[name]}
            for name in self.KNOBS
        }
        if own["kv_splits"] == 0:
            found["kv_splits"]["why"] = "0: 64 at small batches, else 16, as this vLLM does on SM12x"
        if reason := self._never_splits():
            for name in ("kv_splits", "kv_split_min_grid", "attn_decode_tile"):
                found[name] = {"live": False, "why": reason, "value": values[name]}
        return found

    def _never_splits(self) -> str:
        """Why decode steps of this engine never run the split kernel."""
        from vllm.v1.attention.ops import triton_unified_attention as ops

        if reason := groups.never_splits():
            return reason
        mode = self._worker.vllm_config.compilation_config.cudagraph_mode
        if groups.full_graphs(self._worker) and not mode.separate_routine():
            return (
                "CUDA graphs of mode FULL are captured for any mix of prefill and decode, which"
                f" {BACKEND} does not split: no effect; FULL_AND_PIECEWISE has graphs for decode"
            )
        # From 0.33 on short verify steps are split too; before, only steps of one token are.
        if groups.speculates(self._worker) and not hasattr(ops, "MAX_3D_QUERY_LEN"):
            return (
                "with speculative decoding this vLLM verifies several tokens a step, and its"
                f" {BACKEND} splits KV for single tokens only: no effect (0.33 changes that)"
            )
        return ""

    def _splits_that_fit(self) -> tuple[int, ...]:
        """Powers of two (the reduction is a ``tl.arange``) whose scratch the GPU has room for."""
        room = self._room_bytes()
        counts = [2**power for power in range(_MOST_SPLITS.bit_length())]
        fitting = tuple(n for n in counts if self._scratch_bytes(splits=n) <= room)
        return (0, *fitting) if self._own_values()["kv_splits"] == 0 else fitting

    def _scratch_bytes(self, *, splits: int | None = None, min_grid: int | None = None) -> int:
        total = 0
        for builder in self._builders:
            own, now = builder.glmlab_own, builder.num_par_softmax_segments
            rows = rows_of(own, split_threshold(builder, min_grid))
            total += rows * own["heads"] * (splits or now) * (own["head_size"] + 2) * 4
        return total

    def _room_bytes(self) -> int:
        import torch

        free, _ = torch.cuda.mem_get_info(self._worker.device)
        held = sum(b.softmax_segm_output.nbytes for b in self._builders if b.softmax_segm_output is not None)
        return int(free + held - _RESERVE_BYTES)

    # ------------------------------------------------------------------ what is
    def values(self) -> dict[str, Any]:
        if self._why:
            return {}
        own = self._own_values()
        found: dict[str, Any] = {}
        for builder in self._builders:
            adaptive = getattr(builder, "max_seqs_64_segments", 0) > 0
            splits = 0 if adaptive else builder.num_par_softmax_segments
            found["kv_splits"] = _agreed(found.get("kv_splits"), splits)
            honoured = builder.seq_threshold_3D == split_threshold(builder)
            grid = forced("kv_split_min_grid") or own["kv_split_min_grid"]
            found["kv_split_min_grid"] = _agreed(
                found.get("kv_split_min_grid"),
                grid if honoured else f"threshold {builder.seq_threshold_3D}",
            )
        for name in self.KNOBS[2:]:
            found[name] = forced(name) or own[name]
        return found

    def _own_values(self) -> dict[str, Any]:
        from vllm.v1.attention.backends import triton_attn
        from vllm.v1.attention.ops import triton_unified_attention as ops

        builder = self._builders[0]
        own = builder.glmlab_own
        tile = getattr(ops._get_tile_size, "glmlab_wraps", ops._get_tile_size)
        values = {
            "kv_splits": 0 if own["adaptive_seqs"] > 0 else own["splits"],
            "kv_split_min_grid": triton_attn.MIN_LAUNCH_GRID_SIZE_2D,
        }
        for phase in ("decode", "prefill"):
            values[f"attn_{phase}_tile"] = tile(own["head_size"], 0, self._element_bytes, phase == "prefill")
            values[f"attn_{phase}_warps"] = TRITON_WARPS
            values[f"attn_{phase}_stages"] = TRITON_STAGES
        return values

    def used(self) -> dict[str, Any]:
        if self._why:
            return {}
        found = _used.found()
        if forced("kv_splits") is None and self._own_values()["kv_splits"] == 0:
            found.pop("kv_splits", None)  # vLLM's own choice, which changes with the batch
        builder = self._builders[0]
        wrong = {n: s for n, s in _decode_was_split.items() if s != (n <= builder.seq_threshold_3D)}
        if _decode_was_split and not self._never_splits():
            grid = self.values()["kv_split_min_grid"]
            found["kv_split_min_grid"] = f"split or not: {wrong}" if wrong else grid
        return found

    def notes(self, batches: Sequence[int]) -> list[str]:
        """Batch sizes whose decode steps are not split: kv_splits does nothing there."""
        if self._why or not _decode_was_split:
            return []
        threshold = self._builders[0].seq_threshold_3D
        whole = [batch for batch in batches if batch > threshold]
        if not whole:
            return []
        note = (
            f"kv_splits and attn_decode_tile have no effect at batch {', '.join(map(str, whole))}: above"
            f" {threshold} sequences this engine does not split KV (kv_split_min_grid)"
        )
        return [note]

    def is_captured(self, name: str) -> bool:
        return groups.full_graphs(self._worker)

    # ------------------------------------------------------------------ changing
    def check(self, changes: Mapping[str, Any]) -> None:
        """Refuse what cannot run, by compiling it, before anything is changed."""
        splits, grid = changes.get("kv_splits"), changes.get("kv_split_min_grid")
        if splits or grid:
            needed, room = self._scratch_bytes(splits=splits, min_grid=grid), self._room_bytes()
            if needed > room:
                raise ValueError(
                    f"{_listed(changes)}: the scratch of split KV would take {needed / 1e9:.2f} GB, this"
                    f" GPU has room for {max(room, 0) / 1e9:.2f} GB; take fewer splits or give vLLM a"
                    " smaller gpu_memory_utilization"
                )
        refuse_what_cannot_run(self._attempts(changes), self._limits)

    def _attempts(self, changes: Mapping[str, Any]) -> Iterator[Attempt]:
        """Kernels that launches would have after a change, as far as they do not have them now."""
        from vllm.v1.attention.ops import triton_unified_attention as ops

        after, splits = {**self.values(), **changes}, changes.get("kv_splits")
        for kind, phase in (("split", "decode"), ("decode", "decode"), ("prefill", "prefill")):
            touched = {n: v for n, v in changes.items() if n.startswith(f"attn_{phase}")}
            if kind == "decode" and "attn_prefill_tile" in changes:  # decode that is not split takes it too
                touched["attn_prefill_tile"] = changes["attn_prefill_tile"]
            if not touched and not (kind == "split" and splits):
                continue
            tile = after["attn_decode_tile" if kind == "split" else "attn_prefill_tile"]
            constants = {
                "TILE_SIZE": tile,
                "num_warps": after[f"attn_{phase}_warps"],
                "num_stages": after[f"attn_{phase}_stages"],
            }
            if kind == "split" and after["kv_splits"]:
                constants["NUM_SEGMENTS_PER_SEQ"] = after["kv_splits"]
            what = _listed(touched or {"kv_splits": splits})
            yield from ops.kernel_unified_attention.attempts(what, kind, constants)
            if kind == "split":
                del constants["num_warps"], constants["num_stages"]  # of the kernel that is decided
                yield from ops.reduce_segments.attempts(what, "reduce", constants)

    def set(self, name: str, value: Any) -> bool:
        _used.clear()
        _decode_was_split.clear()
        if value == self._own_values()[name]:
            release(name)
        else:
            force(name, value)
        if name in ("kv_splits", "kv_split_min_grid"):
            for builder in self._builders:
                resize(builder)
        return True


def _agreed(before: Any, now: Any) -> Any:
    return now if before in (None, now) else f"mixed: {before}, {now}"


def _listed(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {value}" for name, value in changes.items())
