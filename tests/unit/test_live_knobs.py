"""Live knobs over several ranks: all change, or all go back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from glmlab.engines.live_knobs import LiveKnobs, check_allowed, spelled
from glmlab.errors import ApplyError, EngineDiedError, GraphsLostError, KnobError


class Ranks:
    """Workers that answer as glmlab's extension does."""

    def __init__(self, count: int = 2) -> None:
        self.values = [{"kv_splits": 16, "attn_decode_warps": 4} for _ in range(count)]
        self.high = [256] * count
        self.refuses = [""] * count
        self.fails: dict[tuple[int, Any], str] = {}  # (rank, value) -> error
        self.ignores: set[int] = set()  # ranks that stay where they are
        self.dies = False
        self.calls: list[tuple[str, Any]] = []
        self.all_graphs: list[bool] = []

    def __call__(self, method: str, *args: Any) -> list[Any]:
        self.calls.append((method, *args))
        ranks = range(len(self.values))
        if method == "glmlab_check":
            return list(self.refuses)
        if method == "glmlab_probe":
            return [
                {
                    "kv_splits": {"live": True, "value": self.values[r]["kv_splits"], "default": 16}
                    | {"values": tuple(n for n in (8, 16, 64, 256) if n <= self.high[r])},
                    "attn_decode_warps": {"live": True, "value": 4, "low": 1, "high": 8 - r},
                }
                for r in ranks
            ]
        self.all_graphs.append(args[1])
        if self.dies:
            raise EngineDiedError("a worker died")
        return [self._apply(rank, args[0]) for rank in ranks]

    def _apply(self, rank: int, knobs: dict[str, Any]) -> dict[str, Any]:
        error = next((self.fails[rank, v] for v in knobs.values() if (rank, v) in self.fails), "")
        if rank not in self.ignores and not error:
            self.values[rank].update(knobs)
        state = {"rank": rank, "values": dict(self.values[rank])}
        return {"state": state, "kv_kept": True, "graphs": 4, "error": error}


@pytest.fixture
def ranks() -> Ranks:
    return Ranks()


@pytest.fixture
def live(ranks: Ranks) -> LiveKnobs:
    scheduler = SimpleNamespace(
        max_num_running_reqs=8,
        max_num_scheduled_tokens=2048,
        max_model_len=4096,
        scheduler_config=SimpleNamespace(long_prefill_token_threshold=0, enable_chunked_prefill=True),
    )
    return LiveKnobs(ranks, scheduler)


def change(live: LiveKnobs, **knobs: Any) -> tuple[bool, int]:
    return live.change(knobs, live.status())


def test_all_ranks_change_and_prove_it(live: LiveKnobs, ranks: Ranks) -> None:
    assert change(live, kv_splits=64, max_num_seqs=4) == (True, 4)
    assert [values["kv_splits"] for values in ranks.values] == [64, 64]
    assert live.limits.values()["max_num_seqs"] == 4


def test_what_one_rank_has_room_for_is_what_all_may_have(live: LiveKnobs, ranks: Ranks) -> None:
    ranks.high[1] = 64
    status = live.status()
    assert status["kv_splits"].values == (8, 16, 64)
    assert status["attn_decode_warps"].high == 7
    with pytest.raises(KnobError, match="kv_splits = 256: this engine allows 8, 16, 64"):
        check_allowed({"kv_splits": 256}, status)


def test_ranks_that_have_other_values_are_not_live(live: LiveKnobs, ranks: Ranks) -> None:
    ranks.values[1]["kv_splits"] = 8
    assert not live.status()["kv_splits"].live
    assert "ranks disagree" in live.status()["kv_splits"].why


def test_a_rank_that_cannot_take_it_stops_all_before_any_change(live: LiveKnobs, ranks: Ranks) -> None:
    ranks.refuses[1] = "kv_splits = 64: the kernel does not compile"
    with pytest.raises(ApplyError, match="does not compile"):
        change(live, kv_splits=64, max_num_seqs=4)
    assert [call[0] for call in ranks.calls].count("glmlab_apply") == 0
    assert live.limits.values()["max_num_seqs"] == 8


def test_a_rank_that_fails_takes_all_back(live: LiveKnobs, ranks: Ranks) -> None:
    ranks.fails[1, 64] = "OutOfResources: shared memory"
    with pytest.raises(ApplyError, match=r"rank 1 failed: OutOfResources.*; former values restored"):
        change(live, kv_splits=64, max_num_seqs=4)
    assert [values["kv_splits"] for values in ranks.values] == [16, 16]
    assert live.limits.values()["max_num_seqs"] == 8
    assert ranks.all_graphs == [False, True], "ranks that go back capture the same graphs"


def test_a_rank_that_stays_where_it_is_fails_the_change(live: LiveKnobs, ranks: Ranks) -> None:
    ranks.ignores.add(0)
    with pytest.raises(ApplyError, match=r"kv_splits: asked for 64, rank 0 has 16; former values restored"):
        change(live, kv_splits=64)
    assert ranks.values[1]["kv_splits"] == 16


def test_an_engine_that_cannot_go_back_says_that_it_is_lost(live: LiveKnobs, ranks: Ranks) -> None:
    ranks.fails = {(0, 64): "capture failed", (0, 16): "capture failed again"}
    with pytest.raises(GraphsLostError, match=r"capture failed; .*capture failed again.*built anew"):
        change(live, kv_splits=64)


def test_a_dead_worker_is_not_asked_to_go_back(live: LiveKnobs, ranks: Ranks) -> None:
    ranks.dies = True
    with pytest.raises(EngineDiedError):
        change(live, kv_splits=64)
    assert [call[0] for call in ranks.calls].count("glmlab_apply") == 1


def test_tables_of_tiles_have_one_spelling() -> None:
    assert spelled({"moe_tiles": " 16x64x64  g1 w4 s3 ", "kv_splits": 8}) == {
        "moe_tiles": "16x64x64 g1 w4 s3",
        "kv_splits": 8,
    }
    with pytest.raises(KnobError, match=r"moe_tiles = '16x64': .*expected BLOCK_M"):
        spelled({"moe_tiles": "16x64"})
