"""Live knobs of vLLM's CPU attention: split-KV on or off, and the kernel variant (``isa``).

Both are arguments of ``cpu_attn_get_scheduler_metadata``, which the metadata builder calls once a
step; the variant is also written on each layer, for the kernel that stores new KV. The call is
wrapped, so that what a forward pass really ran with is seen, not assumed.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from glmlab.live.attention_groups import attention_groups, why_not
from glmlab.live.forced import force, forced

# Variants that lay KV out alike, so that one reads what another wrote (checked by
# tests/engine/test_live_cpu.py); any other change of variant must drop prefilled KV.
_SAME_KV_LAYOUT = frozenset({"vec", "vec16"})

_used: dict[str, Any] = {}  # knob -> value of the latest forward pass


def forget() -> None:
    """Forget launches, for a new engine of this process."""
    _used.clear()


def install() -> str:
    """Wrap the one call that both knobs pass through; say why not where it is missing."""
    try:
        from vllm import _custom_ops as ops
        from vllm.v1.attention.backends import cpu_attn
    except ImportError as error:
        return f"this vLLM has no CPU attention ({error})"
    if cpu_attn.ops is not ops:
        return "this vLLM's CPU attention does not call vllm._custom_ops"
    original = getattr(ops, "cpu_attn_get_scheduler_metadata", None)
    if original is None:
        return "this vLLM has no cpu_attn_get_scheduler_metadata"
    if hasattr(original, "glmlab_wraps"):
        return ""
    _install_builder()

    @functools.wraps(original)
    def with_knobs(*args: Any, **kwargs: Any) -> Any:
        if "enable_kv_split" in kwargs:
            wanted = forced("cpu_split_kv")
            kwargs["enable_kv_split"] = kwargs["enable_kv_split"] if wanted is None else wanted
            _used["cpu_split_kv"] = bool(kwargs["enable_kv_split"])
        if "isa" in kwargs:
            _used["cpu_attn_isa"] = kwargs["isa"]
        return original(*args, **kwargs)

    with_knobs.glmlab_wraps = original  # type: ignore[attr-defined]
    ops.cpu_attn_get_scheduler_metadata = with_knobs
    return ""


def _install_builder() -> None:
    """Have every builder that will be made take the forced variant: the way of an exported bundle."""
    from vllm.v1.attention.backends.cpu_attn import CPUAttentionMetadataBuilder as Builder

    if hasattr(Builder.__init__, "glmlab_wraps"):
        return
    original = Builder.__init__

    @functools.wraps(original)
    def with_isa(self: Any, *args: Any, **kwargs: Any) -> None:
        original(self, *args, **kwargs)
        if forced("cpu_attn_isa"):
            _set_isa(self, forced("cpu_attn_isa"))

    with_isa.glmlab_wraps = original  # type: ignore[attr-defined]
    Builder.__init__ = with_isa


class CpuAttention:
    """The two knobs of one worker; a :class:`glmlab.live.seam.Seam`.

    Parameters
    ----------
    worker : vllm Worker
        Whose model runner holds the metadata builders.
    """

    KNOBS: ClassVar[tuple[str, ...]] = ("cpu_split_kv", "cpu_attn_isa")

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._why = install() or self._missing_parts()

    def _missing_parts(self) -> str:
        builders = list(self._builders())
        if not builders:
            return why_not(self._worker, "CPU_ATTN")
        if not all(isinstance(getattr(b, "isa", None), str) for b in builders):
            return "this vLLM's metadata builder holds no isa"
        return ""

    def _builders(self) -> Iterator[Any]:
        for group in attention_groups(self._worker):
            if group.backend.get_name() == "CPU_ATTN":
                yield from group.metadata_builders

    def probe(self) -> dict[str, dict[str, Any]]:
        """Knob -> fields of a KnobStatus."""
        if self._why:
            return {name: {"live": False, "why": self._why} for name in self.KNOBS}
        values = self.values()
        variants = self._variants()
        isa: dict[str, Any] = {
            "live": len(variants) > 1,
            "value": values["cpu_attn_isa"],
            "values": variants,
        }
        if len(variants) == 1:
            isa["why"] = "this CPU, head size and KV dtype have one kernel variant only"
        return {
            "cpu_split_kv": {
                "live": True,
                "value": values["cpu_split_kv"],
                "values": (True, False),
            },
            "cpu_attn_isa": isa,
        }

    def _variants(self) -> tuple[str, ...]:
        """Kernel variants that this CPU, head size, KV dtype and block size can run.

        From ``_get_attn_isa`` of vLLM 0.26 to 0.33 and its kernels' dispatch: the plain vector
        variants exist on x86 for any 16-bit or 32-bit KV; ``vec`` needs blocks and heads that are
        multiples of 32, AMX also bfloat16; an FP8 cache is read by the default variant only.
        """
        import torch
        from vllm.platforms import CpuArchEnum, current_platform

        builder = next(self._builders())
        if current_platform.get_cpu_architecture() != CpuArchEnum.X86:
            return (builder.isa,)
        cache_dtype = str(self._worker.cache_config.cache_dtype)
        if "fp8" in cache_dtype:
            return (builder.isa,)
        variants = ["vec16"]
        if builder.block_size % 32 == 0 and builder.head_dim % 32 == 0:
            variants.insert(0, "vec")
            if builder.dtype == torch.bfloat16 and torch.cpu._is_amx_tile_supported():
                variants.insert(0, "amx")
        return tuple(variants)

    def values(self) -> dict[str, Any]:
        """What is in force, read from the objects that the kernels are launched from."""
        if self._why:
            return {}
        from vllm import envs

        wanted = forced("cpu_split_kv")
        split = envs.VLLM_CPU_ATTN_SPLIT_KV if wanted is None else wanted
        variants = {builder.isa for builder in self._builders()}
        variants |= {isa for b in self._builders() for isa in _layer_isas(b, self._worker.vllm_config)}
        return {
            "cpu_split_kv": bool(split),
            "cpu_attn_isa": variants.pop() if len(variants) == 1 else f"mixed: {sorted(variants)}",
        }

    def used(self) -> dict[str, Any]:
        """What the latest forward pass ran with; empty before the first."""
        return {} if self._why else dict(_used)

    def notes(self, batches: Sequence[int]) -> list[str]:
        return []

    def is_captured(self, name: str) -> bool:
        return False

    def check(self, changes: Mapping[str, Any]) -> None:
        """Nothing beyond what the probe allows."""

    def set(self, name: str, value: Any) -> bool:
        _used.pop(name, None)
        force(name, value)
        if name == "cpu_split_kv":
            return True
        before = {builder.isa for builder in self._builders()}
        for builder in self._builders():
            _set_isa(builder, value)
        return (before | {value}) <= _SAME_KV_LAYOUT or before == {value}


def _set_isa(builder: Any, isa: str) -> None:
    builder.isa = isa
    if hasattr(builder, "_set_isa_to_layers"):  # 0.27 and later; before, each impl holds its own
        builder._set_isa_to_layers(builder.layer_names)
        return
    for layer in _layers(builder, builder.vllm_config):
        layer.impl.isa = isa


def _layers(builder: Any, config: Any) -> list[Any]:
    context = config.compilation_config.static_forward_context
    return [context[name] for name in builder.layer_names if name in context]


def _layer_isas(builder: Any, config: Any) -> Iterator[str]:
    for layer in _layers(builder, config):
        held = getattr(layer, "isa", None) or getattr(layer.impl, "isa", None)
        if held is not None:
            yield held
