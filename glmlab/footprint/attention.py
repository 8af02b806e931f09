"""Which attention backend vLLM takes where a recipe leaves it open, as far as that can be told."""

from __future__ import annotations

from glmlab.recipe import Recipe


def attention_backend(recipe: Recipe, attention: str | None, major: int) -> str | None:
    """Name of the backend, or ``None`` where it is not known.

    The order is that of ``_get_backend_priorities`` in platforms/cuda.py of vLLM 0.32.0 (0.26.0 has the
    same one for capability 9 and 12), less what refuses the KV cache's format: FLASH_ATTN takes FP8 on
    Hopper only (flash_attn.py, fa_utils.py), FLASH_ATTN_MLA takes no FP8 (reported with FLASHMLA chosen
    there: vLLM issue 38652).

    Parameters
    ----------
    recipe : Recipe
        Whose ``attention_backend`` goes first.
    attention : str or None
        The model's: ``gqa``, ``mla`` or ``mla+dsa``.
    major : int
        First number of the GPU's compute capability.
    """
    if recipe.serving_engine != "vllm":
        return None
    if recipe.attention_backend is not None and recipe.attention_backend.lower() != "auto":
        return recipe.attention_backend.upper()
    if attention == "mla+dsa" and not recipe.dense_mla:  # the only one there, whatever it takes
        return "FLASHINFER_MLA_SPARSE_SM120" if major == 12 else None
    fp8 = recipe.kv_cache_dtype.startswith("fp8")
    if not fp8 and recipe.kv_cache_dtype not in ("auto", "bfloat16"):
        return None
    if attention == "gqa":
        return _grouped(major, fp8=fp8)
    if attention is None:
        return None
    if major == 12:
        return "TRITON_MLA"
    if major == 9:
        return "FLASHMLA" if fp8 else "FLASH_ATTN_MLA"
    return None


def _grouped(major: int, *, fp8: bool) -> str | None:
    if major == 10:
        return "FLASHINFER"
    if major == 9:
        return "FLASH_ATTN"
    if major == 12:
        return "FLASHINFER" if fp8 else "FLASH_ATTN"
    return None


def takes_fp8_kv(backend: str, major: int) -> bool:
    """Whether a backend takes an FP8 KV cache on a GPU; True of one that is not known here.

    Source: ``supported_kv_cache_dtypes`` of vLLM 0.32.0 (flash_attn.py, fa_utils.py, mla/flashattn_mla.py).

    Parameters
    ----------
    backend : str
        In upper case.
    major : int
        First number of the GPU's compute capability.
    """
    if backend == "FLASH_ATTN":
        return major == 9
    return backend != "FLASH_ATTN_MLA"
