"""Record grids of live knobs on one GPU, for glmlab/data/recorded and for the tables in docs.

    python benchmarks/record_gpu.py OUT_DIR                          # everything
    python benchmarks/record_gpu.py OUT_DIR --kinds gqa --steps costs --restart

Kinds are what runs: ``gqa`` is TRITON_ATTN with one rank of GLM-4.7 at TP4, ``mla`` is TRITON_MLA with one
rank of GLM-5.1 REAP-160 in dense MLA; ``gqa-v1``, ``gqa-fp8`` and ``gqa-nvfp4`` are the first with vLLM's V1
runner and with quantized weights. Steps are what is recorded of each: ``grid`` (splits x contexts x batch
sizes), ``tiles`` (of attention at two split counts), ``costs`` (ten split counts at the longest context),
``variant`` (six of them at three contexts), ``moe`` (the best tiles of a run of moe_tiles.py, in the engine);
``mla:tiles`` is a step of one kind alone. The engines of all kinds start at once, with whatever compile
cache there is, and are then measured one after another. ``--restart`` starts them again afterwards, with
the cache that is there by then. For a first try: ``--long 20000 --visits 1``.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import json
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import glmlab
from glmlab import Recipe, Workload
from glmlab.catalog import find_model
from glmlab.engines import Engine
from glmlab.measurement import Measurement
from glmlab.record import record_grid
from glmlab.tiles import Tile, TileTable

COMMON: dict[str, Any] = {
    "weights": "random",
    "kv_cache_dtype": "fp8",
    "moe_backend": "triton",
    "max_num_seqs": 16,
    "max_num_batched_tokens": 16384,
    "cudagraph_capture_sizes": (1, 4, 16),
    "kv_cache_bytes": 5_000_000_000,
}
GQA: dict[str, Any] = {
    "twin": "h100-glm-4.7-tp4",
    "model": "glm-4.7@tp4-l2",
    "recipe": {"attention_backend": "TRITON_ATTN"},
    "splits": (1, 2, 4, 8, 16, 32, 64, 128, 256),
    "costs": (16, 1, 2, 4, 8, 32, 64, 128, 256, 512),
    "variant": (8, 16, 32, 64, 128, 256),
    "best": (256, 128),
    "moe": "E=160,N=384,K=5120,top_k=8,dtype=bf16",
    "tiles": [
        {"attn_decode_tile": tile, "attn_decode_warps": warps, "attn_decode_stages": stages}
        for tile in (32, 64, 128)
        for warps in (4, 8)
        for stages in (2, 3)
    ],
    "title": "TRITON_ATTN on an H100: one rank of GLM-4.7 at TP4, two layers, FP8 KV",
}
MLA: dict[str, Any] = {
    "twin": "h100-glm-5.1-reap-160-tp4",
    "model": "glm-5.1-reap-160@tp4-l2",
    "recipe": {"attention_backend": "TRITON_MLA"},
    "splits": (1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 0),
    "costs": (0, 4, 8, 16, 32, 64, 96, 128, 192, 256),
    "variant": (0, 16, 32, 64, 128, 256),
    "best": (256, 128),
    "moe": "E=160,N=512,K=6144,top_k=8,dtype=bf16",
    "tiles": [
        {"attn_decode_tile": tile, "attn_decode_warps": warps, "attn_decode_stages": stages}
        for tile in (32, 64, 128)
        for warps in (4, 8)
        for stages in (1, 2)
    ],
    "title": "TRITON_MLA on an H100: one rank of GLM-5.1 REAP-160 at TP4 in dense MLA, two layers, FP8 KV",
}
KINDS: dict[str, dict[str, Any]] = {
    "gqa": GQA,
    "mla": MLA,
    "gqa-v1": {
        **GQA,
        "twin": f"{GQA['twin']}-v1",
        "recipe": {**GQA["recipe"], "env": {"VLLM_USE_V2_MODEL_RUNNER": "0"}},
        "title": f"{GQA['title']}, V1 runner",
    },
    "gqa-fp8": {
        **GQA,
        "twin": f"{GQA['twin']}-fp8",
        "recipe": {**GQA["recipe"], "quantization": "fp8_per_block", "linear_backend": "triton"},
        "title": f"{GQA['title']}, block-FP8 weights",
        "moe": GQA["moe"].replace("bf16", "fp8"),
    },
    "mla-fp8": {
        **MLA,
        "twin": f"{MLA['twin']}-fp8",
        "recipe": {**MLA["recipe"], "quantization": "fp8_per_block", "linear_backend": "triton"},
        "title": f"{MLA['title']}, block-FP8 weights",
        "moe": MLA["moe"].replace("bf16", "fp8"),
    },
    # vLLM quantizes to NVFP4 while it loads on SM100 only, so this one is a folder: see nvfp4_folder.
    "gqa-nvfp4": {
        **GQA,
        "twin": f"{GQA['twin']}-nvfp4",
        "recipe": {**GQA["recipe"], "moe_backend": "marlin"},
        "title": f"{GQA['title']}, NVFP4 weights by Marlin",
    },
}
NOTES = (
    "a rank twin: kernels have the shapes of one of four ranks, two of the model's layers, random weights",
    "no all-reduce, no memory pressure; the share of attention in a step is that of two layers",
)
VISITS = {"grid": 3, "tiles": 3, "costs": 3, "variant": 3, "moe": 2}  # of each step
MOE_BATCHES = (1, 4, 16, 64)
RANKED = 10  # tiles of each batch size that the engine confirms


def main() -> None:
    asked = arguments()
    asked.out.mkdir(parents=True, exist_ok=True)
    recipes = {kind: recipe_of(kind, asked) for kind in asked.kinds}
    ledger: dict[str, Any] = {kind: {} for kind in recipes}
    if asked.copy:
        ledger["copy_gb_s"] = copy_gb_s()
        save(asked.out, ledger)
    for kind, engine in started(recipes, ledger, "start_s"):
        with engine, alone(asked.lock):
            for step in asked.steps:
                of, _, own = step.rpartition(":")
                if of in ("", kind):
                    record(engine, kind, own, asked)
            ledger[kind]["many"] = many_changes(engine, asked.long, asked.many)
        save(asked.out, ledger)
    with alone(asked.lock):
        for kind, engine in started(recipes, ledger, "restart_s") if asked.restart else ():
            with engine:
                measurement = engine.measure(workload_of("costs", asked.long))
            ledger[kind]["restart_prefill_s"] = measurement.prefill_ms / 1e3
            ledger[kind]["restart_measure_s"] = measurement.duration_s - measurement.prefill_ms / 1e3
            save(asked.out, ledger)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--kinds", nargs="*", choices=KINDS, default=["gqa", "mla"])
    parser.add_argument("--steps", nargs="*", default=["grid", "tiles", "costs"], help=", ".join(VISITS))
    parser.add_argument("--tiles", type=Path, help="what moe_tiles.py wrote, for the step moe")
    parser.add_argument("--visits", type=int, help="to each point; by default as many as the step wants")
    parser.add_argument("--long", type=int, default=150_000, help="the longest context")
    parser.add_argument("--many", type=int, default=0, help="changes in a row, to see what they leave")
    parser.add_argument("--restart", action="store_true", help="start again, with a warm cache")
    parser.add_argument("--copy", action="store_true", help="measure the bandwidth of copies first")
    parser.add_argument("--lock", type=Path, help="a file that all who use this GPU lock while they measure")
    parser.add_argument("--commit", default="", help="of the code that runs")
    return parser.parse_args()


def recipe_of(kind: str, asked: argparse.Namespace) -> Recipe:
    this = KINDS[kind]
    fields = {**COMMON, **this["recipe"], "max_model_len": asked.long + 64}
    fields["model"] = str(nvfp4_folder(asked.out)) if kind == "gqa-nvfp4" else this["model"]
    if "grid" not in asked.steps:
        fields["kv_cache_bytes"] = 500_000_000  # batches are small, and more engines fit beside each other
    if {"moe", f"{kind}:moe"} & set(asked.steps):
        fields |= {"max_num_seqs": max(MOE_BATCHES), "cudagraph_capture_sizes": MOE_BATCHES}
    return Recipe(name=f"{this['model'].replace('@', '-')}-{kind}", **fields)


def nvfp4_folder(out: Path) -> Path:
    """The twin as a checkpoint in NVFP4 would describe itself; its numbers are drawn by vLLM."""
    config = dict(find_model(GQA["model"]).config or {})
    config["quantization_config"] = {
        "quant_method": "modelopt",
        "quant_algo": "NVFP4",
        "group_size": 16,
        "ignore": ["lm_head", "*mlp.gate"],
    }
    folder = out / "glm-4.7-tp4-l2-nvfp4"
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    return folder


@contextlib.contextmanager
def alone(lock: Path | None) -> Iterator[None]:
    """The GPU to oneself, among those that know the lock (tests/gpu do)."""
    if lock is None:
        yield
        return
    with lock.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def started(recipes: dict[str, Recipe], ledger: dict[str, Any], field: str) -> list[tuple[str, Engine]]:
    """Engines that started at once, each in a process of its own; one that does not come up is told."""
    with ThreadPoolExecutor() as pool:
        starting = {kind: pool.submit(glmlab.start, recipe) for kind, recipe in recipes.items()}
    engines = []
    for kind, future in starting.items():
        if error := future.exception():
            ledger[kind]["failed"] = str(error)
            say(f"{kind}: {error}\n{getattr(error, 'log_tail', '')}")
            continue
        ledger[kind][field] = future.result().started.seconds
        say(f"{kind}: started in {future.result().started.seconds:.1f} s, with {len(starting) - 1} beside it")
        engines.append((kind, future.result()))
    return engines


def workload_of(step: str, long: int) -> Workload:
    contexts = {
        "grid": (256, 4096, 16384, 65536, long),
        "tiles": (16384, long),
        "costs": (long,),
        "variant": (4096, 16384, long),
        "moe": (256,),
    }[step]
    batches = {"grid": (1, 4, 16), "moe": MOE_BATCHES}.get(step, (1,))
    contexts = tuple(dict.fromkeys(context for context in contexts if context <= long))
    return Workload(contexts=contexts, batch_sizes=batches, new_tokens=16, warmup_tokens=2)


def record(engine: Engine, kind: str, step: str, asked: argparse.Namespace) -> None:
    this = KINDS[kind]
    what = {"tiles": "Tiles", "costs": "Ten KV splits at one context", "moe": "Tiles of fused MoE, engine"}
    if step == "tiles":
        points = [{"kv_splits": splits, **tile} for splits in this["best"] for tile in this["tiles"]]
    elif step == "moe":
        points = [{"moe_tiles": table} for table in ("default", *ranked_tables(asked.tiles, this["moe"]))]
    else:
        points = [{"kv_splits": splits} for splits in this["splits" if step == "grid" else step]]
    name = f"{this['twin']}-{'splits' if step in ('grid', 'variant') else step}"
    # All of them: an earlier step left its last value of knobs that this one does not move.
    own = {key: status.default for key, status in engine.knobs().items() if status.live}
    engine.apply(**{key: value for key, value in own.items() if value is not None})
    done = record_grid(
        engine,
        workload_of(step, asked.long),
        points,
        asked.visits or VISITS[step],
        asked.out / f"{name}.jsonl.gz",
        name=name,
        title=f"{what.get(step, 'KV splits')} of {this['title']}",
        notes=NOTES,
        commit=asked.commit,
        decimals=5,
        progress=lambda done, planned, text: say(f"{kind} {step} {done}/{planned} {text}"),
    )
    say(f"{kind} {step}: {done}")


def ranked_tables(path: Path, shape: str) -> list[str]:
    """The best tile of each token count in one table, the second best in another, and so on.

    Of the interleaved visits that moe_tiles.py made to its finalists.
    """
    seen: dict[int, dict[str, list[float]]] = {tokens: {} for tokens in MOE_BATCHES}
    for line in map(json.loads, path.read_text(encoding="utf-8").splitlines()):
        if line["kind"] == "visit" and line["shape"] == shape and line["samples_us"] and line["visit"]:
            found = seen[line["tokens"]].setdefault(line["tile"], [])
            found.append(statistics.median(line["samples_us"]))
    ranked = {
        tokens: sorted(tiles, key=lambda tile, tiles=tiles: statistics.median(tiles[tile]))
        for tokens, tiles in seen.items()
    }
    return [
        str(TileTable({tokens: Tile.parse(tiles[rank]) for tokens, tiles in ranked.items()}))
        for rank in range(min(RANKED, *map(len, ranked.values())))
    ]


def many_changes(engine: Engine, long: int, changes: int) -> dict[str, Any]:
    """Many changes in a row and back: are tokens, memory and device time what they were."""
    if not changes:
        return {}
    one = workload_of("costs", long)
    own = {"kv_splits": engine.knobs()["kv_splits"].default}
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


def device_ms(measurement: Measurement) -> float:
    return statistics.median(measurement.points[-1].device_step_ms or [])


def copy_gb_s() -> list[float]:
    """Bandwidth of copies within the GPU's memory, bytes read and bytes written both counted."""
    import torch

    source = torch.randint(0, 255, (4 * 2**30,), dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    found = []
    for _ in range(12):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        target.copy_(source)
        end.record()
        end.synchronize()
        found.append(round(2 * source.nbytes / begin.elapsed_time(end) / 1e6, 1))
    say(f"copy: {found[2:]} GB/s")
    return found[2:]


def save(out: Path, ledger: dict[str, Any]) -> None:
    (out / "costs.json").write_text(json.dumps(ledger, indent=1), encoding="utf-8")
    say(json.dumps(ledger))


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


if __name__ == "__main__":
    main()
