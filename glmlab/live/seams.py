"""Which seams the installed vLLM has: ``python -m glmlab.live.seams`` prints one JSON line.

This looks at code, without an engine. A running engine is probed again, for its own model.
"""

from __future__ import annotations

import importlib
import inspect
import json
from typing import Any

from glmlab.live import (
    cpu_attention,
    flash_attention,
    fp8_gemm_tiles,
    moe_tiles,
    scheduler_limits,
    triton_attention,
    triton_mla,
)


def seams() -> dict[str, Any]:
    """``{"vllm", "device", "knobs": {name: {"live", "why"}}}`` of the installed vLLM."""
    import vllm
    from vllm.platforms import current_platform

    on_cpu = current_platform.is_cpu()
    knobs = dict.fromkeys(scheduler_limits.KNOBS, _scheduler_seam())
    of_cpu = cpu_attention.install() if on_cpu else "belongs to the CPU engine"
    knobs |= dict.fromkeys(cpu_attention.CpuAttention.KNOBS, of_cpu)
    of_gpu = {
        triton_attention.TritonAttention.KNOBS: triton_attention.install,
        triton_mla.TritonMla.KNOBS: triton_mla.install,
        moe_tiles.MoeTiles.KNOBS: moe_tiles.install,
        fp8_gemm_tiles.Fp8GemmTiles.KNOBS: fp8_gemm_tiles.install,
        flash_attention.FlashAttention.KNOBS: _flash_attention_seam,
    }
    for names, install in of_gpu.items():
        why = "a kernel of GPUs" if on_cpu else install()
        for name in names:
            if knobs.get(name) != "":  # kv_splits: one of its two backends is enough
                knobs[name] = why
    return {
        "vllm": vllm.__version__,
        "device": current_platform.device_name if on_cpu else current_platform.get_device_name(),
        "knobs": {name: {"live": not why, "why": why} for name, why in knobs.items()},
    }


def _flash_attention_seam() -> str:
    from vllm.platforms import current_platform

    if current_platform.has_device_capability(90) and not current_platform.has_device_capability(100):
        return ""
    return "FlashAttention 3 is for Hopper; FlashAttention 2 takes no bound on splits"


def _scheduler_seam() -> str:
    try:
        module = importlib.import_module("vllm.v1.core.sched.scheduler")
        source = inspect.getsource(module.Scheduler)
    except (ImportError, AttributeError, OSError) as error:
        return f"this vLLM's scheduler is not where 0.26 to 0.33 have it ({error})"
    for name in ("max_num_running_reqs", "max_num_scheduled_tokens", "long_prefill_token_threshold"):
        if name not in source:
            return f"this vLLM's scheduler does not read {name}"
    return ""


if __name__ == "__main__":
    print(json.dumps(seams()))
