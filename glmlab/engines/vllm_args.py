"""Recipe -> vLLM's arguments and environment. The one place that knows both vocabularies."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from glmlab.catalog import find_model
from glmlab.engines.twin_folder import twin_folder
from glmlab.live.plugin import KNOBS_VARIABLE, start_knobs
from glmlab.recipe import OWN_FIELD, Recipe

RANDOM_WEIGHTS = "glmlab_random"  # load format that glmlab's vLLM plugin registers

_BINDING = "VLLM_CPU_OMP_THREADS_BIND"
# Only where a recipe says something: vLLM's defaults differ between versions and are its own.
_LOAD_FORMAT = {"dummy": "dummy", "random": RANDOM_WEIGHTS}
# 1 is vLLM's own default, and older ones know no argument of that name.
_OF_SEVERAL_RANKS = ("data_parallel_size", "decode_context_parallel_size")


def engine_arguments(recipe: Recipe, ceilings: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Arguments for ``vllm.EngineArgs``, without those that vLLM should choose.

    Parameters
    ----------
    recipe : Recipe
        What to run.
    ceilings : mapping, optional
        Limit -> value to start with where it exceeds the recipe's, so that a study can lower the
        limit live.

    Returns
    -------
    dict
        Python names, e.g. ``tensor_parallel_size``.
    """
    arguments: dict[str, Any] = {}
    for argument, field in OWN_FIELD.items():
        value = getattr(recipe, field)
        if value is not None and value != "auto":
            arguments[argument] = value
    arguments["model"] = model_location(recipe)
    arguments |= _translated(recipe)
    if recipe.weights == "auto":
        arguments.pop("load_format", None)
    for argument in _OF_SEVERAL_RANKS:
        if arguments[argument] == 1:
            del arguments[argument]
    for name, ceiling in (ceilings or {}).items():
        own = getattr(recipe, name)
        if own is not None:
            arguments[name] = max(own, ceiling)
    for argument, value in recipe.engine_args.items():
        if isinstance(value, Mapping) and isinstance(arguments.get(argument), dict):
            arguments[argument] = {**arguments[argument], **value}
        else:
            arguments[argument] = value
    return arguments


def _translated(recipe: Recipe) -> dict[str, Any]:
    """What vLLM wants in another form than the recipe has it."""
    made: dict[str, Any] = {}
    if recipe.weights != "auto":
        made["load_format"] = _LOAD_FORMAT[recipe.weights]
    if recipe.custom_all_reduce is not None:
        made["disable_custom_all_reduce"] = not recipe.custom_all_reduce
    if recipe.mtp_tokens:
        made["speculative_config"] = {"method": "mtp", "num_speculative_tokens": recipe.mtp_tokens}
    if recipe.cudagraph_capture_sizes is not None:
        made["cudagraph_capture_sizes"] = list(recipe.cudagraph_capture_sizes)
    if recipe.cudagraph_mode is not None:
        made["compilation_config"] = {"cudagraph_mode": recipe.cudagraph_mode}
    if recipe.flash_attn_max_splits is not None:
        made["attention_config"] = {"flash_attn_max_num_splits_for_cuda_graph": recipe.flash_attn_max_splits}
    return made


# Knobs that vLLM has no option for: glmlab's plugin forces them before the engine is built.
_CPU_PLUGIN_KNOBS = ("cpu_split_kv", "cpu_attn_isa")
_GPU_PLUGIN_KNOBS = (
    "kv_splits",
    "kv_split_min_grid",
    "attn_decode_tile",
    "attn_decode_warps",
    "attn_decode_stages",
    "attn_prefill_tile",
    "attn_prefill_warps",
    "attn_prefill_stages",
    "moe_tiles",
    "fp8_gemm_tiles",
)


def knobs_at_start(recipe: Recipe, *, for_cpu: bool) -> dict[str, Any]:
    """Knobs of the recipe that the plugin forces from the start, without those left to vLLM."""
    names = _CPU_PLUGIN_KNOBS if for_cpu else _GPU_PLUGIN_KNOBS
    return {name: value for name in names if (value := getattr(recipe, name)) is not None}


def model_location(recipe: Recipe) -> str:
    """Folder of the model, or its hub name where it is not on this machine; a rank twin gets one."""
    model = find_model(recipe.model)
    if model.path is None and model.config is not None and not model.on_hub:
        return str(twin_folder(model))
    return str(model.path) if model.path else model.name


def engine_environment(recipe: Recipe, *, for_cpu: bool) -> dict[str, str]:
    """Environment variables that the recipe needs before vLLM is imported.

    Parameters
    ----------
    recipe : Recipe
        What to run.
    for_cpu : bool
        Whether the engine is vLLM's CPU engine, whose threads are bound through the environment.
    """
    environment = dict(recipe.env)
    if not for_cpu:
        return environment
    ranks = recipe.tensor_parallel * recipe.pipeline_parallel  # of the one replica that an engine runs
    if recipe.cpu_threads is not None:
        environment.setdefault("OMP_NUM_THREADS", str(recipe.cpu_threads))
    if ranks > 1 and (recipe.cpu_threads is not None or _BINDING not in os.environ):
        # vLLM's own choice is one NUMA node per rank, and it gives up where there are fewer.
        threads = recipe.cpu_threads or max(1, len(os.sched_getaffinity(0)) // ranks)
        environment.setdefault(_BINDING, "|".join(cpu_slices(threads, ranks)))
    return environment


def cpu_slices(threads: int, ranks: int) -> list[str]:
    """CPUs of each rank, as vLLM's binding writes them: consecutive ones of those allowed here."""
    allowed = sorted(os.sched_getaffinity(0))
    return [
        ",".join(str(allowed[(rank * threads + i) % len(allowed)]) for i in range(threads))
        for rank in range(ranks)
    ]


def forced_at_start(recipe: Recipe, variables: Mapping[str, str], *, for_cpu: bool) -> str:
    """What the plugin is to force in every process: an environment's own wishes, then the recipe's.

    Graphs are captured with it, so that an engine started with a value and one changed to it live
    are the same.
    """
    wishes = start_knobs(variables.get(KNOBS_VARIABLE, os.environ.get(KNOBS_VARIABLE, ""))) or {}
    return json.dumps(wishes | knobs_at_start(recipe, for_cpu=for_cpu))
