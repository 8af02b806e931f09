"""Where a worker's model runner keeps its attention: groups of layers with one backend each."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any


def attention_groups(worker: Any) -> Iterator[Any]:
    """Attention groups of the model itself, without a drafter's."""
    return itertools.chain.from_iterable(getattr(worker.model_runner, "attn_groups", None) or ())


def draft_groups(worker: Any) -> Iterator[Any]:
    """Attention groups of a drafter for speculative decoding: V1 keeps a list, V2 a list of lists."""
    runner = worker.model_runner
    nested = getattr(getattr(runner, "speculator", None), "attn_groups", None) or ()
    yield from itertools.chain.from_iterable(nested)
    yield from getattr(getattr(runner, "drafter", None), "draft_attn_groups", None) or ()


def builders(worker: Any, backend: str) -> list[Any]:
    """Metadata builders of one backend, the drafter's too: all state of split-KV lives in them."""
    return [
        builder
        for group in itertools.chain(attention_groups(worker), draft_groups(worker))
        if group.backend.get_name() == backend
        for builder in group.metadata_builders
    ]


def backend_name(worker: Any) -> str:
    """Attention backends of the model, usually one."""
    return "+".join(sorted({group.backend.get_name() for group in attention_groups(worker)}))


def speculates(worker: Any) -> bool:
    """Whether decode steps verify several drafted tokens at once."""
    return getattr(worker.vllm_config, "speculative_config", None) is not None


def full_graphs(worker: Any) -> bool:
    """Whether CUDA graphs of this engine hold attention: piecewise ones leave it out."""
    mode = worker.vllm_config.compilation_config.cudagraph_mode
    return mode is not None and bool(mode.has_full_cudagraphs())


def why_not(worker: Any, wanted: str) -> str:
    """What a seam of another attention backend says of its knobs."""
    return f"the model's attention backend is {backend_name(worker)}, not {wanted}"


def never_splits() -> str:
    """Why no backend of this process splits KV; empty where one may."""
    from vllm import envs

    return "VLLM_BATCH_INVARIANT is set, so KV is never split" if envs.VLLM_BATCH_INVARIANT else ""
