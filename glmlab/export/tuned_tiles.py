"""``moe_tiles`` as the files that vLLM itself reads through ``VLLM_TUNED_CONFIG_FOLDER``.

vLLM finds such a file by its name alone, ``E=..,N=..,device_name=..[,dtype=..][,block_shape=[n,k]].json``
(``get_config_file_name`` and ``try_get_optimal_moe_config`` in fused_moe.py of 0.26 and 0.32): under
another name it goes unread and nobody is told. So a name is either what the study's engine reported, or
follows from the recipe, the model's config.json and the GPU; where a fact is missing there is no export.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from glmlab.catalog import find_model
from glmlab.errors import ExportError
from glmlab.recipe import Recipe
from glmlab.tiles import DEFAULT, TileTable

FOLDER = "tuned"
VARIABLE = "VLLM_TUNED_CONFIG_FOLDER"
# Of a run's provenance: the names that its engine looks for, where it told them.
REPORTED = "moe_tile_files"

_NAME = re.compile(r"E=\d+,N=\d+,device_name=[^/\s]+\.json")
# The catalog's FP8 formats, each with its quantization blocks.
_CATALOG_FP8: dict[str, tuple[int, int] | None] = {
    "fp8-tensor": None,
    "fp8-channel": None,
    "fp8-block": (128, 128),
}
# vLLM arguments that spread experts in ways that the name then depends on.
_SPREADING = ("prefill_context_parallel_size", "enable_eplb", "eplb_config")


def has_tuned_tiles(recipe: Recipe) -> bool:
    """Whether the recipe asks for tiles that are not vLLM's own."""
    return recipe.moe_tiles not in (None, DEFAULT)


def tuned_files(recipe: Recipe, provenance: Mapping[str, Any]) -> dict[str, str]:
    """Path within the bundle -> content; empty where vLLM's own tiles are asked for.

    Parameters
    ----------
    provenance : mapping
        As a study stores it: ``runs``, the newest last.

    Raises
    ------
    ExportError
        If the files' names cannot be told, or the recipe has another folder for them.
    """
    if recipe.moe_tiles is None or not has_tuned_tiles(recipe):
        return {}
    if VARIABLE in recipe.env:
        raise ExportError(f"env.{VARIABLE}: the bundle sets it for moe_tiles; drop one of the two")
    # vLLM's own choices hold SPLIT_K too, and its WNA16 kernel has no default for it.
    content = TileTable.parse(recipe.moe_tiles).to_json(SPLIT_K=1)
    return {f"{FOLDER}/{name}": content for name in file_names(recipe, provenance)}


def file_names(recipe: Recipe, provenance: Mapping[str, Any]) -> list[str]:
    """Names under which vLLM looks for the tiles of the recipe's experts, one per kind of rank.

    Raises
    ------
    ExportError
        If a fact that they follow from is missing.
    """
    runs = provenance.get("runs") or [{}]
    run = runs[-1]
    # A run that continued the study did not ask its engine again.
    if reported := next((r[REPORTED] for r in reversed(runs) if r.get(REPORTED)), None):
        wrong = [name for name in reported if not _NAME.fullmatch(str(name))]
        if wrong:
            raise ExportError(f"moe_tiles: the engine reported {wrong[0]!r}, which is no name of a tile file")
        return sorted(reported)
    device, (dtype, block) = _device_name(run), _weights(recipe)
    experts, width = _sizes(recipe)
    if block and any(width % size for size in block):
        raise ExportError(
            f"moe_tiles: {width} columns of an expert on each rank are no multiple of the quantization"
            f" blocks {block}, and vLLM then takes others; the name of the tile file cannot be told"
        )
    kind = f",dtype={dtype}" if dtype else ""
    kind += f",block_shape=[{block[0]},{block[1]}]" if block else ""
    return [f"E={count},N={width},device_name={device}{kind}.json" for count in experts]


def _device_name(run: Mapping[str, Any]) -> str:
    names = sorted({gpu["name"] for gpu in run.get("gpus") or ()})
    if len(names) != 1:
        found = "names no GPU" if not names else f"has GPUs of several kinds ({', '.join(names)})"
        raise ExportError(f"moe_tiles: vLLM names tile files by the GPU, and the study's newest run {found}")
    name = re.sub(r"[\s/]+", "_", names[0])
    return "NVIDIA_H200" if "H200" in name.split("_") else name


def _config(recipe: Recipe) -> dict[str, Any]:
    model = find_model(recipe.model)
    if model.config is None:
        raise ExportError(
            f"moe_tiles: the config.json of {recipe.model} is not on this machine, so the name of its tile"
            " file cannot be told; give the folder of the checkpoint as the recipe's model"
        )
    return model.config


def _sizes(recipe: Recipe) -> tuple[list[int], int]:
    """Experts on a rank (two counts where they do not divide evenly), and columns of each there."""
    if spreading := [name for name in _SPREADING if name in recipe.engine_args]:
        raise ExportError(
            f"engine_args.{spreading[0]}: changes how experts are spread, so the name of the tile file of"
            " moe_tiles cannot be told"
        )
    if recipe.data_parallel > 1:
        raise ExportError(
            f"data_parallel = {recipe.data_parallel}: changes how experts are spread, so the name of the tile"
            " file of moe_tiles cannot be told"
        )
    config, ranks = _config(recipe), recipe.tensor_parallel
    experts, width = int(config["n_routed_experts"]), int(config["moe_intermediate_size"])
    if recipe.expert_parallel:
        return sorted({experts // ranks, -(-experts // ranks)}), width
    if width % ranks:
        raise ExportError(f"moe_tiles: {width} columns of an expert do not divide over {ranks} ranks")
    return [experts], width // ranks


def _weights(recipe: Recipe) -> tuple[str, tuple[int, int] | None]:
    """The name's dtype (empty for 16 bits) and quantization blocks of the experts' weights."""
    stored = _config(recipe).get("quantization_config") or {}
    method = recipe.quantization or stored.get("quant_method") or _of_catalog(recipe)
    if method is None:
        return ("float32" if recipe.dtype == "float32" else ""), None
    if method in _CATALOG_FP8:
        return "fp8_w8a8", _CATALOG_FP8[method]
    if method == "fp8":
        block = stored.get("weight_block_size") if stored.get("quant_method") == "fp8" else None
        return "fp8_w8a8", (int(block[0]), int(block[1])) if block else None
    if method == "compressed-tensors" and _is_plain_fp8(stored):
        return "fp8_w8a8", None
    raise ExportError(
        f"moe_tiles: how vLLM names the tile file of {method!r} experts is not known to glmlab; only"
        " bfloat16, fp8 and plain FP8 compressed-tensors are"
    )


def _of_catalog(recipe: Recipe) -> str | None:
    """How the catalog says the experts are stored, where config.json does not; None for 16 bits."""
    experts = find_model(recipe.model).layout.mix("routed_experts")
    return None if experts.is_plain else experts.label


def _is_plain_fp8(stored: Mapping[str, Any]) -> bool:
    """Whether all of it is 8-bit floating point with one scale per tensor or channel."""
    groups = list((stored.get("config_groups") or {}).values())
    weights = [group.get("weights") or {} for group in groups]
    return bool(weights) and all(
        kind.get("type") == "float"
        and kind.get("num_bits") == 8
        and kind.get("strategy") in ("tensor", "channel")
        for kind in weights
    )
