"""What ranks of a layer send each other in one step.

As vLLM 0.32.0 does it (models glm4_moe and deepseek_v2; layers linear, vocab_parallel_embedding,
logits_processor):

- an all-reduce after attention and one after the feed-forward of each layer, experts whole or sliced alike:
  expert parallelism at ``data_parallel`` 1 has no all-to-all;
- one after the embedding, and the logits gathered at the end;
- with ``data_parallel`` above 1 the tokens of all replicas are gathered before the experts of each layer and
  their outputs scattered after, in place of the second all-reduce (``all2all_backend``
  allgather_reducescatter);
- with ``decode_context_parallel`` queries are gathered, softmax sums, too, and outputs scattered, in each
  layer (v1/attention/ops/dcp.py).

A gather or a scatter moves half of what an all-reduce of the same size moves, and is taken as one of half
the size.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from glmlab.decode.constants import Case
from glmlab.decode.setup import Setup
from glmlab.models.shape import GqaShape, MlaShape

_SUM_BYTES = 4  # one softmax sum, float32


@dataclass(frozen=True)
class Collective:
    """One kind of exchange within a step.

    Attributes
    ----------
    what : str
        In a few words.
    count : int
        How often in a step.
    ranks : int
        That take part.
    size : float
        Bytes of the all-reduce that takes as long.
    """

    what: str
    count: int
    ranks: int
    size: float


def collectives_of(setup: Setup, stage: int, sequences: int) -> Iterator[Collective]:
    """All exchanges of one stage in one step.

    Parameters
    ----------
    setup : Setup
        What the prediction is about.
    stage : int
        Of the pipeline, from 0.
    sequences : int
        Of one replica, decoded together.
    """
    recipe, shape = setup.recipe, setup.shape
    first, last = setup.stages[stage]
    layers = last - first
    dense = max(0, min(last, shape.first_k_dense_replace) - first)
    tensor, replicas = recipe.tensor_parallel, recipe.data_parallel
    message = sequences * setup.hidden_bytes
    if replicas > 1 and layers > dense:
        together = sequences * replicas * setup.hidden_bytes / 2
        yield Collective("tokens to the experts", layers - dense, tensor * replicas, together)
        yield Collective("outputs of the experts", layers - dense, tensor * replicas, together)
    if tensor == 1:
        return
    yield Collective("attention", layers, tensor, message)
    yield Collective("feed-forward", dense if replicas > 1 else layers, tensor, message)
    if first == 0:
        yield Collective("embedding", 1, tensor, message)
    if last == shape.num_hidden_layers:
        yield Collective("logits", 1, tensor, sequences * shape.vocab_size * setup.activation_bytes / 2)
    yield from _of_shared_context(setup, layers, sequences)


def collectives_ms(setup: Setup, stage: int, sequences: int, case: Case) -> float:
    """Milliseconds of all exchanges of a stage in one step.

    Parameters
    ----------
    setup, stage, sequences
        As for :func:`collectives_of`.
    case : {"best", "value", "worst"}
        Which end of the tables.
    """
    return sum(
        each.count * setup.all_reduce_ms(each.ranks, each.size, case)
        for each in collectives_of(setup, stage, sequences)
    )


def _of_shared_context(setup: Setup, layers: int, sequences: int) -> Iterator[Collective]:
    shared = setup.recipe.decode_context_parallel
    if shared == 1:
        return
    heads = sequences * setup.heads * shared  # of all ranks that share a sequence
    if isinstance(setup.shape, GqaShape):
        query = output = setup.shape.head_size
    else:
        assert isinstance(setup.shape, MlaShape)
        query, output = setup.shape.kv_values_per_layer, setup.shape.kv_lora_rank
    yield Collective("queries", layers, shared, heads * query * setup.activation_bytes / 2)
    yield Collective("softmax sums", layers, shared, heads * _SUM_BYTES / 2)
    yield Collective("outputs", layers, shared, heads * output * setup.activation_bytes / 2)
