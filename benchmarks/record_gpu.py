"""Record grids of live knobs on one GPU, for glmlab/data/recorded and for the tables in docs.

    python benchmarks/record_gpu.py gqa OUT_DIR     # TRITON_ATTN: GLM-4.7, one rank of four
    python benchmarks/record_gpu.py mla OUT_DIR     # TRITON_MLA: GLM-5.1 REAP-160, dense, one rank of four

Each starts its engine with a cold compile cache, records splits x contexts x batch sizes, then tiles at
the two best split counts, then the cost of live changes, then a restart with a warm cache. For a first
try: ``--long 20000 --visits 1``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import glmlab
from glmlab import Recipe, Workload
from glmlab.engines import Engine
from glmlab.measurement import Measurement
from glmlab.record import record_grid
from glmlab.recorded import load_recording

COMMON: dict[str, Any] = {
    "weights": "random",
    "kv_cache_dtype": "fp8",
    "moe_backend": "triton",
    "max_num_seqs": 16,
    "max_num_batched_tokens": 16384,
    "cudagraph_capture_sizes": (1, 4, 16),
    "kv_cache_bytes": 5_000_000_000,
}
KINDS: dict[str, dict[str, Any]] = {
    "gqa": {
        "model": "glm-4.7@tp4-l2",
        "attention_backend": "TRITON_ATTN",
        "splits": (1, 2, 4, 8, 16, 32, 64, 128, 256),
        "tiles": [
            {"attn_decode_tile": tile, "attn_decode_warps": warps, "attn_decode_stages": stages}
            for tile in (32, 64, 128)
            for warps in (4, 8)
            for stages in (2, 3)
        ],
        "title": "KV splits of TRITON_ATTN, one rank of GLM-4.7 at TP4, FP8 KV",
    },
    "mla": {
        "model": "glm-5.1-reap-160@tp4-l2",
        "attention_backend": "TRITON_MLA",
        "splits": (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 0),
        "tiles": [
            {"attn_decode_tile": tile, "attn_decode_warps": warps, "attn_decode_stages": 2}
            for tile, warps in ((16, 4), (32, 4), (64, 4), (32, 8))
        ],
        "title": "KV splits of TRITON_MLA, one rank of GLM-5.1 REAP-160 at TP4, dense MLA, FP8 KV",
    },
}
NOTES = (
    "a rank twin: kernels have the shapes of one of four ranks, two of the model's layers, random weights",
    "no all-reduce, no memory pressure; the share of attention in a step is that of two layers",
)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("out", type=Path)
    parser.add_argument("--visits", type=int, default=3)
    parser.add_argument("--long", type=int, default=150_000, help="the longest context")
    parser.add_argument("--restart", action="store_true", help="start again, with a warm cache")
    parser.add_argument("--commit", default="", help="of the code that runs")
    asked = parser.parse_args()
    kind, out, visits, commit = asked.kind, asked.out, asked.visits, asked.commit
    contexts = (*(c for c in (256, 4096, 16384, 65536) if c < asked.long), asked.long)
    common = {"new_tokens": 16, "warmup_tokens": 2}
    grid_work = Workload(contexts=contexts, batch_sizes=(1, 4, 16), **common)
    tile_work = Workload(contexts=(16384, asked.long), batch_sizes=(1,), **common)
    one = Workload(contexts=(asked.long,), batch_sizes=(1,), **common)
    this = KINDS[kind]
    recipe = Recipe(
        name=f"{this['model'].replace('@', '-')}-{kind}",
        model=this["model"],
        attention_backend=this["attention_backend"],
        max_model_len=asked.long + 64,
        **COMMON,
    )
    say(f"{recipe.name}: cold start")
    with glmlab.start(recipe) as engine:
        say(f"started in {engine.started.seconds:.1f} s")
        ledger: dict[str, Any] = {"kind": kind, "cold_start_s": engine.started.seconds}
        grid = out / f"{kind}-splits.jsonl.gz"
        done = record_grid(
            engine,
            grid_work,
            [{"kv_splits": splits} for splits in this["splits"]],
            visits,
            grid,
            name=f"{kind}-splits",
            title=this["title"],
            notes=NOTES,
            commit=commit,
            decimals=5,
            progress=progress,
        )
        say(f"grid: {done}")
        best, second = best_two(grid)
        own = {"kv_splits": engine.knobs()["kv_splits"].default}
        ledger["live"] = live_changes(engine, one, [value for value in this["splits"] if value][-5:] * 2)
        ledger["interleaved"] = interleaved(engine, one, own, {"kv_splits": best})
        ledger["many"] = many_changes(engine, one, own, 60)
        save(out, kind, ledger)
        done = record_grid(
            engine,
            tile_work,
            [{"kv_splits": splits, **tile} for splits in (best, second) for tile in this["tiles"]],
            visits,
            out / f"{kind}-tiles.jsonl.gz",
            name=f"{kind}-tiles",
            title=this["title"].replace("KV splits", "Attention tiles"),
            notes=NOTES,
            commit=commit,
            decimals=5,
            progress=progress,
        )
        say(f"tiles: {done}")
    if asked.restart:
        with glmlab.start(recipe) as engine:
            ledger["warm_start_s"] = engine.started.seconds
            fresh = engine.measure(one)
            ledger["restart_prefill_s"] = fresh.prefill_ms / 1e3
            ledger["restart_measure_s"] = fresh.duration_s - fresh.prefill_ms / 1e3
        save(out, kind, ledger)


def save(out: Path, kind: str, ledger: dict[str, Any]) -> None:
    (out / f"{kind}-cost.json").write_text(json.dumps(ledger, indent=1))
    say(json.dumps(ledger))


def many_changes(engine: Engine, one: Workload, own: dict[str, Any], changes: int) -> dict[str, Any]:
    """Many changes in a row and back: are tokens, memory and device time what they were."""
    engine.apply(**own)
    before = engine.measure(one)
    begin = time.perf_counter()
    for index in range(changes):
        engine.apply(kv_splits=(64, 128, 32)[index % 3])
    engine.apply(**own)
    spent_s = time.perf_counter() - begin
    after = engine.measure(one)
    return {
        "changes": changes,
        "apply_s": spent_s / (changes + 1),
        "same_tokens": before.same_tokens(after),
        "device_bytes": [before.memory[0].device_bytes, after.memory[0].device_bytes],
        "peak_device_bytes": [before.memory[0].peak_device_bytes, after.memory[0].peak_device_bytes],
        "device_ms": [device_ms(before), device_ms(after)],
    }


def best_two(path: Path) -> tuple[int, int]:
    """Split counts with the least device time at the long context, batch 1."""
    times: dict[int, float] = {}
    for visit in load_recording(path).visits:
        splits = int(visit.knobs["kv_splits"])
        times[splits] = min(times.get(splits, 1e9), device_ms(visit.measurement))
    ranked = sorted((ms, splits) for splits, ms in times.items() if splits)
    say("  ".join(f"{splits}: {ms:.4f}" for ms, splits in ranked))
    return ranked[0][1], ranked[1][1]


def live_changes(engine: Engine, one: Workload, values: list[int]) -> list[dict[str, float]]:
    """Seconds of each change and of a measurement at the long context, batch 1."""
    rows = []
    for splits in values:
        report = engine.apply(kv_splits=splits)
        begin = time.perf_counter()
        measurement = engine.measure(one)
        rows.append(
            {
                "kv_splits": splits,
                "apply_s": report.seconds,
                "measure_s": time.perf_counter() - begin,
                "prefill_s": measurement.prefill_ms / 1e3,
                "device_ms": device_ms(measurement),
            }
        )
    return rows


def interleaved(
    engine: Engine, one: Workload, baseline: dict[str, Any], best: dict[str, Any]
) -> list[dict[str, Any]]:
    """Six rounds of default and best, each state entered anew."""
    rows = []
    for index in range(6):
        for side in ("baseline", "best") if index % 2 == 0 else ("best", "baseline"):
            engine.apply(**(best if side == "best" else baseline))
            measurement = engine.measure(one)
            point = measurement.points[0]
            rows.append(
                {
                    "side": side,
                    "round": index,
                    "device_ms": device_ms(measurement),
                    "tpot_ms": point.tpot_ms,
                    "family_ms": point.device_family_ms,
                }
            )
    return rows


def device_ms(measurement: Measurement) -> float:
    point = max(measurement.points, key=lambda point: (point.context, -point.batch))
    assert point.device_step_ms
    return sorted(point.device_step_ms)[len(point.device_step_ms) // 2]


def progress(done: int, planned: int, text: str) -> None:
    say(f"{done}/{planned} {text}")


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
