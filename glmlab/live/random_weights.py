"""A load format for models without a checkpoint: random weights of a trained model's scale.

vLLM's own ``dummy`` format draws everything, norms included, from ±1e-3. Such a model routes all
tokens alike, attends to nothing and repeats one token, so a broken kernel would go unnoticed and
a fused-MoE kernel would see no realistic load. Here norms are one and matrices have the variance
of Glorot and Bengio (2010), so that routing spreads and tokens depend on the whole context.
"""

from __future__ import annotations

import math
import zlib

import torch
from torch import nn
from vllm.config import ModelConfig
from vllm.distributed import get_tensor_model_parallel_rank
from vllm.model_executor.model_loader import register_model_loader
from vllm.model_executor.model_loader.dummy_loader import DummyModelLoader

LOAD_FORMAT = "glmlab_random"


def register_loader() -> None:
    """Make ``load_format="glmlab_random"`` known to vLLM; safe to call again."""
    from vllm.model_executor import model_loader

    if LOAD_FORMAT not in model_loader._LOAD_FORMAT_TO_MODEL_LOADER:
        register_model_loader(LOAD_FORMAT)(RandomModelLoader)


class RandomModelLoader(DummyModelLoader):
    """vLLM's dummy loader, then floating-point parameters drawn anew."""

    def load_weights(self, model: nn.Module, model_config: ModelConfig) -> None:
        super().load_weights(model, model_config)
        # Sharded weights must differ between ranks, replicated ones must not. Which is which is
        # not written on a parameter, so the draw depends on the rank only where the name tells.
        rank = get_tensor_model_parallel_rank()
        for name, parameter in model.named_parameters():
            if parameter.device.type != "meta" and parameter.is_floating_point():
                draw(name, parameter.data, seed=model_config.seed or 0, rank=rank)


_REPLICATED = ("norm", "mlp.gate.", "q_a_proj", "kv_a_proj", "fused_qkv_a", "eh_proj", "bias")


@torch.no_grad()
def draw(name: str, weight: torch.Tensor, *, seed: int, rank: int = 0) -> None:
    """Fill one parameter in place.

    Parameters
    ----------
    name : str
        Of the parameter; with ``seed`` it decides the numbers, so that a model is the same in
        every process and whatever order it is built in.
    weight : torch.Tensor
        Any shape; the last two dimensions are (out, in). One dimension: a norm's weight becomes
        one, anything else (a bias) zero.
    seed, rank : int
        Rank matters for sharded weights only.
    """
    if "scale" in name:
        # Made with its quantized payload, which stands as well; zero would silence the layer. Where no
        # weight was quantized, vLLM drew it around zero, and kernels (Marlin's NVFP4) take no sign.
        weight.copy_(weight.float().abs())
        return
    if weight.dim() < 2:
        weight.fill_(1.0 if "norm" in name else 0.0)
        return
    if weight.element_size() == 1:
        return  # a quantized payload: its scales are separate and vLLM's dummy values stand
    replicated = any(part in name for part in _REPLICATED)
    key = f"{seed}/{name}/{0 if replicated else rank}"
    generator = torch.Generator(device=weight.device)
    generator.manual_seed(zlib.crc32(key.encode()))
    fan_out, fan_in = weight.shape[-2:]
    deviation = 1.0 if "embed_tokens" in name else math.sqrt(2.0 / (fan_in + fan_out))
    # float32 first: normal_ on bfloat16 is not implemented for every device
    for part in weight if weight.dim() > 2 else (weight,):
        noise = torch.empty(part.shape, dtype=torch.float32, device=weight.device)
        part.copy_(noise.normal_(0.0, deviation, generator=generator))
