"""Recipe -> what ``vllm serve`` reads: a YAML of its options, and the environment beside it."""

from __future__ import annotations

import json
from typing import Any

from glmlab.engines.vllm_args import engine_arguments, engine_environment
from glmlab.errors import ExportError
from glmlab.recipe import Recipe
from glmlab.tiles import DEFAULT

# Live knobs that no option, variable or file of vLLM's own can set: glmlab's plugin sets them at
# start. Beside each the value that leaves the choice to vLLM, and then needs no plugin.
_PLUGIN_ONLY = {
    "cpu_attn_isa": None,
    "kv_splits": 0,
    "kv_split_min_grid": None,
    "attn_decode_tile": None,
    "attn_decode_warps": None,
    "attn_decode_stages": None,
    "attn_prefill_tile": None,
    "attn_prefill_warps": None,
    "attn_prefill_stages": None,
    "fp8_gemm_tiles": DEFAULT,
}


def serve_arguments(recipe: Recipe) -> dict[str, Any]:
    """Options of ``vllm serve``, as its ``--config`` file spells them.

    A false flag is written as its negative (``no-enable-prefix-caching: true``), since vLLM 0.26
    drops ``enable-prefix-caching: false`` without a word; a null would become the text ``None``,
    so it is left out.

    Raises
    ------
    ExportError
        For what no option can carry.
    """
    if recipe.dense_mla:
        raise ExportError(
            "dense_mla = true: vLLM has no option for it (glmlab hands it a function in this process), so"
            " serve.yaml cannot carry it; export a recipe with dense_mla: false"
        )
    options: dict[str, Any] = {}
    for name, value in engine_arguments(recipe).items():
        option = name.replace("_", "-")
        if value is None:
            continue
        if value is False:
            if name in _TRUE_BY_DEFAULT:
                options[f"no-{option}"] = True
            continue
        options[option] = value
    if recipe.flash_attn_max_splits is not None:
        options["attention-config"] = {
            **options.get("attention-config", {}),
            "flash_attn_max_num_splits_for_cuda_graph": recipe.flash_attn_max_splits,
        }
    # Serving needs a tokenizer, tuning does not; a model that has none serves token ids.
    if recipe.weights == "random":
        options["skip-tokenizer-init"] = True
    return options


_TRUE_BY_DEFAULT = frozenset({"enable_prefix_caching", "enable_chunked_prefill"})


def serve_environment(recipe: Recipe, *, for_cpu: bool) -> dict[str, str]:
    """Variables that must be set before vLLM starts, be it the CPU engine or not."""
    environment = engine_environment(recipe, for_cpu=for_cpu)
    if recipe.cpu_split_kv is not None:
        environment["VLLM_CPU_ATTN_SPLIT_KV"] = str(int(recipe.cpu_split_kv))
    forced = plugin_knobs(recipe)
    if forced:
        environment["GLMLAB_KNOBS"] = json.dumps(forced, separators=(",", ":"))
    return environment


def serve_command(*, for_cpu: bool) -> str:
    """The command that starts a server with ``serve.yaml``.

    The ``vllm`` command of the vllm-cpu distribution looks for a distribution named vllm and fails.
    """
    if for_cpu:
        return "python -m vllm.entrypoints.openai.api_server --config serve.yaml"
    return "vllm serve --config serve.yaml"


def plugin_knobs(recipe: Recipe) -> dict[str, Any]:
    """Knobs that only glmlab's plugin can set."""
    return {
        name: value
        for name, vllms in _PLUGIN_ONLY.items()
        if (value := getattr(recipe, name)) is not None and value != vllms
    }
