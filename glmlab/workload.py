"""Workload: what an engine is asked to do in every trial."""

from __future__ import annotations

import hashlib
import itertools
import math
import random
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from glmlab.errors import WorkloadError
from glmlab.recipe import Count, Flag
from glmlab.yaml_text import kind_of

_FIRST_TOKEN = 3  # ids below are commonly padding, begin and end markers


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, int) and not isinstance(value, bool) else value


@lru_cache(maxsize=64)
def _tokens(seed: int, index: int, vocab_size: int, count: int) -> list[int]:
    """One stream of token ids, of which every prompt is a beginning; the same for every trial."""
    stream = random.Random(f"glmlab/{seed}/{index}")
    return stream.choices(range(_FIRST_TOKEN, vocab_size), k=count)


class Workload(BaseModel):
    """Contexts and batch sizes to measure, each pair a *point*.

    Prompts are token ids drawn from ``seed``: the same for every trial, and a shorter context is
    the beginning of a longer one, so that the KV of the longest serves all of them.

    Parameters
    ----------
    contexts : tuple of int
        Prompt lengths, in tokens.
    batch_sizes : tuple of int
        Requests that are sent together.
    new_tokens : int
        Output tokens of each request; at least 2, since the first is the prefill's.
    warmup_tokens : int
        Output tokens of the pass before the measured one.
    seed : int
        Of the prompts.
    cold_prefill : bool
        Whether the measured pass pays the prefill anew. A study sets it where its objective or
        its knobs need it.
    weights : dict
        Context -> weight in the objective; contexts that are not named weigh 1.
    most_tokens : int, optional
        Points whose sequences come to more tokens together are left out: where the longest context and
        the largest batch are of interest, but not both at once, or exceed the KV cache.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    contexts: Annotated[tuple[Count, ...], BeforeValidator(_listed)] = (256,)
    batch_sizes: Annotated[tuple[Count, ...], BeforeValidator(_listed)] = (1,)
    new_tokens: Annotated[int, Field(ge=2)] = 32
    warmup_tokens: Annotated[int, Field(ge=1)] = 4
    seed: Annotated[int, Field(ge=0)] = 0
    cold_prefill: Flag = False
    weights: dict[int, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)
    most_tokens: Count | None = None

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        for name in ("contexts", "batch_sizes"):
            values = getattr(self, name)
            if not values:
                raise ValueError(f"{name}: is empty")
            twice = {value for value in values if values.count(value) > 1}
            if twice:
                raise ValueError(f"{name}: {min(twice)} is listed twice")
        strangers = sorted(set(self.weights) - set(self.contexts))
        if strangers:
            raise ValueError(f"weights.{strangers[0]}: is not among contexts = {list(self.contexts)}")
        if self.weights and not any(self.weight(context) for context in self.contexts):
            raise ValueError("weights: at least one context must weigh more than 0")
        for place, name in enumerate(("contexts", "batch_sizes")):
            if alone := sorted(set(getattr(self, name)) - {point[place] for point in self.points}):
                least = min(self.tokens(c, b) for c, b in self._pairs if alone[0] == (c, b)[place])
                raise ValueError(
                    f"{name}: {alone[0]} has no point within most_tokens = {self.most_tokens}; its"
                    f" smallest is {least} tokens"
                )
        return self

    @model_serializer(mode="wrap")
    def _as_before_it_had_a_limit(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without a limit nothing is said of one, so that stored studies and fingerprints stay the same."""
        return {k: v for k, v in write(self).items() if k != "most_tokens" or v is not None}

    @classmethod
    def parse(cls, data: Any, where: str = "workload") -> Workload:
        """Validate a mapping; :class:`WorkloadError` in one line where it is wrong."""
        if not isinstance(data, dict):
            raise WorkloadError(f"{where}: expected keys and values, found {kind_of(data)}")
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            raise WorkloadError.from_validation(error, where) from None

    @property
    def points(self) -> tuple[tuple[int, int], ...]:
        """(context, batch) pairs within ``most_tokens``, short contexts and small batches first."""
        most = math.inf if self.most_tokens is None else self.most_tokens
        return tuple(pair for pair in self._pairs if self.tokens(*pair) <= most)

    @property
    def _pairs(self) -> Iterator[tuple[int, int]]:
        return itertools.product(sorted(self.contexts), sorted(self.batch_sizes))

    def tokens(self, context: int, batch: int) -> int:
        """Tokens that a point's sequences have at their end, all together: what the KV cache must hold."""
        return batch * (context + max(self.new_tokens, self.warmup_tokens))

    @property
    def longest(self) -> int:
        """Length of the longest sequence, prompt and output, in tokens."""
        return self.tokens(max(self.contexts), 1)

    def weight(self, context: int) -> float:
        """Weight of a context in the objective."""
        return self.weights.get(context, 1.0)

    def prompt(self, index: int, context: int, vocab_size: int) -> list[int]:
        """Token ids of the ``index``-th request of a batch.

        Parameters
        ----------
        index : int
            Position in the batch; different positions share no prefix.
        context : int
            Length, in tokens.
        vocab_size : int
            Ids are drawn from [3, vocab_size).
        """
        if vocab_size <= _FIRST_TOKEN:
            raise WorkloadError(f"vocab_size = {vocab_size}: must exceed {_FIRST_TOKEN}")
        return _tokens(self.seed, index, vocab_size, max(self.contexts))[:context]

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change if and only if the workload does."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:12]
