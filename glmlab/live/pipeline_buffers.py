"""The buffer in which a later pipeline stage receives from the one before it, where vLLM forgot to make it.

vLLM's runner makes it in its dummy run. Its CPU runner leaves that out where nothing is compiled
(``CPUModelRunner.warming_up_model`` of 0.32.0), and the first step of a later stage then ends the engine
with an AssertionError.
"""

from __future__ import annotations

from typing import Any


def make_missing_buffers(worker: Any) -> bool:
    """Make it as the dummy run would; true where it was missing."""
    from vllm.distributed import get_pp_group

    runner = worker.model_runner
    # A runner without the attribute, such as the V2 one, keeps what it receives elsewhere.
    if get_pp_group().is_first_rank or getattr(runner, "intermediate_tensors", "elsewhere") is not None:
        return False
    runner.intermediate_tensors = runner.model.make_empty_intermediate_tensors(
        batch_size=runner.max_num_tokens, dtype=runner.model_config.dtype, device=runner.device
    )
    return True
