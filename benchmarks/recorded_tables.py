"""Print the tables of docs/h100.md from the recordings in glmlab/data/recorded."""

from __future__ import annotations

import statistics

from glmlab.measurement import PointMeasurement
from glmlab.recorded import load_recording
from glmlab.recordings.recording import Recording
from glmlab.stats import judge

LONG = 150_000
OWN = {"h100-glm-4.7-tp4-splits": 16, "h100-glm-5.1-reap-160-tp4-splits": 0}
# Bytes of KV that one decode step must read, per token and layer: 2 KV heads x 128 x (K, V) in FP8;
# a latent of 512 and 64 rotary numbers in FP8.
KV_BYTES = {"h100-glm-4.7-tp4-splits": 512, "h100-glm-5.1-reap-160-tp4-splits": 576}
LAYERS = 2
H100_GB_S = 3350  # nominal, of the data sheet


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
    tiles(load_recording("h100-glm-4.7-tp4-tiles"))


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
    print(f"{kv_bytes / H100_GB_S / 1e6:.3f} ms at the nominal {H100_GB_S} GB/s\n")
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
    print(f"\n## {recording.header.title}\n\nMedian of three visits, {LONG:,} tokens, batch 1\n")
    print("| kv_splits | tile | warps | stages | step, ms | attention, ms |\n|---|---|---|---|---|---|")
    rows = []
    for knobs in recording.points:
        visits = [visit.measurement.point(LONG, 1) for visit in recording.visits_of(knobs)]
        ours = statistics.median((point.device_family_ms or {})["attention"] for point in visits)
        rows.append((statistics.median(map(device_ms, visits)), ours, tuple(knobs.values())))
    for step, ours, values in sorted(rows):
        print("| " + " | ".join(map(str, values)) + f" | {step:.3f} | {ours:.3f} |")


if __name__ == "__main__":
    main()
