"""How long an all-reduce between the ranks of this engine takes, at the sizes that decoding sends.

Every tensor-parallel layer ends with one, so at batch 1 its latency, not its bandwidth, is a share of each
token. Timed are vLLM's own choice, as a step makes it, and each path that this engine has: call by call,
and on a GPU inside a CUDA graph, where ranks keep pace with each other and vLLM's custom all-reduce reads
its peers' buffers in place.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from glmlab.live.custom_all_reduce import CustomAllReduce

SIZES_BYTES = tuple(1 << shift for shift in range(10, 21, 2))  # 1 KiB to 1 MiB
_REPEATS = 30
_GRAPH_CALLS = 20
_INPUTS = 4
_REPLAYS = 9
_WARM_UP = 10  # NCCL connects at the first calls

Reduce = Callable[[torch.Tensor], "torch.Tensor | None"]


def time_all_reduce(device: torch.device) -> list[dict[str, Any]]:
    """Time all-reduces of bf16 over the tensor-parallel group; every rank of it must call this.

    Returns
    -------
    list of dict
        ``path``, ``bytes``, ``ranks``, ``right`` (whether the sums were), ``wall_us``: each call with its
        launch, and ``device_us``: of one of many in a CUDA graph, ``None`` without a device. Empty where
        there is one rank.
    """
    from vllm.distributed.parallel_state import get_tp_group

    group = get_tp_group()
    if group.world_size == 1:
        return []
    found = []
    for size in SIZES_BYTES:
        for path, reduce in _paths(group):
            # Every rank decides alike, from the shape alone: a path that takes this size here does there.
            if (timed := _time(group, reduce, size, device)) is not None:
                found.append({"path": path, "bytes": size, "ranks": group.world_size, **timed})
    return found


def _paths(group: Any) -> Iterator[tuple[str, Reduce]]:
    """Ways to all-reduce, by name; a path returns ``None`` for what it does not take."""
    yield "vllm", group.all_reduce
    communicator = group.device_communicator
    for name, attribute, method in (
        ("nccl", "pynccl_comm", "all_reduce"),
        ("custom", "ca_comm", "custom_all_reduce"),
    ):
        path = getattr(communicator, attribute, None)
        if path is not None and not getattr(path, "disabled", False):
            yield name, getattr(path, method)


def _time(group: Any, reduce: Reduce, size: int, device: torch.device) -> dict[str, Any] | None:
    data = torch.ones(size // 2, dtype=torch.bfloat16, device=device)
    right = True
    for _ in range(_WARM_UP):
        reduced = reduce(data.clone())  # some paths reduce in place
        if reduced is None:
            return None
        right = right and bool((reduced == group.world_size).all())
    wall_us = _wall_us(reduce, [data.clone() for _ in range(_REPEATS)])
    if device.type == "cpu":
        return {"right": right, "wall_us": wall_us, "device_us": None}
    device_us, reduced = _graph_us(group, reduce, data)
    right = right and bool((reduced == group.world_size).all())
    return {"right": right, "wall_us": wall_us, "device_us": device_us}


def _wall_us(reduce: Reduce, inputs: list[torch.Tensor]) -> float:
    """Median time of one call, waited for each time."""
    taken = []
    for each in inputs:
        begin = time.perf_counter()
        reduce(each)
        if each.device.type != "cpu":
            torch.accelerator.synchronize()
        taken.append((time.perf_counter() - begin) * 1e6)
    return round(statistics.median(taken), 3)


def _graph_us(group: Any, reduce: Reduce, data: torch.Tensor) -> tuple[float, torch.Tensor]:
    """Time of one call of many in a graph, the median of its replays, and what the first call gave.

    Each is timed from the end of a replay before it, at which the ranks are together: from the launch on,
    it would have in it how far their hosts are apart. Of a path that reduces in place only the first
    replay's first sum is known, so that is the one which is kept.
    """
    first, *others = inputs = [data.clone() for _ in range(_INPUTS)]
    calls = [first, *itertools.islice(itertools.cycle(others), _GRAPH_CALLS - 1)]
    if CustomAllReduce().exists:
        CustomAllReduce.captured.extend(inputs)
    graph = torch.cuda.CUDAGraph()
    with group.graph_capture() as context, torch.cuda.graph(graph, stream=context.stream):
        outputs = [reduce(each) for each in calls]
    graph.replay()
    torch.accelerator.synchronize()
    assert outputs[0] is not None
    reduced = outputs[0].clone()
    taken = []
    for _ in range(_REPLAYS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        graph.replay()
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        taken.append(begin.elapsed_time(end) * 1e3 / _GRAPH_CALLS)
    return round(statistics.median(taken), 3), reduced
