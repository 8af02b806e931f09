"""Experts that a step reads: distinct ones, and those of the rank that has most of them."""

from __future__ import annotations

import itertools
import random

import pytest

from glmlab.decode.experts import distinct_experts, fullest_rank


@pytest.mark.parametrize(("experts", "top_k"), [(160, 8), (256, 8), (64, 4), (16, 2)])
def test_one_token_hits_its_own(experts, top_k):
    assert distinct_experts(experts, top_k, 1) == pytest.approx(top_k)


@pytest.mark.parametrize("tokens", [1, 2, 8, 64, 100_000])
def test_never_more_than_there_are_or_were_chosen(tokens):
    hit = distinct_experts(160, 8, tokens)
    assert hit <= min(160, 8 * tokens) + 1e-9
    assert hit >= distinct_experts(160, 8, max(1, tokens // 2))


def test_as_drawn_at_random():
    stream = random.Random(0)
    drawn = [len({e for _ in range(16) for e in stream.sample(range(64), 4)}) for _ in range(4000)]
    assert sum(drawn) / len(drawn) == pytest.approx(distinct_experts(64, 4, 16), rel=0.01)


@pytest.mark.parametrize(("experts", "hit", "ranks"), [(8, 3, 2), (9, 4, 2), (10, 5, 3), (12, 2, 4)])
def test_the_fullest_rank_as_counted_out(experts, hit, ranks):
    larger = experts % ranks
    home = [rank for rank in range(ranks) for _ in range(experts // ranks + (rank < larger))]
    chosen = list(itertools.combinations(range(experts), hit))
    counted = [max(sum(home[e] == rank for e in each) for rank in range(ranks)) for each in chosen]
    assert fullest_rank(experts, hit, ranks) == pytest.approx(sum(counted) / len(counted))


@pytest.mark.parametrize("hit", [0, 1, 7.5, 29.7, 100, 159.9, 160])
@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_the_fullest_rank_lies_between_an_equal_share_and_all(hit, ranks):
    most = fullest_rank(160, hit, ranks)
    assert hit / ranks - 1e-9 <= most <= min(hit, -(-160 // ranks)) + 1e-9


def test_where_all_are_hit_every_rank_reads_all_of_its_own():
    assert fullest_rank(160, 160, 4) == 40
    assert fullest_rank(10, 10, 4) == 3
