"""What needs no GPU of the fused-MoE benchmark: vLLM's override, and the order of visits."""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from vllm.model_executor.layers import fused_moe

from glmlab.live.moe_bench import Visit, _forced
from glmlab.live.moe_candidates import GpuLimits, MoeShape, candidates
from glmlab.live.moe_compile import Build, refuses
from glmlab.tiles import Tile

SHAPE = MoeShape(160, 384, 5120, 8, "bf16")
OWN = Tile(16, 64, 128, 1, 4, 4)
TILES = candidates(SHAPE, 4, GpuLimits(232_448, (9, 0)), at_most=20)


@pytest.fixture(scope="module")
def script() -> Any:
    """The benchmark, as a module."""
    path = Path(__file__).parents[2] / "benchmarks" / "moe_tiles.py"
    spec = importlib.util.spec_from_file_location("benchmark_moe_tiles", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


class Bench:
    """Tiles take as long as their blocks are wide; those without a warp to spare fail."""

    shape = SHAPE

    def __init__(self, fails: dict[Tile, Visit] | None = None) -> None:
        self.fails = fails or {}
        self.visits: list[Tile] = []

    def visit(self, tokens: int, tile: Tile, *, samples: int, worth_us: float = 1e9) -> Visit:
        self.visits.append(tile)
        took = float(tile.block_n)
        return self.fails.get(tile) or Visit("ok", samples_us=(took,) * (1 if took > worth_us else samples))


def visits(script: Any, bench: Bench) -> tuple[Any, Any, io.StringIO]:
    lines = io.StringIO()
    point = script.Point(4, OWN)
    return script.Visits(bench, point, script.Log(lines)), point, lines


def written(lines: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in lines.getvalue().splitlines()]


def test_vllms_own_goes_first_and_then_every_tile_once(script: Any) -> None:
    bench = Bench()
    runner, point, lines = visits(script, bench)
    runner.search(list(TILES), {}, share_s=60, seed=0)
    assert bench.visits[0] == OWN
    assert sorted(bench.visits[1:]) == [tile for tile in TILES if tile != OWN]
    assert (point.tried, point.failed, point.left_out) == (len(bench.visits), 0, 0)
    slow = [row for row in written(lines) if row["samples_us"][0] > 128]
    assert slow
    assert all(len(row["samples_us"]) == 1 for row in slow)
    assert written(lines)[0]["default"] is True


def test_what_did_not_compile_is_a_line_and_not_launched(script: Any) -> None:
    bench = Bench()
    runner, point, lines = visits(script, bench)
    first, second = TILES[:2]
    built = {(first, 4): Build("out_of_resources", "needs too much"), (second, 4): Build("error", "?")}
    runner.search(list(TILES), built, share_s=60, seed=0)
    assert first not in bench.visits
    assert second in bench.visits  # not known to fail: tried
    (row,) = [row for row in written(lines) if row["status"] != "ok"]
    assert (row["tile"], row["reason"], row["samples_us"]) == (str(first), "needs too much", [])
    assert point.failed == 1


def test_finalists_are_visited_in_turn_and_only_those_visits_count(script: Any) -> None:
    bench = Bench()
    runner, point, lines = visits(script, bench)
    runner.search(list(TILES), {}, share_s=60, seed=0)
    bench.visits.clear()
    runner.compare(argparse.Namespace(finalists=10, rounds=3, samples=5, seed=0))
    third = len(bench.visits) // 3
    rounds = [set(bench.visits[i * third : (i + 1) * third]) for i in range(3)]
    assert rounds[0] == rounds[1] == rounds[2] == set(point.medians_us)
    assert OWN in rounds[0]
    assert 10 <= third <= 11
    assert {len(found) for found in point.medians_us.values()} == {3}
    assert point.best().block_n == 16
    assert {row["visit"] for row in written(lines)} == {0, 1, 2, 3}


def test_without_time_the_rest_is_left_out_and_said_so(script: Any) -> None:
    runner, point, _ = visits(script, Bench())
    runner.search(list(TILES), {}, share_s=-1, seed=0)
    assert (point.tried, point.left_out) == (1, len([tile for tile in TILES if tile != OWN]))


def test_a_lost_gpu_ends_the_shape(script: Any) -> None:
    lost = {TILES[3]: Visit("error", "AcceleratorError: CUDA error: an illegal memory access")}
    runner, _, _ = visits(script, Bench(lost))
    with pytest.raises(RuntimeError, match="CUDA error"):
        runner.search(list(TILES), {}, share_s=60, seed=0)


def test_a_point_whose_own_tile_fails_has_nothing_to_compare_with(script: Any) -> None:
    runner, _, _ = visits(script, Bench({OWN: Visit("error", "something")}))
    with pytest.raises(RuntimeError, match="vLLM's own 16x64x128 g1 w4 s4 could not be measured"):
        runner.search(list(TILES), {}, share_s=60, seed=0)


def test_an_exception_leaves_no_tile_behind_in_vllm() -> None:
    seen = []
    with contextlib.suppress(ZeroDivisionError), _forced({"BLOCK_SIZE_M": 16}):
        seen.append(fused_moe.get_config())
        raise ZeroDivisionError
    assert seen == [{"BLOCK_SIZE_M": 16}]
    assert fused_moe.get_config() is None


def test_only_a_compilers_word_counts_as_a_refusal() -> None:
    assert refuses(RuntimeError("PassManager::run failed"))
    assert not refuses(RuntimeError("CUDA error: out of memory"))
    assert refuses(type("PTXASError", (Exception,), {"__module__": "triton.runtime.errors"})())
