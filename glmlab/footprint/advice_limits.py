"""What advice must not run into: changes that rules block, and what another checkpoint needs said.

:mod:`glmlab.rules` stands above and cannot be asked here. What it holds of the changes that advice makes is
kept in step by ``tests/unit/test_fit_advice.py``, which asks it about each of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from glmlab.footprint.attention import takes_fp8_kv
from glmlab.footprint.engine_choices import chosen_attention
from glmlab.models.shape import DsaShape, GqaShape
from glmlab.ranks.weights import recipe_layout
from glmlab.version_range import in_range, is_version

if TYPE_CHECKING:
    from glmlab.memory import Fit

_STOPS_WITHOUT_SCALES = ">=0.15,<0.17"  # of vLLM; rule nvfp4-without-kv-scales


def may_take_fp8_kv(found: Fit) -> bool:
    """Whether FP8 would be another KV format, and one that the engine takes.

    Parameters
    ----------
    found : Fit
        Of the recipe as it is.
    """
    recipe = found.recipe
    if recipe.kv_cache_dtype not in ("auto", "bfloat16") or found.choices.sparse:
        return False
    if recipe.serving_engine != "vllm":
        return True
    vllm = recipe.versions.get("vllm")
    if is_version(vllm) and in_range(str(vllm), _STOPS_WITHOUT_SCALES):
        experts = recipe_layout(recipe, found.model).mix("routed_experts")
        if isinstance(found.model.shape, GqaShape) and experts.formats[0][0] == "nvfp4":
            return False
    backend = chosen_attention(recipe.replace(kv_cache_dtype="fp8"), found.model, found.gpu)
    return takes_fp8_kv(backend, found.gpu.capability_major)


def needs_index_pattern(other: Fit) -> str:
    """What a recipe that was written for another version lacks, for a line of advice; empty for most.

    Parameters
    ----------
    other : Fit
        Of the recipe with the other checkpoint; rule index-topk-pattern-missing.
    """
    shape, overrides = other.model.shape, other.recipe.engine_args.get("hf_overrides")
    if not isinstance(shape, DsaShape) or not other.choices.sparse:
        return ""
    given = {**(other.model.config or {}), **(overrides if isinstance(overrides, dict) else {})}
    if (given.get("index_topk_freq") or 1) == 1:
        return ""
    if given.get("index_topk_pattern") or given.get("indexer_types"):
        return ""
    return (
        " (its layers share indexers: sparse attention needs hf_overrides with index_topk_pattern, as its"
        " card gives it)"
    )
