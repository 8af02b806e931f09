"""What would have to change for a recipe to fit, and what the headroom of one that fits buys.

Each piece of advice is a change that was computed through, never a rule of thumb: the changed recipe goes
through :func:`glmlab.memory.fit` again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from typing import Any

from glmlab.catalog import list_models
from glmlab.errors import GlmlabError
from glmlab.footprint.advice_first import enough_gpus, fewer_ranks, within_model
from glmlab.footprint.advice_limits import may_take_fp8_kv, needs_index_pattern
from glmlab.footprint.advice_line import Advice, advice_of, attempt, said
from glmlab.footprint.part import GB, total
from glmlab.footprint.reasons import beyond_model
from glmlab.memory import MOST_GPUS, Fit, known_model
from glmlab.models.shape import MlaShape
from glmlab.recipe import Recipe

_LEAST_CONTEXT = 4096  # below that a model of this size serves nobody
_USEFUL_CONTEXT = 32_768
_SPARE_BYTES = 0.3 * GB  # what a utilization must leave, for what grows while serving
_CHUNKS = (8192, 4096, 2048)
_SEQUENCES = (1024, 512, 256, 128, 64, 32, 16)
_MOST_CHECKPOINTS = 3
_WORTH_SHARE = 0.03  # of what is missing; less is no advice
_MOST_HELPING = 1  # lines of advice that is not enough


def advise(found: Fit) -> tuple[Advice, ...]:
    """Advice on a fit, the most effective first.

    Parameters
    ----------
    found : Fit
        What to advise on.
    """
    if found.fits:
        return tuple(_headroom(found))
    if found.ranks > found.count:
        return (*enough_gpus(found), *fewer_ranks(found))
    if beyond_model(found):
        return tuple(within_model(found))
    single = [*_settings(found), *_plans(found), *_checkpoints(found)]
    fitting = [each for each in single if each.fits]
    helping = sorted((each for each in single if not each.fits), key=lambda each: -each.gain_bytes)
    if any(_keeps_all(found, each) for each in fitting):
        helping = []
    else:
        fitting += _combined(found)
    # GPUs that are there before others, a long context before a short one, then as tried: cheap ones first.
    fitting.sort(key=lambda each: (each.gpus, -each.longest_context))
    return (*fitting, *helping[:_MOST_HELPING])


# ------------------------------------------------------------------ one that does not fit
def _settings(found: Fit) -> Iterator[Advice]:
    """Changes of the same model on the same GPUs."""
    for changes, what in _setting_changes(found):
        yield from _tried(found, changes, what)
    shorter = _longest(found)
    if found.needs_full_length and _LEAST_CONTEXT <= shorter < found.choices.max_model_len:
        yield from _tried(
            found,
            {"max_model_len": shorter},
            f"{said({'max_model_len': shorter})} in place of {found.choices.max_model_len:,},"
            " what the pool holds",
        )


def _setting_changes(found: Fit) -> Iterator[tuple[dict[str, Any], str]]:
    recipe, choices = found.recipe, found.choices
    if may_take_fp8_kv(found):
        yield (
            {"kv_cache_dtype": "fp8"},
            "kv_cache_dtype fp8, half the bytes a token; what it does to answers: glmlab check",
        )
    highest = _highest_utilization(found)
    if recipe.kv_cache_bytes is not None:
        short = found.room_bytes < found.needed_bytes
        other = found.needed_bytes if short else recipe.kv_cache_bytes + found.free_bytes - _SPARE_BYTES
        if short or (found.free_bytes < 0 and other > 0):
            changes = {"kv_cache_bytes": math.ceil(other)}
            yield changes, f"{said(changes)} in place of {recipe.kv_cache_bytes:,}"
    elif highest > choices.utilization or (found.free_bytes < 0 and highest > 0 and found.room_bytes > 0):
        what = f"gpu_memory_utilization {highest:g} in place of {choices.utilization:g}"
        yield (
            {"gpu_memory_utilization": highest},
            f"{what}, the most that leaves {_SPARE_BYTES / GB:g} GB",
        )
    chunks = [
        {"max_num_batched_tokens": chunk} | ({"max_num_seqs": chunk} if recipe.max_num_seqs > chunk else {})
        for chunk in _CHUNKS
        if chunk < choices.batched_tokens
    ]
    if chunks:
        changes = _mildest(found, chunks)
        what = f"{said(changes)} in place of {choices.batched_tokens:,}"
        yield changes, f"{what}: smaller prefill steps, a later first token"
    sequences = [{"max_num_seqs": most} for most in _SEQUENCES if most < recipe.max_num_seqs]
    if sequences:
        changes = _mildest(found, sequences)
        what = f"{said(changes)} in place of {recipe.max_num_seqs:,}"
        yield changes, f"{what}: fewer sequences at a time"
    if choices.capture_sizes:
        yield {"enforce_eager": True}, "no CUDA graphs: decoding gets slower by far"


def _mildest(found: Fit, tried: list[dict[str, Any]]) -> dict[str, Any]:
    """The first that is enough, else the last."""
    for changes in tried:
        other = attempt(found, changes, found.count)
        if other is not None and other.fits:
            return changes
    return tried[-1]


def _plans(found: Fit) -> Iterator[Advice]:
    """More ranks: GPUs that idle, or that would have to be bought."""
    recipe, model = found.recipe, found.model
    for ranks in model.tensor_parallel_choices:
        gpus = _gpus_with(recipe, ranks)
        if ranks <= recipe.tensor_parallel or gpus > MOST_GPUS:
            continue
        where = "on the GPUs that are there" if gpus <= found.count else f"on {gpus} GPUs"
        tried = [*_tried(found, {"tensor_parallel": ranks}, f"tensor_parallel {ranks}, {where}", gpus)]
        yield from tried
        if tried and tried[0].fits:
            break
    if _can_share_context(found):
        shared = recipe.tensor_parallel
        yield from _tried(
            found,
            {"decode_context_parallel": shared},
            f"decode_context_parallel {shared}: {shared} ranks share each sequence's KV, for a slower decode",
        )


def _can_share_context(found: Fit) -> bool:
    recipe = found.recipe
    mla = isinstance(found.model.shape, MlaShape)
    refused = found.choices.attention_backend == "FLASHINFER_MLA_SPARSE_SM120"  # returns no LSE: rule on DCP
    alone = recipe.tensor_parallel == 1 or recipe.decode_context_parallel > 1
    return mla and not refused and not alone and recipe.serving_engine == "vllm"


def _checkpoints(found: Fit) -> Iterator[Advice]:
    """Prunes and quantized checkpoints that fit: first those of the same version, then the largest."""
    version = _version(found.recipe.model)
    fitting: list[tuple[Fit, dict[str, Any]]] = []
    for name in list_models():
        if name == found.recipe.model or not _is_relative(found, name):
            continue
        for changes in _to_checkpoint(found, name):
            other = attempt(found, changes, found.count)
            if other is not None and other.fits and other.gb("weights") < found.gb("weights"):
                fitting.append((other, changes))
                break
    fitting.sort(
        key=lambda each: (
            _version(each[0].recipe.model) != version,
            -each[0].model.total_params,
            -total(each[0].parts, "weights"),
        )
    )
    for other, changes in fitting[:_MOST_CHECKPOINTS]:
        also = {key: value for key, value in changes.items() if key not in ("model", "quantization")}
        with_ = "".join(f" with {key} {value:,}" for key, value in also.items())
        yield advice_of(
            found,
            other,
            changes,
            f"{changes['model']}{with_}: {other.model.shape.n_routed_experts} experts,"
            f" {other.gb('weights'):.1f} GB of weights a GPU in place of {found.gb('weights'):.1f}"
            f"{needs_index_pattern(other)}",
        )


def _to_checkpoint(found: Fit, name: str) -> Iterator[dict[str, Any]]:
    """The same recipe on another checkpoint, whose own layout counts; then with more memory, then shorter."""
    change: dict[str, Any] = {"model": name}
    if found.recipe.quantization:
        change["quantization"] = None
    yield change
    other = attempt(found, change, found.count)
    if other is None:
        return
    if found.recipe.kv_cache_bytes is None:
        highest = _highest_utilization(found)
        if highest > found.choices.utilization:
            yield change | {"gpu_memory_utilization": highest}
    if (longest := _longest(other)) >= _USEFUL_CONTEXT:
        yield change | {"max_model_len": longest}


def _version(name: str) -> str:
    """``glm-5.1`` of ``glm-5.1-reap-160``."""
    return "-".join(name.partition("@")[0].split("-")[:2])


def _is_relative(found: Fit, name: str) -> bool:
    try:
        other = known_model(name)
        mine, its = found.model.shape, other.shape
    except GlmlabError:
        return False
    same = ("model_type", "hidden_size", "num_hidden_layers", "moe_intermediate_size")
    return all(getattr(mine, key) == getattr(its, key) for key in same)


def _keeps_all(found: Fit, advice: Advice) -> bool:
    """Whether it needs no other model, no more GPUs and no shorter context."""
    same = "model" not in advice.changes and "max_model_len" not in advice.changes
    return same and advice.gpus == found.count


def _combined(found: Fit) -> Iterator[Advice]:
    """Settings that help, one on the other, until it fits; else with a shorter context, too."""
    changes: dict[str, Any] = {}
    parts: list[str] = []
    reached = found
    for change, what in _setting_changes(found):
        tried = attempt(found, changes | change, found.count)
        if tried is None or tried.short_bytes >= reached.short_bytes:
            continue
        changes, reached = changes | change, tried
        parts.append(re.split(" in place|, |:", what)[0])
        if reached.fits:
            break
    longest = _longest(reached)
    if not reached.fits and longest >= _USEFUL_CONTEXT:
        changes |= {"max_model_len": longest}
        parts.append(f"max_model_len {longest:,}")
        reached = attempt(found, changes, found.count) or reached
    if reached.fits and len(parts) > 1:
        yield advice_of(found, reached, changes, "together: " + "; ".join(parts))


# ------------------------------------------------------------------ one that fits
def _headroom(found: Fit) -> Iterator[Advice]:
    recipe, choices = found.recipe, found.choices
    if recipe.kv_cache_bytes is None and found.free_bytes > _SPARE_BYTES:
        highest = _highest_utilization(found)
        if highest > choices.utilization:
            yield from _tried(
                found,
                {"gpu_memory_utilization": highest},
                f"gpu_memory_utilization {highest:g} in place of {choices.utilization:g}",
            )
    elif recipe.kv_cache_bytes is not None and found.free_bytes > 2 * _SPARE_BYTES:
        larger = int(recipe.kv_cache_bytes + found.free_bytes - found.plus_minus_bytes)
        if larger > recipe.kv_cache_bytes:
            yield from _tried(
                found, {"kv_cache_bytes": larger}, f"kv_cache_bytes {larger:,}: the memory that lies idle"
            )
    if may_take_fp8_kv(found):
        yield from _tried(
            found, {"kv_cache_dtype": "fp8"}, "kv_cache_dtype fp8; what it does to answers: glmlab check"
        )
    if found.count > found.ranks:
        idle = found.count - found.ranks
        verb = "idles" if idle == 1 else "idle"
        for ranks in reversed(found.model.tensor_parallel_choices):
            gpus = _gpus_with(recipe, ranks)
            if found.ranks < gpus <= found.count:
                yield from _tried(
                    found,
                    {"tensor_parallel": ranks},
                    f"tensor_parallel {ranks}: {idle} of {found.count} GPUs {verb} as it is",
                )
                break


def _gpus_with(recipe: Recipe, tensor_parallel: int) -> int:
    """GPUs of the same plan with another size of tensor parallelism."""
    return recipe.ranks // recipe.tensor_parallel * tensor_parallel


# ------------------------------------------------------------------ trying
def _tried(found: Fit, changes: dict[str, Any], what: str, gpus: int | None = None) -> Iterator[Advice]:
    other = attempt(found, changes, gpus or found.count)
    if other is None:
        return
    advice = advice_of(found, other, changes, what)
    more_tokens = other.kv_tokens > found.kv_tokens
    helps = other.fits or (other.short_bytes > 0 and advice.gain_bytes > _WORTH_SHARE * found.short_bytes)
    if (other.fits and more_tokens) if found.fits else helps:
        yield advice


def _highest_utilization(found: Fit) -> float:
    """The most that the engine would start with, in steps of a hundredth."""
    if found.recipe.serving_engine == "sglang":
        # Steps and graphs live outside its share.
        outside = total(found.parts, "runtime")
        working = total(found.parts, "activations", "graphs", "split_kv", "workspace")
        usable = found.gpu.usable_memory_bytes - outside
        share = (usable - working - _SPARE_BYTES) / usable
    else:
        outside = total(found.parts, "runtime")
        share = (found.gpu.usable_memory_bytes - outside - _SPARE_BYTES) / found.gpu.usable_memory_bytes
    return max(0.0, math.floor(share * 100) / 100)


def _longest(found: Fit) -> int:
    """Of one sequence, by what the pool holds and the model's own limit."""
    return min(_rounded_down(found.pool.longest), found.model.max_model_len)


def _rounded_down(tokens: int) -> int:
    """To a round number that still says most of it."""
    step = 1024 if tokens >= 2 * 1024 else 1
    return tokens // step * step
