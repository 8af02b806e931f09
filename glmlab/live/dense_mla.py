"""Run a DSA model's attention as dense MLA: the same weights, without the indexer's choice.

vLLM decides by the configuration's class: ``GlmMoeDsaConfig`` has ``index_topk`` as a class default, so
neither a dictionary of overrides nor deleting the field makes it dense. DeepSeek-V3's class is the
same attention without the field. Beyond ``index_topk`` tokens of context dense attention sees more
than the model was trained to look at: fine for kernels, a question for quality.
"""

from __future__ import annotations

from typing import Any


def dsa_to_dense(config: Any) -> Any:
    """``hf_overrides`` of vLLM: a GlmMoeDsa configuration as a dense one, any other unchanged.

    Parameters
    ----------
    config : transformers.PretrainedConfig
        vLLM also calls this with a bare one, which stays as it is.
    """
    if getattr(config, "model_type", "") != "glm_moe_dsa":
        return config
    from transformers import DeepseekV3Config

    fields = {
        name: value
        for name, value in config.to_dict().items()
        if not name.startswith("index") and name != "model_type"
    }
    fields["architectures"] = ["DeepseekV3ForCausalLM"]
    dense = DeepseekV3Config(**fields)
    dense.architectures = fields["architectures"]
    return dense
