"""Plan: tensor, pipeline, data, expert and decode context parallelism together; and every one there is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

_MOST_LABELS = 12


class Plan(NamedTuple):
    """One way to spread a model over ranks; the names are the recipe's.

    Attributes
    ----------
    tensor_parallel, pipeline_parallel, data_parallel : int
        Ranks are their product.
    expert_parallel : bool
        Whether ranks hold whole experts, and not a slice of each.
    decode_context_parallel : int
        How many of the tensor-parallel ranks share the KV of one sequence.
    """

    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    expert_parallel: bool = False
    decode_context_parallel: int = 1

    @property
    def ranks(self) -> int:
        """GPUs that it uses."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def fields(self) -> dict[str, int | bool]:
        """The recipe's fields that it sets."""
        return self._asdict()

    @property
    def label(self) -> str:
        """Such as ``TP2 x PP2``, ``TP4 + EP``, ``TP4 + DCP2``."""
        sizes = {"DP": self.data_parallel, "TP": self.tensor_parallel, "PP": self.pipeline_parallel}
        product = " x ".join(f"{name}{size}" for name, size in sizes.items() if size > 1) or "TP1"
        experts = " + EP" if self.expert_parallel else ""
        shared = f" + DCP{self.decode_context_parallel}" if self.decode_context_parallel > 1 else ""
        return product + experts + shared


def every_plan(count: int, *, shares_context: bool = True) -> Iterator[Plan]:
    """Every combination that has a place on so many GPUs, possible or not for a model; few ranks first.

    Expert parallelism of a single rank is none, so it is listed from two ranks of a layer on.

    Parameters
    ----------
    count : int
        GPUs.
    shares_context : bool
        Whether the engine has decode context parallelism.
    """
    sizes = range(1, count + 1)
    triples = [
        (tensor, stages, replicas)
        for tensor in sizes
        for stages in range(1, count // tensor + 1)
        for replicas in range(1, count // (tensor * stages) + 1)
    ]
    for tensor, stages, replicas in sorted(triples, key=lambda t: (t[0] * t[1] * t[2], -t[0], t[1])):
        for whole_experts in (False, True) if tensor * replicas > 1 else (False,):
            for shared in range(1, tensor + 1):
                if tensor % shared == 0 and (shared == 1 or shares_context):
                    yield Plan(tensor, stages, replicas, whole_experts, shared)


def listed(labels: Sequence[str]) -> str:
    """Labels of plans in a row, the first dozen of many."""
    more = f" and {len(labels) - _MOST_LABELS} more" if len(labels) > _MOST_LABELS else ""
    return ", ".join(labels[:_MOST_LABELS]) + more
