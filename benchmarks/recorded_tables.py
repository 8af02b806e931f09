"""Print the tables of docs/h100.md from the recordings in glmlab/data/recorded.

And those of fused MoE from benchmarks/results/moe-tiles-h100.jsonl.gz, which moe_tiles.py wrote.
"""

from __future__ import annotations

import gzip
import json
import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from glmlab.catalog import find_model
from glmlab.measurement import PointMeasurement
from glmlab.models.weight_table import weight_table
from glmlab.recorded import load_recording
from glmlab.recordings.recording import Recording
from glmlab.stats import judge

LONG = 150_000
OWN = {"h100-glm-4.7-tp4-splits": 16, "h100-glm-5.1-reap-160-tp4-splits": 0}
# Bytes of KV that one decode step must read, per token and layer: 2 KV heads x 128 x (K, V) in FP8;
# a latent of 512 and 64 rotary numbers in FP8.
KV_BYTES = {"h100-glm-4.7-tp4-splits": 512, "h100-glm-5.1-reap-160-tp4-splits": 576}
LAYERS = 2
H100_GB_S = 2975  # a copy, bytes read and written: 2,963 to 2,981 in ten on the machine of the recordings
VARIANTS = {
    "h100-glm-4.7-tp4-splits": "BF16 weights, V2",
    "h100-glm-4.7-tp4-v1-splits": "BF16 weights, V1",
    "h100-glm-4.7-tp4-fp8-splits": "block-FP8 weights, V2",
}
MOE_FILE = Path(__file__).parent / "results" / "moe-tiles-h100.jsonl.gz"


def main() -> None:
    for name, own in OWN.items():
        recording = load_recording(name)
        print(f"\n## {recording.header.title}\n")
        print(f"{recording.header.origin}; Triton {recording.header.triton}, driver", end=" ")
        print(f"{recording.header.gpus[0].driver}. Engine start {recording.header.start_s[0]:.0f} s.\n")
        for batch in recording.header.workload.batch_sizes:
            step_table(recording, batch)
        attention(recording)
        verdict(recording, own)
        costs(recording)
    for name in ("h100-glm-4.7-tp4-tiles", "h100-glm-5.1-reap-160-tp4-tiles"):
        tiles(load_recording(name))
    for name in ("h100-glm-4.7-tp4-costs", "h100-glm-5.1-reap-160-tp4-costs"):
        changes(load_recording(name))
        floor(load_recording(name))
    variants()
    moe_alone()
    for name in ("h100-glm-4.7-tp4-v1-moe", "h100-glm-4.7-tp4-fp8-moe"):
        moe_in_the_engine(load_recording(name))


def points(recording: Recording, splits: object, context: int, batch: int) -> list[PointMeasurement]:
    visits = recording.visits_of({"kv_splits": splits})  # type: ignore[dict-item]
    return [visit.measurement.point(context, batch) for visit in visits]


def device_ms(point: PointMeasurement) -> float:
    return statistics.median(point.device_step_ms or [])


def step_table(recording: Recording, batch: int) -> None:
    """Device time of a step: median of the visits, and how far they lie apart."""
    contexts = recording.header.workload.contexts
    print(f"Device time of a decode step in ms, batch {batch}: median of the visits (largest / smallest)\n")
    print("| kv_splits | " + " | ".join(f"{context:,}" for context in contexts) + " |")
    print("|---" * (len(contexts) + 1) + "|")
    for splits in sorted(recording.header.knobs["kv_splits"], key=int):
        cells = []
        for context in contexts:
            times = [device_ms(point) for point in points(recording, splits, context, batch)]
            cells.append(f"{statistics.median(times):.3f} ({max(times) / min(times) - 1:.1%})")
        print(f"| {splits or 'own choice'} | " + " | ".join(cells) + " |")
    print()


def attention(recording: Recording) -> None:
    """Attention alone at the long context, batch 1, against what reading its KV would take."""
    kv_bytes = KV_BYTES[recording.name] * LONG * LAYERS
    print(
        f"Attention at {LONG:,} tokens, batch 1: {LAYERS} layers read {kv_bytes / 1e6:.0f} MB of KV, in",
        end=" ",
    )
    print(f"{kv_bytes / H100_GB_S / 1e6:.3f} ms at a copy's {H100_GB_S} GB/s\n")
    print("| kv_splits | attention, ms | GB/s | other kernels, ms |\n|---|---|---|---|")
    for splits in sorted(recording.header.knobs["kv_splits"], key=int):
        families = [point.device_family_ms or {} for point in points(recording, splits, LONG, 1)]
        ours = statistics.median(family["attention"] for family in families)
        rest = statistics.median(sum(family.values()) - family["attention"] for family in families)
        print(f"| {splits or 'own choice'} | {ours:.3f} | {kv_bytes / ours / 1e6:.0f} | {rest:.3f} |")
    print()


def verdict(recording: Recording, own: int) -> None:
    """The best at the long context against vLLM's own, paired by round."""
    splits = [value for value in recording.header.knobs["kv_splits"] if value != own]
    full = [s for s in splits if len(points(recording, s, LONG, 1)) == len(points(recording, own, LONG, 1))]
    best = min(full, key=lambda s: statistics.median(device_ms(p) for p in points(recording, s, LONG, 1)))
    sides = [[device_ms(p) for p in points(recording, side, LONG, 1)] for side in (own, best)]
    found = judge(*sides, metric="device_ms")
    print(
        f"{best} splits against vLLM's own ({own or 'up to 264'}), {LONG:,} tokens, batch 1: {found.reason}\n"
    )


def costs(recording: Recording) -> None:
    seen: set[str] = set()
    first, again = [], []
    for visit in recording.visits:
        (again if str(visit.knobs) in seen else first).append(visit.apply_s)
        seen.add(str(visit.knobs))
    prefill_s = recording.visits[0].measurement.prefill_ms / 1e3
    print(
        f"Live change: {_spread(again)} for a value seen before, {_spread(first[1:])} for a new one.", end=" "
    )
    print(f"Prefill of all points at the first visit: {prefill_s:.0f} s; later none.\n")


def _spread(seconds: list[float]) -> str:
    middle = statistics.median(seconds)
    return f"{middle:.2f} s ({len(seconds)} changes, {min(seconds):.2f} to {max(seconds):.2f} s)"


def tiles(recording: Recording) -> None:
    """Attention tiles: device time of a step, and of attention, at the long context."""
    each = {len(recording.visits_of(knobs)) for knobs in recording.points} - {0}
    print(f"\n## {recording.header.title}\n\n{LONG:,} tokens, batch 1, visits of each: {sorted(each)}\n")
    print("| kv_splits | tile | warps | stages | step, ms | attention, ms |\n|---|---|---|---|---|---|")
    rows = []
    for knobs in recording.points:
        if recording.failure_of(knobs):
            continue
        visits = [visit.measurement.point(LONG, 1) for visit in recording.visits_of(knobs)]
        ours = statistics.median((point.device_family_ms or {})["attention"] for point in visits)
        rows.append((statistics.median(map(device_ms, visits)), ours, tuple(knobs.values())))
    for step, ours, values in sorted(rows):
        print("| " + " | ".join(map(str, values)) + f" | {step:.3f} | {ours:.3f} |")
    for knobs in recording.points:
        if failure := recording.failure_of(knobs):
            print(
                "| "
                + " | ".join(map(str, knobs.values()))
                + f" | {failure.error.split(': ')[-1].split(';')[0]} | |"
            )


def changes(recording: Recording) -> None:
    """Seconds of a change to a new value, to one seen before, and of a measurement."""
    print(f"\n## {recording.header.title}\n")
    seen: set[str] = set()
    first, again, measured = [], [], []
    for visit in recording.visits:
        (again if str(visit.knobs) in seen else first).append(visit.apply_s)
        seen.add(str(visit.knobs))
        measured.append(visit.measurement.duration_s - visit.measurement.prefill_ms / 1e3)
    print(
        f"New value {_spread(first[1:])}; seen before {_spread(again)}; measuring {_spread(measured)};",
        end="",
    )
    print(f" prefill, once, {recording.visits[0].measurement.prefill_ms / 1e3:.1f} s")


def floor(recording: Recording) -> None:
    """What a step must read at a copy's bandwidth, beside what it takes: best and own choice."""
    attention, weights = _must_read(recording)
    print("\n| kv_splits | part | must read | floor, ms | took, ms | floor / took |\n" + "|---" * 6 + "|")
    own = recording.points[0]["kv_splits"]
    best = min(recording.points, key=lambda knobs: _middle(recording, knobs, device_ms))["kv_splits"]
    for splits in dict.fromkeys((own, best)):
        knobs = {"kv_splits": splits}
        families = [
            visit.measurement.points[0].device_family_ms or {} for visit in recording.visits_of(knobs)
        ]
        family = {name: statistics.median(found[name] for found in families) for name in families[0]}
        rows = [
            ("attention: KV", attention, family["attention"]),
            ("experts' weights", weights["routed_experts"], family["moe"]),
            ("other weights", sum(weights.values()) - weights["routed_experts"], family["gemm"]),
            ("other kernels", 0, family["other"]),
        ]
        for part, must, took in rows:
            least = must / H100_GB_S / 1e6
            print(
                f"| {splits} | {part} | {must / 1e6:.0f} MB | {least:.3f} | {took:.3f} | {least / took:.0%} |"
            )
        least = (attention + sum(weights.values())) / H100_GB_S / 1e6
        step = _middle(recording, knobs, device_ms)
        print(f"| {splits} | whole step on the device | | {least:.3f} | {step:.3f} | {least / step:.0%} |")
        wall = _middle(recording, knobs, lambda point: point.tpot_ms)
        print(f"| {splits} | gaps: wall less device | | | {wall - step:.2f} | |")


def _must_read(recording: Recording) -> tuple[int, dict[str, int]]:
    """Bytes of KV, and of matrices by part, that one step of one sequence reads."""
    model = find_model(recording.header.recipe.model)
    table, config = weight_table(model.shape), model.config or {}
    share = config["num_experts_per_tok"] / config["n_routed_experts"]
    found: dict[str, int] = defaultdict(int)
    for weights, layers in ((table.attention, 2), (table.dense, 1), (table.moe, 1), (table.last, 1)):
        for weight in weights:
            if weight.is_matrix:
                each = 4 if weight.part == "router" else 2  # vLLM holds the router in FP32
                once = share if weight.part == "routed_experts" else 1
                found[weight.part] += int(weight.params * layers * each * once)
    kv_bytes = KV_BYTES[recording.name.replace("costs", "splits")] * LONG * LAYERS
    return kv_bytes, dict(found)


def _middle(recording: Recording, knobs: Any, of: Any) -> float:
    return statistics.median(of(visit.measurement.points[0]) for visit in recording.visits_of(knobs))


def variants() -> None:
    """What other weights and the other runner change."""
    print(f"\n## Weights and runners, {LONG:,} tokens, batch 1: step / attention, ms\n")
    print("| kv_splits | " + " | ".join(VARIANTS.values()) + " |\n|---" + "|---" * len(VARIANTS) + "|")
    for splits in load_recording("h100-glm-4.7-tp4-v1-splits").header.knobs["kv_splits"]:
        cells = []
        for name in VARIANTS:
            found = points(load_recording(name), splits, LONG, 1)
            ours = statistics.median((point.device_family_ms or {})["attention"] for point in found)
            cells.append(f"{statistics.median(map(device_ms, found)):.3f} / {ours:.3f}")
        print(f"| {splits} | " + " | ".join(cells) + " |")


def moe_alone() -> None:
    """The best of all tiles that were tried, kernels alone, against vLLM's own."""
    print("\n## Tiles of fused MoE, kernels alone\n")
    print("| shape | tokens | tried | vLLM's own | µs | best | µs | own / best, each round |")
    print("|---" * 8 + "|")
    tried: dict[tuple[str, int], int] = defaultdict(int)
    rounds: dict[tuple[str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    own: dict[tuple[str, int], str] = {}
    with gzip.open(MOE_FILE, "rt", encoding="utf-8") as file:
        for line in map(json.loads, file):
            if line["kind"] != "visit":
                continue
            key = (line["shape"], line["tokens"])
            tried[key] += line["visit"] == 0
            if line["default"]:
                own[key] = line["tile"]
            if line["visit"]:
                rounds[key][line["tile"]].append(statistics.median(line["samples_us"]))
    for key, tiles in rounds.items():
        best = min(tiles, key=lambda tile, tiles=tiles: statistics.median(tiles[tile]))  # type: ignore[misc]
        theirs, ours = tiles[own[key]], tiles[best]
        sizes, dtype = key[0].rpartition(",top_k")[0], key[0].rpartition("=")[2]
        print(
            f"| {sizes} {dtype} | {key[1]} | {tried[key]} | {own[key]}"
            f" | {statistics.median(theirs):.1f} | {best} | {statistics.median(ours):.1f}"
            f" | {', '.join(f'{a / b:.2f}' for a, b in zip(theirs, ours, strict=True))} |"
        )


def moe_in_the_engine(recording: Recording) -> None:
    """Time of all MoE kernels of a step: vLLM's own tiles, and the ten best by rank."""
    batches = recording.header.workload.batch_sizes
    print(
        f"\n## {recording.header.title}\n\nMoE kernels of a step in µs, and the whole step, by batch size\n"
    )
    print("| tiles | " + " | ".join(map(str, batches)) + " |\n|---" + "|---" * len(batches) + "|")
    for knobs in recording.points:
        cells = []
        for batch in batches:
            found = [visit.measurement.point(256, batch) for visit in recording.visits_of(knobs)]
            moe = statistics.median((point.device_family_ms or {})["moe"] for point in found)
            cells.append(f"{moe * 1e3:.1f} ({statistics.median(map(device_ms, found)) * 1e3:.0f})")
        name = "vLLM's own" if knobs["moe_tiles"] == "default" else str(knobs["moe_tiles"])
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
