"""Live knob of FlashAttention 3 on Hopper: the most KV splits that a CUDA graph leaves room for.

FlashAttention 3 chooses its splits per step; inside a full graph vLLM bounds them by the builder's
``max_num_splits``, since their buffers are allocated at capture. Outside graphs the kernel's own
heuristic decides and the knob has no effect. FlashAttention 2 (SM120) ignores it. Read in vLLM 0.26
and 0.32: v1/attention/backends/flash_attn.py and mla/flashattn_mla.py.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from glmlab.live import attention_groups as groups
from glmlab.live.kernel_launches import Used

BACKENDS = ("FLASH_ATTN", "FLASH_ATTN_MLA")
_BUILDERS = (
    ("vllm.v1.attention.backends.flash_attn", "FlashAttentionMetadataBuilder"),
    ("vllm.v1.attention.backends.mla.flashattn_mla", "FlashAttnMLAMetadataBuilder"),
)
_MOST_SPLITS = 128  # of flash_api.cpp: the combine kernel takes no more

_used = Used()


def forget() -> None:
    """Forget launches, for a new engine of this process."""
    _used.clear()


def install() -> str:
    """Watch what every step's metadata tells the kernel; say why not where a part is missing."""
    reasons = []
    for module, name in _BUILDERS:
        try:
            builder = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            reasons.append(f"this vLLM has no {name} ({error})")
            continue
        _watch(builder)
    return "" if len(reasons) < len(_BUILDERS) else "; ".join(reasons)


class FlashAttention:
    """The knob of one worker; a :class:`glmlab.live.seam.Seam`."""

    KNOBS: ClassVar[tuple[str, ...]] = ("flash_attn_max_splits",)

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._builders = [builder for name in BACKENDS for builder in groups.builders(worker, name)]
        self._why = self._missing_parts()

    def _missing_parts(self) -> str:
        if not self._builders:
            return groups.why_not(self._worker, "FLASH_ATTN")
        builder = self._builders[0]
        if not hasattr(builder, "max_num_splits"):
            return "this vLLM's FlashAttention builder holds no max_num_splits"
        # FLASH_ATTN_MLA has no FlashAttention 2; FLASH_ATTN schedules ahead with version 3 only.
        if not getattr(builder, "aot_schedule", getattr(builder, "fa_aot_schedule", False)):
            return "this GPU runs FlashAttention 2, which takes no bound on splits (3 is for Hopper)"
        if reason := groups.never_splits():
            return reason
        if not groups.full_graphs(self._worker):
            return "no full CUDA graph holds attention here, so the kernel's own heuristic decides"
        return ""

    def probe(self) -> dict[str, dict[str, Any]]:
        if self._why:
            return {name: {"live": False, "why": self._why} for name in self.KNOBS}
        value = self.values()["flash_attn_max_splits"]
        return {
            "flash_attn_max_splits": {
                "live": True,
                "value": value,
                "default": self._own_choice(),
                "low": 1,
                "high": _MOST_SPLITS,
            }
        }

    @staticmethod
    def _own_choice() -> int | None:
        """vLLM's default, whatever this engine was started with."""
        from vllm.config.attention import AttentionConfig

        fields = {field.name: field.default for field in dataclasses.fields(AttentionConfig)}
        found = fields.get("flash_attn_max_num_splits_for_cuda_graph")
        return found if isinstance(found, int) else None

    def values(self) -> dict[str, Any]:
        if self._why:
            return {}
        held = {int(builder.max_num_splits) for builder in self._builders}
        return {"flash_attn_max_splits": held.pop() if len(held) == 1 else f"mixed: {sorted(held)}"}

    def used(self) -> dict[str, Any]:
        return {} if self._why else _used.found()

    def notes(self, batches: Sequence[int]) -> list[str]:
        return []

    def is_captured(self, name: str) -> bool:
        return True

    def check(self, changes: Mapping[str, Any]) -> None:
        """Nothing beyond the range: the buffers are the kernel's own."""

    def set(self, name: str, value: Any) -> bool:
        _used.clear()
        for builder in self._builders:
            builder.max_num_splits = value
        return True


def _watch(builder: Any) -> None:
    """See what the metadata of each step says, for every builder of a class."""
    if hasattr(builder.build, "glmlab_wraps"):
        return
    own = builder.build

    @functools.wraps(own)
    def build(*args: Any, **kwargs: Any) -> Any:
        metadata = own(*args, **kwargs)
        part = getattr(metadata, "decode", metadata)
        splits = getattr(part, "max_num_splits", None)
        if splits:  # 0: outside graphs
            _used.saw("flash_attn_max_splits", int(splits))
        return metadata

    build.glmlab_wraps = own  # type: ignore[attr-defined]
    builder.build = build
