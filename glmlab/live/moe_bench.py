"""Time one fused-MoE layer with one tile: the kernels alone, in a CUDA graph, out of a cold cache.

A graph holds several calls of vLLM's ``fused_experts``, whose two products are launched as the engine's
``TritonExperts`` launches them. Each call has inputs and a routing of its own, and calls follow until
they have read three times what the L2 cache holds, so that no call finds its experts there. Routing is
drawn evenly; a trained router is less even.
"""

from __future__ import annotations

import contextlib
import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from glmlab.live.moe_candidates import MoeShape
from glmlab.live.moe_compile import Status, refuses, said
from glmlab.tiles import Tile

_FEWEST_CALLS, _MOST_CALLS = 4, 16
_L2_FACTOR = 3
_WRONG = 0.05  # of the largest number of the result; rounding differs by a tenth of that


@dataclass(frozen=True)
class Visit:
    """Samples of one tile at one token count, or why there are none.

    Parameters
    ----------
    samples_us : tuple of float
        Device time of one call, from replays of the graph.
    """

    status: Status
    reason: str = ""
    samples_us: tuple[float, ...] = ()

    @property
    def median_us(self) -> float:
        """Infinite without samples."""
        return statistics.median(self.samples_us) if self.samples_us else math.inf


@dataclass
class _Point:
    """Inputs of one token count: for each call activations, weights of experts, ids of experts."""

    calls: list[tuple[Any, Any, Any]]
    reference: Any = field(default=None, repr=False)


@contextlib.contextmanager
def vllm_context() -> Iterator[None]:
    """What vLLM's layers ask for while they run outside an engine."""
    import torch
    from vllm.config import VllmConfig, set_current_vllm_config

    context: contextlib.AbstractContextManager[Any] = contextlib.nullcontext()
    # A vLLM that will not have a configuration without a model may yet run these kernels without one.
    with contextlib.suppress(Exception):
        context = set_current_vllm_config(VllmConfig())
    with context, torch.inference_mode():
        yield


class MoeBench:
    """Weights of one layer on the GPU, and what measures them; use it within :func:`vllm_context`.

    Parameters
    ----------
    shape : MoeShape
        The layer. Its weights are copied until they exceed the L2 cache.
    seed : int
        Of weights, inputs and routing.
    """

    def __init__(self, shape: MoeShape, seed: int = 0) -> None:
        import torch

        self.shape = shape
        self._seed = seed
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        self._l2_bytes = int(properties.L2_cache_size)
        self._expert_bytes = 3 * shape.n * shape.k * shape.bytes_per_number
        copies = math.ceil(_L2_FACTOR * self._l2_bytes / (shape.experts * self._expert_bytes))
        generator = torch.Generator("cuda").manual_seed(seed)
        self._weights = [self._layer(generator) for _ in range(max(1, copies))]
        self._points: dict[int, _Point] = {}
        self._stream = torch.cuda.Stream()
        # A graph that stays keeps the pool of memory alive which all others are captured into.
        self._pool = torch.cuda.graph_pool_handle()
        self._anchor = self._captured(lambda: torch.zeros(1, device="cuda"))

    def _layer(self, generator: Any) -> tuple[Any, Any, Any]:
        import torch
        from vllm.model_executor.layers.fused_moe.config import (
            FUSED_MOE_UNQUANTIZED_CONFIG,
            fp8_w8a8_moe_quant_config,
        )

        shape = self.shape
        w1 = self._random(shape.experts, 2 * shape.n, shape.k, generator)
        w2 = self._random(shape.experts, shape.k, shape.n, generator)
        if shape.block_shape is None:
            return w1, w2, FUSED_MOE_UNQUANTIZED_CONFIG
        block_n, block_k = shape.block_shape
        scales = [
            torch.full(
                (w.shape[0], w.shape[1] // block_n, w.shape[2] // block_k),
                w.shape[2] ** -0.5,
                dtype=torch.float32,
                device="cuda",
            )
            for w in (w1, w2)
        ]
        config = fp8_w8a8_moe_quant_config(
            w1_scale=scales[0], w2_scale=scales[1], block_shape=shape.block_shape
        )
        return w1, w2, config

    def _random(self, experts: int, rows: int, depth: int, generator: Any) -> Any:
        """Weights that, with their scales, keep the size of what they multiply.

        Drawn expert by expert, to save memory.
        """
        import torch

        quantized = self.shape.dtype == "fp8"
        dtype = torch.float8_e4m3fn if quantized else torch.bfloat16
        weight = torch.empty(experts, rows, depth, dtype=dtype, device="cuda")
        for expert in range(experts):
            drawn = torch.randn(rows, depth, device="cuda", generator=generator)
            weight[expert] = (drawn if quantized else drawn * depth**-0.5).to(dtype)
        return weight

    def _point(self, tokens: int) -> _Point:
        import torch

        if tokens not in self._points:
            shape = self.shape
            touched = shape.experts * (1 - (1 - shape.top_k / shape.experts) ** tokens)
            enough = math.ceil(_L2_FACTOR * self._l2_bytes / (touched * self._expert_bytes))
            generator = torch.Generator("cuda").manual_seed(self._seed + tokens)
            calls = []
            for _ in range(min(max(enough, _FEWEST_CALLS, len(self._weights)), _MOST_CALLS)):
                x = torch.randn(tokens, shape.k, device="cuda", generator=generator).to(torch.bfloat16)
                scores = torch.rand(tokens, shape.experts, device="cuda", generator=generator)
                weights, ids = scores.topk(shape.top_k)
                calls.append((x, weights / weights.sum(-1, keepdim=True), ids.to(torch.int32)))
            self._points[tokens] = _Point(calls)
        return self._points[tokens]

    def default_tile(self, tokens: int) -> Tile:
        """What vLLM takes by itself: its tuned file for this GPU, else its heuristic."""
        from vllm.model_executor.layers.fused_moe import fused_moe

        w1, w2, quant_config = self._weights[0]
        dtype = quant_config.config_name(self._point(tokens).calls[0][0].dtype)
        config = fused_moe.try_get_optimal_moe_config(
            w1.size(), w2.size(), self.shape.top_k, dtype, tokens, block_shape=self.shape.block_shape
        )
        return Tile.from_vllm(config)

    def visit(self, tokens: int, tile: Tile, *, samples: int, worth_us: float = math.inf) -> Visit:
        """Measure one tile once.

        Parameters
        ----------
        samples : int
            Replays that are timed.
        worth_us : float
            Where the first replay says that a call takes longer, it stays the only sample.
        """
        config = {**tile.to_vllm(), "SPLIT_K": 1}
        try:
            with _forced(config):
                if reason := self._differs(tokens):
                    return Visit("wrong", reason)
                calls = self._point(tokens).calls
                graph = self._captured(lambda: [self._call(i, *call) for i, call in enumerate(calls)])
            graph.replay()  # warm: clocks, and the graph's own upload
            first = self._timed(graph, 1, len(calls))
            if first[0] > worth_us:
                return Visit("ok", samples_us=first)
            return Visit("ok", samples_us=first + self._timed(graph, samples - 1, len(calls)))
        except Exception as error:  # noqa: BLE001 (whatever a tile does, it is its result)
            if "OutOfResources" in type(error).__name__:
                return Visit("out_of_resources", said(error))
            return Visit("compile_error" if refuses(error) else "error", said(error))

    def _call(self, index: int, x: Any, weights: Any, ids: Any) -> Any:
        from vllm.model_executor.layers.fused_moe import fused_moe

        w1, w2, quant_config = self._weights[index % len(self._weights)]
        return fused_moe.fused_experts(x, w1, w2, weights, ids, quant_config=quant_config)

    def _differs(self, tokens: int) -> str:
        """Run the first call, which also compiles, against the first tile that ran."""
        point = self._point(tokens)
        found = self._call(0, *point.calls[0]).float()
        if point.reference is None:
            point.reference = found
            return ""
        error = float((found - point.reference).abs().max() / point.reference.abs().max())
        return f"differs by {error:.1%} of the largest number" if not error <= _WRONG else ""

    def _captured(self, body: Any) -> Any:
        import torch

        graph = torch.cuda.CUDAGraph()
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            graph.capture_begin(pool=self._pool)
            try:
                body()
            finally:
                graph.capture_end()
        torch.cuda.current_stream().wait_stream(self._stream)
        return graph

    def _timed(self, graph: Any, replays: int, calls: int) -> tuple[float, ...]:
        import torch

        events: Sequence[tuple[Any, Any]] = [
            (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True))
            for _ in range(replays)
        ]
        for begin, end in events:
            begin.record()
            graph.replay()
            end.record()
        torch.cuda.synchronize()
        return tuple(begin.elapsed_time(end) * 1e3 / calls for begin, end in events)


@contextlib.contextmanager
def _forced(config: dict[str, int]) -> Iterator[None]:
    """vLLM's ``override_config``, which does not clean up after an exception by itself."""
    from vllm.model_executor.layers import fused_moe

    failure: BaseException | None = None
    with fused_moe.override_config(config):
        try:
            yield
        except BaseException as error:  # noqa: BLE001 (raised again below)
            failure = error
    if failure is not None:
        raise failure
