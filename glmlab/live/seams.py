"""Which seams the installed vLLM has: ``python -m glmlab.live.seams`` prints one JSON line.

This looks at code, without an engine. A running engine is probed again, for its own model.
"""

from __future__ import annotations

import importlib
import inspect
import json
from typing import Any

from glmlab.live import cpu_attention, scheduler_limits


def seams() -> dict[str, Any]:
    """``{"vllm", "device", "knobs": {name: {"live", "why"}}}`` of the installed vLLM."""
    import vllm
    from vllm.platforms import current_platform

    knobs = dict.fromkeys(scheduler_limits.KNOBS, _scheduler_seam())
    on_cpu = current_platform.is_cpu()
    why = cpu_attention.install() if on_cpu else "belongs to the CPU engine"
    knobs |= dict.fromkeys(cpu_attention.KNOBS, why)
    return {
        "vllm": vllm.__version__,
        "device": current_platform.device_name if on_cpu else current_platform.get_device_name(),
        "knobs": {name: {"live": not why, "why": why} for name, why in knobs.items()},
    }


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
