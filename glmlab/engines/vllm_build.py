"""Have vLLM build an engine in this process, and forget it again afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Iterator, Mapping
from typing import Any

from glmlab.engines.vllm_args import engine_arguments
from glmlab.errors import EngineStartError, RecipeError
from glmlab.names import did_you_mean
from glmlab.recipe import Recipe

_EXTENSION = "glmlab.live.worker.GlmlabWorkerExtension"
_LEAST_SHARE = 0.01


def build(recipe: Recipe, ceilings: Mapping[str, int]) -> Any:
    """A vLLM ``LLMEngine``; what vLLM refuses comes back in one line."""
    import torch
    from vllm import EngineArgs
    from vllm.v1.engine.llm_engine import LLMEngine

    from glmlab.live.plugin import register

    register()  # vLLM loads plugins once a process; a notebook may have used vLLM before
    if recipe.cpu_threads is not None:
        # vLLM replaces torch.set_num_threads by a stub, for good; this is what it was.
        torch._C.set_num_threads(recipe.cpu_threads)
    arguments = engine_arguments(recipe, ceilings)
    if recipe.dense_mla:
        from glmlab.live.dense_mla import dsa_to_dense

        arguments["hf_overrides"] = dsa_to_dense
    if recipe.kv_cache_bytes is not None:
        # vLLM sizes nothing by its share of the GPU then, yet would not start unless that much is free, so
        # no engine could stand beside another. Its CPU worker asks for nothing of the kind.
        arguments["gpu_memory_utilization"] = _LEAST_SHARE
    known = {field.name for field in dataclasses.fields(EngineArgs)}
    for name in recipe.engine_args:
        if name not in known:
            raise RecipeError(
                f"engine_args.{name}: this vLLM has no such argument{did_you_mean(name, known)}"
            )
    for name in [name for name in arguments if name not in known]:
        raise RecipeError(f"{name}: this vLLM has no such argument; leave it out of the recipe")
    try:
        engine = LLMEngine.from_engine_args(
            EngineArgs(
                **arguments,
                skip_tokenizer_init=True,  # prompts are token ids
                disable_log_stats=True,
                worker_extension_cls=_EXTENSION,
            )
        )
        if recipe.pipeline_parallel > 1:
            engine.collective_rpc("glmlab_pipeline")
    except Exception as error:
        raise EngineStartError(f"vLLM did not start: {first_line(error)}") from error
    return engine


def first_line(error: BaseException) -> str:
    """The line of an exception that says something; vLLM wraps pydantic's several."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    useful = [line for line in lines if "validation error" not in line]
    text = next((line for line in useful if line.startswith("Value error")), None)
    text = (text or (useful or lines or ["no message"])[0]).removeprefix("Value error, ")
    kind = "" if isinstance(error, ValueError | RuntimeError) else f"{type(error).__name__}: "
    return kind + text.split(" [type=")[0]


@contextlib.contextmanager
def environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Set variables for the time of a start; vLLM keeps what it read."""
    former = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in former.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def forget_engine() -> None:
    """Drop what vLLM and torch keep per process, so that a next engine starts as a first one."""
    import torch
    from vllm.platforms import current_platform

    torch._dynamo.reset()
    if not current_platform.is_cpu():
        torch.accelerator.empty_cache()
        type(current_platform)._global_graph_pool = None
