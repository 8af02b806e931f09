"""How many experts a step reads: distinct ones on average, and of the rank that has to read most.

Tokens choose their experts as if at random, each ``top_k`` different ones, every expert as likely. A trained
router favours some, so that a batch hits fewer and spreads them less evenly over ranks.
"""

from __future__ import annotations

import math
from functools import lru_cache


def distinct_experts(experts: int, top_k: int, tokens: int) -> float:
    """Experts of a layer that so many tokens hit, on average.

    Parameters
    ----------
    experts : int
        Routed experts of a layer.
    top_k : int
        Of each token.
    tokens : int
        Of the step.
    """
    return experts * (1.0 - (1.0 - top_k / experts) ** tokens)


def fullest_rank(experts: int, hit: float, ranks: int) -> float:
    """Of the experts that are hit, those of the rank that has most of them, on average.

    With expert parallelism each rank has whole experts, and all wait for the one that reads most: of 8
    experts out of 160 on 4 ranks it reads 3.5, where tensor parallelism reads an eighth part four times: 2.

    Parameters
    ----------
    experts : int
        Routed experts of a layer; what remains of a division goes one each to the first ranks.
    hit : float
        How many of them are hit; between two whole numbers it is interpolated.
    ranks : int
        That share the experts.
    """
    low = math.floor(hit)
    high = min(math.ceil(hit), experts)
    at_low = _expected_most(experts, low, ranks)
    return at_low if low == high else at_low + (hit - low) * (_expected_most(experts, high, ranks) - at_low)


@lru_cache(maxsize=4096)
def _expected_most(experts: int, hit: int, ranks: int) -> float:
    """Expected value of the largest share, where every choice of ``hit`` experts is as likely."""
    if hit == 0 or ranks == 1:
        return float(hit)
    larger = experts % ranks
    sizes = [experts // ranks + (rank < larger) for rank in range(ranks)]
    least, most = -(-hit // ranks), min(hit, max(sizes))
    all_ways = math.comb(experts, hit)
    # E(most) is the sum over m of the chance that it exceeds m.
    return most - sum(_ways(tuple(sizes), hit, bound) / all_ways for bound in range(least, most))


def _ways(sizes: tuple[int, ...], hit: int, bound: int) -> int:
    """Choices of ``hit`` experts with at most ``bound`` on each rank: a coefficient of a product."""
    ways = [1] + [0] * hit
    for size in sizes:
        own = [math.comb(size, taken) for taken in range(min(size, bound) + 1)]
        ways = [
            sum(own[taken] * ways[total - taken] for taken in range(min(total, len(own) - 1) + 1))
            for total in range(hit + 1)
        ]
    return ways[hit]
