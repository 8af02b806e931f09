"""The recipe of a rank twin: what of a deployment's recipe holds on one rank, and what is left behind.

See :mod:`glmlab.models.rank_twin` for the model. Nothing is dropped in silence: the twin's ``notes`` say each
change and its reason.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from glmlab.catalog import Model, find_model
from glmlab.errors import RecipeError
from glmlab.models.rank_twin import CARRIES_OVER, DOES_NOT, TwinName
from glmlab.recipe import Recipe

# What vLLM 0.32.0 quantizes while it loads an unquantized model (config/quantization.py,
# layers/quantization). All others read weights that are quantized in the checkpoint.
ONLINE_QUANTIZATION = frozenset(
    {
        "experts_int8",
        "fp8",
        "fp8_per_block",
        "fp8_per_channel",
        "fp8_per_tensor",
        "int8_per_channel_weight_only",
        "mxfp8",
        "nvfp4_per_token",
        "online",
    }
)
# vLLM's Triton kernels run unquantized weights, too; of the others many exist for one format only.
_ANY_WEIGHTS = (None, "auto", "triton")

# EngineArgs of vLLM 0.32.0 by the beginnings of their names.
_OF_SEVERAL_RANKS = (
    "all2all_backend",
    "cp_",
    "data_parallel",
    "dbo_",
    "dcp_",
    "decode_context_parallel",
    "device_ids",
    "disable_custom_all_reduce",
    "disable_nccl",
    "distributed_",
    "elastic_ep",
    "enable_batch_sharded_sampling",
    "enable_dbo",
    "enable_elastic_ep",
    "enable_ep_weight_filter",
    "enable_eplb",
    "enable_nccl",
    "eplb_config",
    "expert_placement",
    "master_",
    "nnodes",
    "node_rank",
    "prefill_context_parallel",
    "ubatch_size",
)
_OF_THE_MODEL = (
    "code_revision",
    "config_format",
    "hf_config_path",
    "hf_overrides",
    "model_class_overrides",
    "model_loader_extra_config",
    "revision",
)
_OF_SPECULATION = ("spec_", "speculative_config")
_THREAD_BINDING = "VLLM_CPU_OMP_THREADS_BIND"  # one part for each rank, with | between them


class Change(NamedTuple):
    """One field that is another in the twin.

    Attributes
    ----------
    field : str
        Of the recipe.
    value : Any
        In the twin.
    why : str
        A sentence for the notes.
    """

    field: str
    value: Any
    why: str


def rank_twin(recipe: Recipe, tp: int, layers: int | None = None) -> Recipe:
    """The recipe that runs on one GPU what one rank of a deployment runs.

    Parameters
    ----------
    recipe : Recipe
        Of the deployment.
    tp : int
        Ranks that share each layer there.
    layers : int, optional
        Layers of the twin; all of the model's by default.

    Raises
    ------
    RecipeError
        If the model's config.json is not known, or the model cannot be spread so.
    """
    _check_number("tp", tp)
    if layers is not None:
        _check_number("layers", layers)
    base = find_model(recipe.model)
    every = 1 if base.config is None else base.layers  # refused below where it is not known
    asked = TwinName(recipe.model, tp, layers or every)
    twin = find_model(str(asked))
    changes = list(_changes(recipe, base, twin))
    fields = {
        "name": f"{recipe.name}-tp{tp}-l{asked.layers}",
        "notes": _notes(recipe.notes, twin.note, changes),
        "model": str(asked),
        "weights": "random",
        "tensor_parallel": 1,
        "pipeline_parallel": 1,
        "expert_parallel": False,
    }
    return recipe.replace(**fields | {change.field: change.value for change in changes})


def _check_number(name: str, value: object) -> None:
    """What cannot stand in a twin's name would else be refused as a name, which no one typed."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise RecipeError(f"{name} = {value!r}: expected a whole number, 1 or more")


def _changes(recipe: Recipe, base: Model, twin: Model) -> Iterator[Change]:
    quantization = list(_quantization(recipe, base))
    yield from quantization
    yield from _serving_engine(recipe)
    if base.attention == "mla+dsa":
        yield from _dense_attention(recipe)
    if recipe.kv_cache_bytes is not None and twin.layers != base.layers:
        scaled = math.ceil(recipe.kv_cache_bytes * twin.layers / base.layers)
        yield Change("kv_cache_bytes", scaled, f"as many tokens in {twin.layers} of {base.layers} layers")
    if recipe.expert_parallel:
        yield Change(
            "expert_parallel",
            value=False,
            why="the twin has every expert, narrower, where a rank has some of them whole; MoE tiles and"
            " backends found here do not carry over",
        )
    if recipe.pipeline_parallel > 1:
        yield Change("pipeline_parallel", 1, "a rank of the pipeline has some of the layers only")
    yield from _one_rank(recipe)
    yield from _engine_args(recipe, unquantized=any(c[:2] == ("quantization", None) for c in quantization))
    if "|" in recipe.env.get(_THREAD_BINDING, ""):
        rest = {key: value for key, value in recipe.env.items() if key != _THREAD_BINDING}
        yield Change("env", rest, f"{_THREAD_BINDING} binds several ranks")


def _serving_engine(recipe: Recipe) -> Iterator[Change]:
    other = recipe.serving_engine
    if other == "vllm":
        return
    yield Change(
        "serving_engine",
        "vllm",
        f"glmlab starts vLLM only; {other} has kernels of its own, and what is found here carries over only"
        " where they are the same",
    )
    for field in ("attention_backend", "moe_backend", "linear_backend"):
        value = getattr(recipe, field)
        if value is not None:
            yield Change(field, None, f"{value} is {other}'s name")


def _one_rank(recipe: Recipe) -> Iterator[Change]:
    """Fields that say how several ranks work together, or what the twin's model has not."""
    alone = (
        ("data_parallel", 1, "the twin is one rank of one replica"),
        ("decode_context_parallel", 1, "the twin keeps a sequence's whole KV, a rank here has a part of it"),
        ("custom_all_reduce", None, "one GPU has nobody to reduce with"),
        ("mtp_tokens", 0, "the twin has no MTP layer"),
        ("dense_mla", False, "the twin's attention is dense MLA already"),
    )
    for field, value, why in alone:
        if getattr(recipe, field) != value:
            yield Change(field, value, why)


def _quantization(recipe: Recipe, base: Model) -> Iterator[Change]:
    own = (base.config or {}).get("quantization_config") or {}
    of_checkpoint = own.get("quant_method", "quantized") if isinstance(own, dict) else "quantized"
    asked = recipe.quantization
    if asked in ONLINE_QUANTIZATION:
        if own:
            yield Change(
                "quantization",
                asked,
                f"while loading, where the checkpoint brings its own ({of_checkpoint}): scales may be"
                " grouped otherwise",
            )
        return
    if asked is None and not own:
        return
    yield Change(
        "quantization",
        None,
        f"{asked or of_checkpoint} is read from a checkpoint, which random weights have not; the twin's"
        " weights are unquantized, and GEMM and MoE tiles and backends found with them do not carry over"
        " to it. vLLM can quantize while it loads, where that has the same kernels:"
        f" {', '.join(sorted(ONLINE_QUANTIZATION))}",
    )
    for field in ("moe_backend", "linear_backend"):
        value = getattr(recipe, field)
        if value not in _ANY_WEIGHTS:
            yield Change(field, None, f"{value} may be for quantized weights only")
    if recipe.fp8_gemm_tiles is not None:
        yield Change("fp8_gemm_tiles", None, "no FP8 GEMM without FP8 weights")


def _dense_attention(recipe: Recipe) -> Iterator[Change]:
    backend = recipe.attention_backend
    if backend is not None and "SPARSE" in backend.upper():
        yield Change("attention_backend", None, f"{backend} is sparse, the twin's attention is dense")
    if recipe.kv_cache_dtype == "fp8_ds_mla":
        yield Change("kv_cache_dtype", "fp8", "fp8_ds_mla is the layout of sparse attention")


def _engine_args(recipe: Recipe, *, unquantized: bool) -> Iterator[Change]:
    reasons = {
        _OF_SEVERAL_RANKS: "about several ranks",
        _OF_THE_MODEL: "about the model's own files, which the twin has not",
        _OF_SPECULATION: "about speculation, whose layer the twin has not",
    }
    if unquantized:
        reasons[("quantization_config",)] = "about quantization, which the twin has not"
    kept = dict(recipe.engine_args)
    said = []
    for beginnings, why in reasons.items():
        gone = [name for name in kept if name.startswith(beginnings)]
        for name in gone:
            del kept[name]
        if gone:
            said.append(f"{', '.join(gone)} left out, {why}")
    if said:
        yield Change("engine_args", kept, "; ".join(said))


def _notes(own: str, what: str, changes: list[Change]) -> str:
    lines = [own] if own else []
    lines.append(f"{what[:1].upper()}{what[1:]}.")
    lines += [f"Carries over: {item}." for item in CARRIES_OVER]
    lines += [f"Does not carry over: {item}." for item in DOES_NOT]
    for change in changes:
        value = "" if isinstance(change.value, dict) else f" = {change.value}"
        lines.append(f"Changed: {change.field}{value}: {change.why}.")
    return "\n".join(lines)
