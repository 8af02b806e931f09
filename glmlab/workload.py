"""Workload: what an engine is asked to do in every trial."""

from __future__ import annotations

import hashlib
import random
from functools import lru_cache
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

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
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    contexts: Annotated[tuple[Count, ...], BeforeValidator(_listed)] = (256,)
    batch_sizes: Annotated[tuple[Count, ...], BeforeValidator(_listed)] = (1,)
    new_tokens: Annotated[int, Field(ge=2)] = 32
    warmup_tokens: Annotated[int, Field(ge=1)] = 4
    seed: Annotated[int, Field(ge=0)] = 0
    cold_prefill: Flag = False
    weights: dict[int, Annotated[float, Field(ge=0)]] = Field(default_factory=dict)

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
        return self

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
        """All (context, batch) pairs, short contexts and small batches first."""
        return tuple((c, b) for c in sorted(self.contexts) for b in sorted(self.batch_sizes))

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, prompt and output, in tokens."""
        return max(self.contexts) + max(self.new_tokens, self.warmup_tokens)

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
