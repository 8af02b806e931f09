"""What a reader of a prediction must know: what it leaves out, and points that would not run as they are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from glmlab.decode.setup import Setup
from glmlab.footprint.part import amount
from glmlab.memory import Fit
from glmlab.recipe import Recipe
from glmlab.rules import versions_in_force
from glmlab.units import counted
from glmlab.version_range import in_range

KV_POOL, UNUSED = "the KV pool holds", "unused"  # in notes that a list of plans tells in its own way
_SMALL_BATCH = 8
_MEMORY_BOUND = 64  # sequences of a replica up to which products go with the bytes that they read


def notes_on(setup: Setup, fit: Fit, points: Sequence[tuple[int, int]], asked: Recipe) -> Iterator[str]:
    """One line each.

    Parameters
    ----------
    setup : Setup
        What the prediction is about.
    fit : Fit
        Of the same recipe on the same GPUs.
    points : sequence of (int, int)
        Contexts and batches.
    asked : Recipe
        Before its limits were raised for the largest batch.
    """
    recipe = setup.recipe
    if fit.short_bytes:
        yield (
            f"does not fit: {amount(fit.short_bytes)} a GPU are missing, so these times are those of a"
            " larger GPU;"
            " glmlab fit says what would have to change"
        )
    longest = max(context for context, _ in points)
    if longest > setup.choices.max_model_len:
        own = setup.model.max_model_len
        holds = "these points hold once it is raised" if longest <= own else "no setting allows these points"
        yield (
            f"{longest:,} tokens are beyond max_model_len {setup.choices.max_model_len:,}: {holds} (the"
            f" model's own is {own:,})"
        )
    tokens = max(context * batch for context, batch in points)
    if not fit.short_bytes and tokens > fit.kv_tokens:
        yield (
            f"{KV_POOL} {fit.kv_tokens:,} tokens: of {tokens:,} at once a part would wait, and"
            " these points"
            " are for more memory"
        )
    batch = max(batch for _, batch in points)
    of_replica = -(-batch // recipe.data_parallel)
    if of_replica > asked.max_num_seqs:
        yield (
            f"predicted with max_num_seqs {of_replica}: with {asked.max_num_seqs}, as it is, the other"
            " sequences would wait"
        )
    if of_replica > _MEMORY_BOUND:
        yield (
            f"beyond {_MEMORY_BOUND} sequences arithmetic limits matrix products, too, which is not in"
            " here: read"
            " these as the least"
        )
    if setup.gpu.link == "nvlink" and fit.ranks > 1 and min(batch for _, batch in points) <= _SMALL_BATCH:
        yield (
            "on NVLink GPUs published times of small batches are longer than predicted: GLM-5-FP8 on 8 B200"
            " 20.3 ms against 12.2 (sglang), GLM-4.7-FP8 on 4 GB200 at batch 4 17.7 against 12.5"
            " (TensorRT-LLM)"
        )
    if recipe.mtp_tokens:
        yield (
            f"mtp_tokens {recipe.mtp_tokens}: predicted without drafts, since how many are accepted depends"
            " on the"
            " text"
        )
    if recipe.enforce_eager or recipe.cudagraph_mode == "NONE":
        yield (
            "without CUDA graphs the host launches every kernel, which is not in here: the one published run"
            " (GLM-4.7-FP8, 8 GPUs, sglang) took 3.3 times as long at batch 1, 1.1 times at 64"
        )
    yield from _of_pipeline(setup, of_replica)
    if setup.measured is not None and recipe.tensor_parallel > 1:
        yield setup.measured.note(recipe.tensor_parallel)
    if fit.count > fit.ranks:
        yield f"{counted(fit.count - fit.ranks, 'GPU')} of {fit.count} {UNUSED}"


def _of_pipeline(setup: Setup, batch: int) -> Iterator[str]:
    recipe = setup.recipe
    if recipe.pipeline_parallel == 1:
        return
    if batch > 1 and not setup.together:
        yield (
            "sequences that come and go keep all stages of a pipeline busy, as predicted here; those that all"
            " start at once, as in a study, wait for each other, as together=True (--together) predicts"
        )
    if recipe.serving_engine == "vllm" and _on_v1(recipe):
        yield (
            "vLLM's V1 runner is sent all tokens of every sequence at each step of a pipeline, some 0.2 us of"
            " the host each (2 H100), which is not in here"
        )


def _on_v1(recipe: Recipe) -> bool:
    """As the rule ``pipeline-sends-every-token`` has it."""
    asked = recipe.env.get("VLLM_USE_V2_MODEL_RUNNER")
    version = versions_in_force(recipe).get("vllm")
    return asked == "0" or (asked is None and version is not None and in_range(version, "<0.27"))
