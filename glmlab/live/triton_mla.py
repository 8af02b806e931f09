"""Live knobs of TRITON_MLA: into how many parts decode splits KV, and the tile of its first kernel.

``TritonMLAImpl.forward_mqa`` asks ``_compute_num_kv_splits`` at every launch; the scratch comes from
vLLM's shared workspace, which a metadata builder reserves at the highest count. A full CUDA graph is
captured with ``max_seq_len = max_model_len``, so that it holds the count of the longest sequence
however short the real ones are. Read in vLLM 0.26, 0.32 and 0.33: v1/attention/backends/mla/triton_mla.py and
v1/attention/ops/triton_decode_attention.py.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from glmlab.live import attention_groups as groups
from glmlab.live.compile_ahead import device_limits, refuse_what_cannot_run
from glmlab.live.forced import force, forced, release
from glmlab.live.kernel_launches import Used, WatchedKernel

BACKEND = "TRITON_MLA"
_MOST_SPLITS = 1024
_RESERVE_BYTES = 512 * 2**20
# Literals of ``_decode_grouped_att_m_fwd`` for a latent of 512 and 64 rotary numbers.
_OWN_TILE = {"attn_decode_tile": 32, "attn_decode_warps": 4, "attn_decode_stages": 2}
_CONSTANT = {
    "attn_decode_tile": "BLOCK_N",
    "attn_decode_warps": "num_warps",
    "attn_decode_stages": "num_stages",
}
_KERNELS = ("_fwd_grouped_kernel_stage1", "_fwd_kernel_stage2")

_used = Used()


def _decide(launch: Mapping[str, Any]) -> dict[str, Any]:
    options = {constant: forced(name) for name, constant in _CONSTANT.items() if forced(name) is not None}
    had = {**launch, **options}
    _used.saw("kv_splits", int(launch["NUM_KV_SPLITS"]))
    for name, constant in _CONSTANT.items():
        _used.saw(name, int(had[constant]))
    return options


def forget() -> None:
    """Forget launches, for a new engine of this process."""
    from vllm.v1.attention.ops import triton_decode_attention as ops

    _used.clear()
    for name in _KERNELS:
        if isinstance(getattr(ops, name, None), WatchedKernel):
            getattr(ops, name).forget()


def install() -> str:
    """Put the watches in place, before the first launch; say why not where a part is missing."""
    try:
        from vllm.v1.attention.backends.mla import triton_mla
        from vllm.v1.attention.ops import triton_decode_attention as ops
    except ImportError as error:
        return f"this vLLM has no {BACKEND} ({error})"
    own = getattr(triton_mla, "_compute_num_kv_splits", None)
    if own is None or not all(hasattr(ops, name) for name in _KERNELS):
        return f"this vLLM's {BACKEND} is not the one that 0.26 to 0.33 have"
    if hasattr(own, "glmlab_wraps"):
        return ""

    @functools.wraps(own)
    def kv_splits(max_seq_len: int, sm_count: int) -> int:
        return int(forced("kv_splits") or own(max_seq_len, sm_count))

    kv_splits.glmlab_wraps = own  # type: ignore[attr-defined]
    triton_mla._compute_num_kv_splits = kv_splits
    ops._fwd_grouped_kernel_stage1 = WatchedKernel(
        ops._fwd_grouped_kernel_stage1, decide=_decide, kind=lambda _: "decode"
    )
    # Left as it is: it has the split count too, so it is compiled anew with each.
    ops._fwd_kernel_stage2 = WatchedKernel(
        ops._fwd_kernel_stage2, decide=lambda _: {}, kind=lambda _: "merge"
    )
    return ""


class TritonMla:
    """The knobs of TRITON_MLA in one worker; a :class:`glmlab.live.seam.Seam`."""

    KNOBS: ClassVar[tuple[str, ...]] = (
        "kv_splits",
        "attn_decode_tile",
        "attn_decode_warps",
        "attn_decode_stages",
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
        from vllm.v1.attention.backends.mla import triton_mla

        if reason := groups.never_splits():
            return reason
        # A method until 0.32, a function of the module from 0.33 on.
        if not hasattr(self._builders[0], _RESERVE) and not hasattr(triton_mla, _RESERVE):
            return f"this vLLM's {BACKEND} reserves its scratch in another way than 0.26 to 0.33"
        if groups.speculates(self._worker) and "query_len" not in _source(
            triton_mla.TritonMLAImpl.forward_mqa
        ):
            return (
                "with speculative decoding this vLLM verifies several tokens a step, which its"
                f" {BACKEND} treats as prefill: no effect (0.32 changes that)"
            )
        return ""

    # ------------------------------------------------------------------ what can be
    def probe(self) -> dict[str, dict[str, Any]]:
        if self._why:
            return {name: {"live": False, "why": self._why} for name in self.KNOBS}
        values = self.values()
        own = self._own_splits()
        allowed: dict[str, dict[str, Any]] = {
            "kv_splits": {
                "low": 0,
                "high": self._most_splits(),
                "why": f"0: vLLM's own choice, at most {own} here and always {own} in full CUDA graphs",
            },
            "attn_decode_tile": {"values": self._tiles()},
            "attn_decode_warps": {"values": (1, 2, 4, 8)},
            "attn_decode_stages": {"low": 1, "high": 8},
        }
        defaults = {"kv_splits": 0, **_OWN_TILE}
        return {
            name: {"live": True, "value": values[name], "default": defaults[name], **allowed[name]}
            for name in self.KNOBS
        }

    def _tiles(self) -> tuple[int, ...]:
        """Tokens of KV that one step multiplies with: 8-bit numbers are taken 32 at a time (tl.dot)."""
        is_fp8 = str(self._worker.cache_config.cache_dtype).startswith("fp8")
        return (32, 64, 128) if is_fp8 else (16, 32, 64, 128)

    def _own_splits(self) -> int:
        """What vLLM takes for the longest sequence."""
        from vllm.platforms import current_platform
        from vllm.v1.attention.backends.mla import triton_mla

        own = getattr(triton_mla._compute_num_kv_splits, "glmlab_wraps", triton_mla._compute_num_kv_splits)
        longest = self._worker.vllm_config.model_config.max_model_len
        return int(own(longest, current_platform.num_compute_units()))

    def _bytes_per_split(self) -> int:
        """Of the workspace: rows x heads x (latent + 1) float32, at the most rows of a step."""
        builder = self._builders[0]
        config = self._worker.vllm_config
        rows = config.scheduler_config.max_num_seqs * max(
            getattr(builder, "reorder_batch_threshold", None) or 1, 1
        )
        return int(rows * builder.num_heads * (builder.mla_dims.kv_lora_rank + 1) * 4)

    def _most_splits(self) -> int:
        import torch

        free, _ = torch.cuda.mem_get_info(self._worker.device)
        held = max(self._own_splits(), forced("kv_splits") or 0) * self._bytes_per_split()
        return int(min(max((free + held - _RESERVE_BYTES) // self._bytes_per_split(), 1), _MOST_SPLITS))

    # ------------------------------------------------------------------ what is
    def values(self) -> dict[str, Any]:
        if self._why:
            return {}
        from vllm.v1.attention.backends.mla import triton_mla

        # Asked as a launch asks: a count that is forced is the same for every length.
        short, long = (triton_mla._compute_num_kv_splits(length, 1 << 20) for length in (1, 1 << 22))
        return {
            "kv_splits": int(short) if short == long else 0,
            **{name: forced(name) or own for name, own in _OWN_TILE.items()},
        }

    def used(self) -> dict[str, Any]:
        if self._why:
            return {}
        found = _used.found()
        if not forced("kv_splits"):
            found.pop("kv_splits", None)  # vLLM's own choice, which changes with the batch
        return found

    def notes(self, batches: Sequence[int]) -> list[str]:
        return []

    def is_captured(self, name: str) -> bool:
        return groups.full_graphs(self._worker)

    # ------------------------------------------------------------------ changing
    def check(self, changes: Mapping[str, Any]) -> None:
        """Refuse what cannot run, by compiling it, before anything is changed."""
        from vllm.v1.attention.ops import triton_decode_attention as ops

        after = {**self.values(), **changes}
        splits = after["kv_splits"] or self._own_splits()
        of_splits = {"NUM_KV_SPLITS": splits, **self._strides(splits)}
        constants = {constant: after[name] for name, constant in _CONSTANT.items()}
        shown = ", ".join(f"{name} = {value}" for name, value in changes.items())
        refuse_what_cannot_run(
            [
                *ops._fwd_grouped_kernel_stage1.attempts(shown, "decode", {**of_splits, **constants}),
                *ops._fwd_kernel_stage2.attempts(shown, "merge", of_splits),
            ],
            device_limits(self._worker.device),
        )

    def _strides(self, splits: int) -> dict[str, int]:
        """Of the scratch, rows x heads x splits x (latent + 1): Triton compiles for multiples of 16 apart."""
        builder = self._builders[0]
        one = int(builder.mla_dims.kv_lora_rank) + 1
        return {
            "stride_mid_ob": builder.num_heads * splits * one,
            "stride_mid_oh": splits * one,
            "stride_mid_os": one,
        }

    def set(self, name: str, value: Any) -> bool:
        _used.clear()
        if value == {"kv_splits": 0, **_OWN_TILE}[name]:
            release(name)
        else:
            force(name, value)
        if name == "kv_splits":
            for builder in self._builders:
                _reserve(builder)
        return True


_RESERVE = "_reserve_attn_logits_workspace"


def _reserve(builder: Any) -> None:
    """Have vLLM reserve its workspace for the count in force; it must be unlocked."""
    if hasattr(builder, _RESERVE):
        builder._reserve_attn_logits_workspace()
        return
    from vllm.v1.attention.backends.mla import triton_mla

    config = builder.vllm_config
    rows = config.scheduler_config.max_num_seqs * builder.reorder_batch_threshold
    heads = builder.num_heads * getattr(builder, "dcp_world_size", 1)
    triton_mla._reserve_attn_logits_workspace(config, rows, heads, builder.mla_dims.kv_lora_rank)


def _source(function: Any) -> str:
    import inspect

    try:
        return inspect.getsource(function)
    except OSError:
        return ""
