"""Prediction: what decode steps of a recipe are expected to take, term by term, with a range."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from glmlab.decode.attention import kv_ms
from glmlab.decode.collectives import collectives_ms
from glmlab.decode.constants import CASES, Case
from glmlab.decode.floor import kernels_ms, waiting_ms
from glmlab.decode.pipeline import batches_under_way, pipeline_ms
from glmlab.decode.setup import Setup
from glmlab.decode.weights import weights_ms
from glmlab.units import counted

Term = Literal["weights", "kv", "collectives", "pipeline", "floor"]
TERMS: tuple[Term, ...] = ("weights", "kv", "collectives", "pipeline", "floor")
_DIGITS = 4


class Range(NamedTuple):
    """A number and the two ends of what it may be."""

    low: float
    value: float
    high: float


@dataclass(frozen=True)
class PredictedPoint:
    """One (context, batch) point.

    Attributes
    ----------
    context, batch : int
        Tokens of each sequence, and sequences of all replicas together.
    terms : dict
        Term -> milliseconds: ``weights`` and ``kv`` to be read, ``collectives`` between ranks, ``pipeline``
        between stages, ``floor`` for what no fewer bytes would save.
    tpot : Range
        Milliseconds per output token of a sequence: the sum of the terms, and with all constants at one end.
    """

    context: int
    batch: int
    terms: dict[Term, Range]
    tpot: Range

    @property
    def tpot_ms(self) -> float:
        """Milliseconds per output token."""
        return self.tpot.value

    @property
    def tokens_per_s(self) -> float:
        """Output tokens a second of all sequences together."""
        return self.batch / self.tpot.value * 1e3

    def to_json(self) -> dict[str, Any]:
        """What ``glmlab predict --json`` prints of it."""
        return {
            "context": self.context,
            "batch": self.batch,
            "tokens_per_s": round(self.tokens_per_s, _DIGITS),
            "tpot_ms": round(self.tpot.value, _DIGITS),
            "low_ms": round(self.tpot.low, _DIGITS),
            "high_ms": round(self.tpot.high, _DIGITS),
            "terms_ms": {term: round(self.terms[term].value, _DIGITS) for term in TERMS},
            "terms_low_ms": {term: round(self.terms[term].low, _DIGITS) for term in TERMS},
            "terms_high_ms": {term: round(self.terms[term].high, _DIGITS) for term in TERMS},
        }


@dataclass(frozen=True, repr=False)
class Prediction:
    """What :func:`glmlab.predictor.predict` found.

    Attributes
    ----------
    setup : Setup
        What it is about.
    count : int
        GPUs that there are.
    points : tuple of PredictedPoint
        By context, then by batch.
    notes : tuple of str
        What a reader must know, one line each.
    """

    setup: Setup
    count: int
    points: tuple[PredictedPoint, ...]
    notes: tuple[str, ...] = ()

    def point(self, context: int, batch: int = 1) -> PredictedPoint:
        """The point of one context and batch; KeyError where it was not asked for."""
        for found in self.points:
            if (found.context, found.batch) == (context, batch):
                return found
        raise KeyError((context, batch))

    @property
    def tokens_per_s(self) -> float:
        """Output tokens a second over all points, as many steps at each."""
        return tokens_per_s_of(self.points)

    def to_json(self) -> dict[str, Any]:
        """What ``glmlab predict --json`` prints; times are milliseconds."""
        recipe = self.setup.recipe
        return {
            "evidence": "predicted",
            "recipe": recipe.name,
            "gpu": self.setup.gpu.name,
            "count": self.count,
            "ranks": recipe.ranks,
            "serving_engine": recipe.serving_engine,
            "attention_backend": self.setup.choices.attention_backend,
            "moe_backend": self.setup.choices.moe_backend,
            "together": self.setup.together,
            "points": [point.to_json() for point in self.points],
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        return (
            f"Prediction({self.setup.recipe.name} on {self.count} x {self.setup.gpu.name}:"
            f" {self.tokens_per_s:,.1f} tokens/s over {counted(len(self.points), 'point')}, predicted)"
        )

    def _repr_html_(self) -> str:
        from glmlab.decode.tables import prediction_html

        return prediction_html(self)


def tokens_per_s_of(points: Sequence[PredictedPoint]) -> float:
    """Output tokens a second over some points, as many steps at each."""
    return sum(point.batch for point in points) / sum(point.tpot_ms for point in points) * 1e3


def predict_point(setup: Setup, context: int, batch: int) -> PredictedPoint:
    """One point: each case of the constants by itself.

    Parameters
    ----------
    setup : Setup
        What the prediction is about.
    context : int
        Tokens of each sequence.
    batch : int
        Sequences, over all replicas.
    """
    cases = {case: _terms(setup, context, batch, case) for case in CASES}
    terms = {term: Range(*(cases[case][term] for case in CASES)) for term in TERMS}
    return PredictedPoint(context, batch, terms, Range(*(sum(cases[case].values()) for case in CASES)))


def _terms(setup: Setup, context: int, batch: int, case: Case) -> dict[Term, float]:
    of_replica = -(-batch // setup.recipe.data_parallel)
    batches = batches_under_way(setup, of_replica, case)
    sequences = -(-of_replica // batches)
    stages = range(len(setup.stages))
    weights = [weights_ms(setup, stage, sequences, case) for stage in stages]
    kv = [kv_ms(setup, stage, sequences, context, case) for stage in stages]
    collectives = [collectives_ms(setup, stage, sequences, case) for stage in stages]
    floor = [kernels_ms(setup, stage, sequences, case) for stage in stages]
    each = [sum(parts) for parts in zip(weights, kv, collectives, floor, strict=True)]
    between = pipeline_ms(setup, each, sequences, batches, case)
    waiting = waiting_ms(setup, sum(each) + between, batches, case)
    return {
        "weights": sum(weights),
        "kv": sum(kv),
        "collectives": sum(collectives),
        "pipeline": between,
        "floor": sum(floor) + waiting,
    }
