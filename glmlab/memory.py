"""fit: does a recipe fit a number of GPUs, and what takes the memory of each.

vLLM's own accounting (v1/worker/gpu_worker.py and v1/core/kv_cache_utils.py of 0.26.0 and 0.32.0): it looks
at the free memory once CUDA and NCCL are up, takes ``gpu_memory_utilization`` of all that CUDA sees, loads
the weights, runs the largest step, estimates its CUDA graphs, and what is left is the KV pool. It refuses
to start where that holds no sequence of ``max_model_len``. ``kv_cache_bytes`` fixes the pool instead.

sglang's (profile_max_num_token of 0.5.10): weights and KV pool together get ``mem_fraction_static``, here
``gpu_memory_utilization``, of what was free before loading; steps and graphs live on the rest. A sequence
longer than the pool is refused when it comes, not at the start.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from glmlab.catalog import Model, find_model
from glmlab.data_folders import DATA_VARIABLE
from glmlab.errors import InputError
from glmlab.footprint.engine_choices import EngineChoices, chosen_attention, engine_choices
from glmlab.footprint.kv_pool import KvPool
from glmlab.footprint.part import GB, GROUPS, Group, MemoryPart, doubt, total
from glmlab.footprint.reasons import reasons_of
from glmlab.footprint.working import working_memory
from glmlab.gpus import Gpu, find_gpu
from glmlab.models.shape import DsaShape
from glmlab.ranks.weights import RankWeights, rank_kv_bytes_per_token, rank_weights, recipe_layout
from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe
from glmlab.units import counted

if TYPE_CHECKING:
    from glmlab.footprint.advice_line import Advice

MOST_GPUS = 72  # of one NVLink domain (GB200 NVL72), the largest machine that is one
_WEIGHTS: tuple[Group, ...] = ("weights", "scales")
_INSIDE: tuple[Group, ...] = (*_WEIGHTS, "activations", "graphs", "split_kv", "workspace")
# Two checkpoints took 0.6 and 0.9 GB more than their tensors, of 79 and 83 GB: GLM-5.2-REAP-504B in vLLM
# (79.1 GB, hermia-ai/glm-5.2-sm120-stock-vllm) and GLM-5.1 REAP-160 in sglang (77.15 GiB, 0xSero's notes).
_LOADING_SLACK = 0.009
# Fused experts of sglang's ModelOptNvFp4FusedMoEMethod register the scales twice, one of them swizzled.
_SCALES_PER_NVFP4_BYTE = (1 / 16) / (1 / 2 + 1 / 16)


@dataclass(frozen=True)
class Fit:
    """What :func:`fit` found. All ranks are alike but for pipeline stages.

    Of those this one has the most weights and the most KV, be they one stage's or two stages': the engine's
    pool may then be larger, never smaller.

    Attributes
    ----------
    recipe, gpu, count
        What was asked.
    choices : EngineChoices
        The recipe's open fields as the engine fills them in.
    parts : tuple of MemoryPart
        What takes memory on one GPU, the KV pool among it.
    budget_bytes : float
        What the engine may fill: vLLM with all but the runtime, sglang with weights and KV.
    pool : KvPool
        The KV pool of one rank; of size 0 where the memory does not reach.
    room_bytes : float
        What there is for the KV pool, below 0 where the rest is too much already.
    needed_bytes : float
        Of KV: vLLM refuses to start where not one sequence of ``max_model_len`` fits.
    free_bytes : float
        What the parts leave of what one GPU has to give; below 0 where they are too much for it.
    """

    recipe: Recipe
    gpu: Gpu
    count: int
    model: Model
    choices: EngineChoices
    parts: tuple[MemoryPart, ...]
    budget_bytes: float
    pool: KvPool
    room_bytes: float
    needed_bytes: float
    free_bytes: float

    @property
    def ranks(self) -> int:
        """GPUs that the recipe uses."""
        return self.recipe.ranks

    @property
    def fits(self) -> bool:
        return not self.reasons

    @cached_property
    def reasons(self) -> tuple[str, ...]:
        """Why it does not fit, one line each; empty where it does."""
        return tuple(reasons_of(self))

    @property
    def short_bytes(self) -> float:
        """By how much one GPU's memory is too small; 0 where it is enough."""
        return max(0.0, self.needed_bytes - self.room_bytes, -self.free_bytes)

    @property
    def kv_tokens(self) -> int:
        """Tokens of KV in total, as vLLM reports them; over all replicas of data parallelism."""
        return self.pool.tokens(self.choices.max_model_len) * self.recipe.data_parallel

    @property
    def kv_tokens_plus_minus(self) -> int:
        """By how many tokens that may be wrong."""
        if self.recipe.kv_cache_bytes is not None or not self.kv_tokens:
            return 0
        return round(self.plus_minus_bytes / self.pool.bytes_per_token) * self.recipe.data_parallel

    @property
    def longest_context(self) -> int:
        """Tokens of the longest single sequence: pool, ``max_model_len`` and the model's own limit."""
        return min(self.pool.longest, self.choices.max_model_len, self.model.max_model_len)

    @property
    def plus_minus_bytes(self) -> float:
        """By how much the whole may be wrong, either way."""
        return doubt(self.parts)

    @property
    def is_close(self) -> bool:
        """Whether the doubt is larger than what decides."""
        if self.reasons and not self.short_bytes:
            return False  # something else than memory decides
        margin = self.short_bytes or self._slack_bytes
        return margin < self.plus_minus_bytes

    @property
    def _slack_bytes(self) -> float:
        """How much less would do."""
        if self.recipe.kv_cache_bytes is not None:
            return self.free_bytes
        return self.room_bytes - self.needed_bytes

    @property
    def needs_full_length(self) -> bool:
        """Whether the engine refuses to start where no full sequence fits."""
        return self.recipe.serving_engine == "vllm"

    @cached_property
    def advice(self) -> tuple[Advice, ...]:
        """What would have to change to fit, or what the headroom buys; the most effective first."""
        from glmlab.footprint.advice import advise

        return advise(self)

    def gb(self, *groups: Group) -> float:
        """GB of some groups of one GPU; of all where none is named."""
        return total(self.parts, *groups) / GB

    def to_json(self) -> dict[str, Any]:
        """What ``glmlab fit --json`` prints; GB are 1e9 bytes."""
        one = {f"{group}_gb": round(self.gb(group), 3) for group in GROUPS}
        one |= {
            "free_gb": round(self.free_bytes / GB, 3),
            "total_gb": round(self.gpu.memory_bytes / GB, 3),
            "usable_gb": round(self.gpu.usable_memory_bytes / GB, 3),
            "plus_minus_gb": round(self.plus_minus_bytes / GB, 3),
        }
        return {
            "recipe": self.recipe.name,
            "gpu": self.gpu.name,
            "count": self.count,
            "fits": self.fits,
            "close": self.is_close,
            "reasons": list(self.reasons),
            "short_gb": round(self.short_bytes / GB, 3),
            "per_gpu": [{"rank": rank, **one} for rank in range(self.ranks)],
            "parts": [part.to_json() for part in self.parts],
            "kv_tokens": self.kv_tokens,
            "kv_tokens_plus_minus": self.kv_tokens_plus_minus,
            "longest_context": self.longest_context,
            "kv_bytes_per_token": self.pool.bytes_per_token,
            "evidence": "predicted",
            "advice": [each.to_json() for each in self.advice],
        }

    def _repr_html_(self) -> str:
        from glmlab.footprint.tables import fit_html

        return fit_html(self)


def fit(recipe: Recipe | str | Path | Mapping[str, Any], gpu: Gpu | str, count: int | None = None) -> Fit:
    """Whether a recipe fits so many GPUs.

    Parameters
    ----------
    recipe : Recipe, str, Path or mapping
        What is to run, the name of one, a file, or its keys and values.
    gpu : Gpu or str
        Of which kind the GPUs are, or its name.
    count : int, optional
        How many there are; as many as the recipe has ranks by default.

    Raises
    ------
    InputError
        If ``count`` is absurd, there is no such recipe or GPU, the model's sizes are not known, or the engine
        refuses the plan.
    """
    recipe = find_recipe(recipe)
    gpu = gpu if isinstance(gpu, Gpu) else find_gpu(gpu)
    count = recipe.ranks if count is None else count
    check_count(count)
    model = known_model(recipe.model)
    plan = _rank_plan(recipe, model, chosen_attention(recipe, model, gpu))
    choices = engine_choices(recipe, model, gpu, plan.expert_format)
    parts = [*_weights(recipe, plan), *working_memory(recipe, model.shape, gpu, choices)]
    runtime = total(parts, "runtime")
    budget = _budget(recipe, gpu, choices, runtime)
    inside = _INSIDE if recipe.serving_engine == "vllm" else _WEIGHTS
    room = budget - total(parts, *inside)
    size = float(room if recipe.kv_cache_bytes is None else recipe.kv_cache_bytes)
    pool = KvPool(
        size=max(0.0, size),
        bytes_per_token=plan.kv_bytes_per_token,
        block_size=choices.block_size,
        context_ranks=recipe.decode_context_parallel,
    )
    parts.append(_pool_part(recipe, pool, choices, budget))
    return Fit(
        recipe=recipe,
        gpu=gpu,
        count=count,
        model=model,
        choices=choices,
        parts=tuple(parts),
        budget_bytes=budget,
        pool=pool,
        room_bytes=size,
        needed_bytes=pool.bytes_for(choices.max_model_len if recipe.serving_engine == "vllm" else 1),
        free_bytes=gpu.usable_memory_bytes - total(parts),
    )


def check_count(count: int) -> None:
    """Refuse a number of GPUs that no machine has.

    Raises
    ------
    InputError
        With what is allowed.
    """
    if type(count) is not int or not 1 <= count <= MOST_GPUS:
        raise InputError(f"count = {count!r}: expected 1 to {MOST_GPUS} GPUs, as one machine has")


def known_model(name: str) -> Model:
    """The model of a recipe, kept from call to call; read again where its config.json changed."""
    path = Path(name) / "config.json"
    stamp = path.stat().st_mtime_ns if path.is_file() else 0
    return _known_model(name, os.environ.get(DATA_VARIABLE), stamp)


@lru_cache(maxsize=512)
def _known_model(name: str, _overlay: str | None, _stamp: int) -> Model:
    return find_model(name)


def _budget(recipe: Recipe, gpu: Gpu, choices: EngineChoices, runtime: float) -> float:
    if recipe.serving_engine == "sglang":
        return choices.utilization * (gpu.usable_memory_bytes - runtime)
    return choices.utilization * gpu.usable_memory_bytes


class _RankPlan(NamedTuple):
    """What does not change while a search moves batch sizes, backends and kernels."""

    weights: RankWeights
    expert_format: str
    kv_bytes_per_token: int
    left_out: str  # what of the checkpoint this rank does not load, for the weights' line


_PLAN_FIELDS = (
    "model", "quantization", "dtype", "kv_cache_dtype", "dense_mla", "mtp_tokens",
    "tensor_parallel", "pipeline_parallel", "data_parallel", "expert_parallel", "decode_context_parallel",
    "serving_engine",
)  # fmt: skip
_plans: dict[tuple[Any, ...], tuple[Model, _RankPlan]] = {}
_MOST_PLANS = 4096


def _rank_plan(recipe: Recipe, model: Model, attention_backend: str) -> _RankPlan:
    """Computed once for each plan; anew where the model or a user's own data may have changed."""
    fields = (getattr(recipe, field) for field in _PLAN_FIELDS)
    key = (*fields, attention_backend, *sorted(recipe.env.items()))
    known = _plans.get(key)
    if known is not None and known[0] is model and not os.environ.get(DATA_VARIABLE):
        return known[1]
    plan = _RankPlan(
        weights=rank_weights(recipe, model),
        expert_format=recipe_layout(recipe, model).mix("routed_experts").formats[0][0],
        left_out=_left_out(recipe, model),
        kv_bytes_per_token=rank_kv_bytes_per_token(recipe, model, attention_backend=attention_backend),
    )
    if len(_plans) >= _MOST_PLANS:
        _plans.clear()
    _plans[key] = model, plan
    return plan


def _left_out(recipe: Recipe, model: Model) -> str:
    """The indexer of dense MLA: in the checkpoint, and so in what others call a rank's weights."""
    if not (recipe.dense_mla and isinstance(model.shape, DsaShape)):
        return ""
    sparse = recipe.replace(dense_mla=False)
    indexer = rank_weights(sparse, model).bytes - rank_weights(recipe, model).bytes
    return f"; dense_mla: the indexer is not loaded, {indexer / GB:.2f} GB"


def _weights(recipe: Recipe, plan: _RankPlan) -> Iterator[MemoryPart]:
    weights = plan.weights
    yield MemoryPart(
        group="weights",
        name="weights",
        size=weights.bytes,
        plus_minus=0.005 * weights.bytes,
        kind="computed",
        how=f"{weights.params / 1e9:.2f} B parameters on a rank, by config.json and the checkpoint's layout"
        + plan.left_out,
    )
    yield MemoryPart(
        group="weights",
        name="loading",
        size=_LOADING_SLACK * weights.bytes,
        plus_minus=0.005 * weights.bytes,
        kind="measured",
        how=f"{_LOADING_SLACK:.1%}: buffers and rounding; two checkpoints took 0.6 and 0.9 GB for it",
    )
    if recipe.serving_engine == "sglang" and plan.expert_format == "nvfp4":
        scales = weights.parts.get("routed_experts", 0) * _SCALES_PER_NVFP4_BYTE
        yield MemoryPart(
            group="scales",
            name="NVFP4 scales, again",
            size=scales,
            plus_minus=0.1 * scales,
            kind="computed",
            how="sglang keeps the experts' scales as loaded and swizzled (modelopt_quant.py, create_weights)",
        )


def _pool_part(recipe: Recipe, pool: KvPool, choices: EngineChoices, budget: float) -> MemoryPart:
    if recipe.kv_cache_bytes is not None:
        how = "kv_cache_bytes of the recipe"
    elif recipe.serving_engine == "sglang":
        how = (
            f"what weights leave of {choices.utilization:g} of the memory free before ({budget / GB:.1f} GB)"
        )
    else:
        how = f"what the others leave of {choices.utilization:g} of the GPU ({budget / GB:.1f} GB)"
    blocks = f"{counted(pool.blocks, 'block')} of {counted(pool.block_size, 'token')}"
    each = f"{blocks}, {pool.bytes_per_token:,} B a token"
    return MemoryPart(
        group="kv", name="KV pool", size=pool.size, plus_minus=0.0, kind="computed", how=f"{how}; {each}"
    )
