"""Setup: what a prediction is about, looked up once: plan, stages, bytes, kernels, links."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from glmlab.catalog import Model
from glmlab.decode.all_reduce import AllReduceTable, Method, all_reduce_tables, all_reduce_us
from glmlab.decode.constants import AttentionKernel, Case, Constants
from glmlab.decode.measured_all_reduce import MeasuredAllReduce
from glmlab.footprint.engine_choices import EngineChoices
from glmlab.gpus import Gpu
from glmlab.models.shape import DsaShape, MlaShape, ModelShape
from glmlab.ranks.kv import layer_kv_bytes
from glmlab.ranks.stages import pipeline_stages
from glmlab.ranks.weights import RankWeights, plain_bytes, stage_weights
from glmlab.recipe import Recipe

_PCIE_IPC = "VLLM_ALLREDUCE_USE_FLASHINFER_PCIE_IPC"
_PCIE_IPC_RANKS = (2, 4, 8)  # flashinfer_all_reduce.py of vLLM 0.32.0; rule pcie-ipc-all-reduce


@dataclass(frozen=True)
class Setup:
    """What does not change from point to point.

    Attributes
    ----------
    recipe : Recipe
        What runs.
    model : Model
        Its model.
    gpu : Gpu
        What each rank runs on.
    choices : EngineChoices
        The recipe's open fields as the engine fills them in.
    constants : Constants
        What is known of kernels, links and hosts.
    measured : MeasuredAllReduce, optional
        All-reduces as an engine of this plan measured them; they go before the packaged tables.
    together : bool
        Whether all sequences start at once, and so stay together.
    """

    recipe: Recipe
    model: Model
    gpu: Gpu
    choices: EngineChoices
    constants: Constants
    measured: MeasuredAllReduce | None = None
    together: bool = False

    @property
    def shape(self) -> ModelShape:
        return self.model.shape

    @cached_property
    def stages(self) -> tuple[tuple[int, int], ...]:
        """First layer, and the one after the last, of each pipeline stage."""
        return tuple(pipeline_stages(self.recipe, self.shape.num_hidden_layers))

    @cached_property
    def weights(self) -> tuple[RankWeights, ...]:
        """Of one rank of each stage."""
        return stage_weights(self.recipe, self.model)

    @property
    def bandwidth_gb_s(self) -> float:
        """Of the GPU's memory, at the clock that it has under load where that is known."""
        return self.gpu.loaded_bandwidth_gb_s or self.gpu.bandwidth_gb_s

    @property
    def activation_bytes(self) -> int:
        """Bytes of one number between layers."""
        return plain_bytes(self.recipe, self.model)

    @property
    def hidden_bytes(self) -> int:
        """Bytes of one token between layers."""
        return self.shape.hidden_size * self.activation_bytes

    # ------------------------------------------------------------------ attention
    @property
    def sparse(self) -> bool:
        """Whether attention reads chosen tokens only."""
        return isinstance(self.shape, DsaShape) and not self.recipe.dense_mla

    @property
    def heads(self) -> int:
        """Query heads of a rank."""
        return max(1, self.shape.num_attention_heads // self.recipe.tensor_parallel)

    @cached_property
    def layer_kv_bytes(self) -> float:
        """KV bytes of one token in one layer of a rank, all of the sequence being there."""
        return layer_kv_bytes(self.recipe, self.model, self.choices.attention_backend)

    @cached_property
    def kernel(self) -> AttentionKernel:
        """Of decode attention. sglang's Triton kernels are the ancestors of vLLM's, program by program."""
        backend = self.choices.attention_backend
        if backend == "TRITON":
            backend = "TRITON_MLA" if isinstance(self.shape, MlaShape) else "TRITON_ATTN"
        return self.constants.kernel("others" if self.sparse else backend)

    # ------------------------------------------------------------------ links
    @property
    def all_reduce_methods(self) -> tuple[Method, ...]:
        """What the engine reduces with; the fastest of them is taken for each size.

        ``CustomAllreduce`` of vLLM 0.32.0 is off for more than two GPUs without NVLink, and so is sglang's.
        """
        recipe, ranks = self.recipe, self.recipe.tensor_parallel
        own = recipe.custom_all_reduce is not False
        if self.gpu.link == "nvlink":
            return ("custom", "nccl") if own else ("nccl",)
        peers = recipe.env.get("NCCL_P2P_DISABLE") != "1"
        asked = recipe.env.get(_PCIE_IPC) == "1" and ranks in _PCIE_IPC_RANKS
        return ("one-shot", "nccl") if peers and (asked or (own and ranks == 2)) else ("nccl",)

    @cached_property
    def _tables(self) -> tuple[AllReduceTable, ...]:
        return tuple(table for table in all_reduce_tables() if table.link == self.gpu.link)

    def all_reduce_ms(self, ranks: int, size: float, case: Case) -> float:
        """Milliseconds of one all-reduce of so many bytes; of more ranks than share a layer by NCCL."""
        share_a_layer = ranks <= self.recipe.tensor_parallel
        methods = self.all_reduce_methods if share_a_layer else ("nccl",)
        packaged_us = all_reduce_us(self._tables, methods, ranks, size, case)
        if self.measured is None or not share_a_layer or ranks not in self.measured.us:
            return packaged_us / 1e3
        measured_us = self.measured.microseconds(ranks, size)
        measured_us *= self.constants.probed_all_reduce_share.at(case)
        if size <= self.measured.largest_bytes(ranks):
            return measured_us / 1e3
        # Larger than any that was measured, and so no shorter than the largest of them.
        return max(packaged_us, measured_us) / 1e3
