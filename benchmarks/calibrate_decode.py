"""Print the constants of data/calibration/decode.yaml that come from the recordings, with their spread.

Two rank twins on an H100 (two layers each, one with experts): what their matrix products, experts, attention
and other kernels took, over the bytes that each had to read.
"""

from __future__ import annotations

import math
import statistics

import numpy as np
from scipy.optimize import least_squares

from glmlab.decode.constants import constants
from glmlab.decode.experts import distinct_experts
from glmlab.decode.setup import Setup
from glmlab.footprint.split_kv import decode_splits
from glmlab.gpus import find_gpu
from glmlab.memory import fit
from glmlab.models.shape import GqaShape
from glmlab.recorded import list_recordings, load_recording
from glmlab.recordings.recording import Recording

TWINS = ("h100-glm-4.7-tp4-splits", "h100-glm-5.1-reap-160-tp4-splits")
FP8 = "h100-glm-4.7-tp4-fp8-splits"
LAYERS = 2
PRODUCTS = 8  # of quantized dense matrices in its two layers: q/k/v, o, gate and up, down; twice
H100 = find_gpu("h100")
EXPONENTS = (1.0, 1.5, 2.0, 3.0)
TILE = 32


def main() -> None:
    for name in TWINS:
        recording = load_recording(name)
        found = fit(recording.header.recipe, H100, 1)
        setup = Setup(found.recipe, found.model, H100, found.choices, constants())
        print(f"\n## {recording.header.title}\n")
        dense(recording, setup)
        experts(recording, setup)
        others(recording)
        attention(recording, setup)
    if FP8 in list_recordings():
        quantized(load_recording(FP8))
    host()


def family_ms(recording: Recording, knobs: dict[str, object], context: int, batch: int) -> dict[str, float]:
    """Kernel family -> median over the visits of a point."""
    points = [visit.measurement.point(context, batch) for visit in recording.visits_of(knobs)]
    names = points[0].device_family_ms or {}
    return {name: statistics.median((p.device_family_ms or {})[name] for p in points) for name in names}


def dense(recording: Recording, setup: Setup) -> None:
    """Share of the bandwidth that matrix products get, experts left out."""
    parts = setup.weights[0].parts
    size = sum(parts[part] for part in parts if part not in ("routed_experts", "embedding", "mtp"))
    shares = [
        size / 1e6 / family_ms(recording, dict(knobs), context, batch)["gemm"] / H100.bandwidth_gb_s
        for knobs in recording.points
        for context, batch in recording.header.workload.points
    ]
    print(f"dense_bandwidth_share: {_spread(shares)}")


def experts(recording: Recording, setup: Setup) -> None:
    """Slope and foot of the line of the experts' time over the bytes that are hit."""
    shape, whole = setup.shape, setup.weights[0].parts["routed_experts"]
    contexts = recording.header.workload.contexts
    for label, of in (("short contexts", contexts[:2]), ("150,000 tokens", contexts[-1:])):
        sizes, times = [], []
        for batch in recording.header.workload.batch_sizes:
            hit = distinct_experts(shape.n_routed_experts, shape.num_experts_per_tok, batch)
            for knobs in recording.points:
                for context in of:
                    sizes.append(whole * hit / shape.n_routed_experts)
                    times.append(family_ms(recording, dict(knobs), context, batch)["moe"] * 1e3)
        slope, foot = np.polyfit(sizes, times, 1)
        print(f"experts, {label}: share {1 / slope / 1e3 / H100.bandwidth_gb_s:.2f}, {foot:.1f} us a layer")


def others(recording: Recording) -> None:
    """All small kernels, over the layers."""
    for batch in recording.header.workload.batch_sizes:
        times = [
            family_ms(recording, dict(knobs), context, batch)["other"] * 1e3 / LAYERS
            for knobs in recording.points
            for context in recording.header.workload.contexts
        ]
        print(f"layer_us, batch {batch}: {_spread(times)}")


def attention(recording: Recording, setup: Setup) -> None:
    """Constants of the attention kernel for some exponents, and how far the fit is off."""
    own = decode_splits(setup.recipe.replace(kv_splits=0), setup.shape, H100, setup.choices)
    grouped = isinstance(setup.shape, GqaShape)
    blocks = setup.shape.kv_heads if grouped else math.ceil(setup.heads / 16)
    each = setup.layer_kv_bytes / (blocks if grouped else 1)
    rows = []
    for knobs in recording.points:
        for context, batch in recording.header.workload.points:
            time = family_ms(recording, dict(knobs), context, batch)["attention"] * 1e3 / LAYERS
            rows.append((int(knobs["kv_splits"] or own), batch, context, time))
    splits, batches, contexts, times = np.array(rows, dtype=float).T

    def model(logs: np.ndarray, exponent: float) -> np.ndarray:
        fixed, split, split_sequence, program, together = np.exp(logs)
        working = np.minimum(splits, np.ceil(contexts / TILE))
        serial = contexts * each / working / (program * 1e3)
        shared = batches * contexts * each * blocks / (together * 1e3)
        read = (serial**exponent + shared**exponent) ** (1 / exponent)
        return fixed + splits * (split + batches * split_sequence) + read

    for exponent in EXPONENTS:
        begin = np.log([8.0, 0.01, 0.01, 6.0, 1500.0])
        best = least_squares(lambda logs, n=exponent: np.log(model(logs, n) / times), begin)
        fixed, split, split_sequence, program, together = np.exp(best.x)
        off = np.exp(np.quantile(best.fun, [0.1, 0.9]))
        print(
            f"attention, exponent {exponent:g}: fixed {fixed:.1f} us, split {split:.3f} us, split and"
            " sequence"
            f" {split_sequence:.4f} us, program {program:.2f} GB/s, together {together:.0f} GB/s; off by"
            f" {math.sqrt((best.fun**2).mean()):.1%} ({off[0]:.2f} to {off[1]:.2f}), {len(times)} points"
        )


def quantized(recording: Recording) -> None:
    """What products with block-FP8 matrices take beyond their bytes, and their inputs to be quantized."""
    plain = load_recording(TWINS[0])
    recipe = recording.header.recipe
    found = fit(recipe, H100, 1)
    setup = Setup(found.recipe, found.model, H100, found.choices, constants())
    parts = setup.weights[0].parts
    size = sum(parts[part] for part in parts if part not in ("routed_experts", "embedding", "mtp"))
    read_us = size / 1e3 / H100.bandwidth_gb_s / setup.constants.dense_bandwidth_share.value
    beyond, inputs = [], []
    for knobs in recording.points:
        for context, batch in recording.header.workload.points:
            ours = family_ms(recording, dict(knobs), context, batch)
            beyond.append((ours["gemm"] * 1e3 - read_us) / PRODUCTS)
            theirs = family_ms(plain, dict(knobs), context, batch)
            inputs.append((ours["other"] - theirs["other"]) * 1e3 / PRODUCTS)
    print(f"\n## {recording.header.title}\n")
    print(f"quantized_matrix_us: beyond its bytes {_spread(beyond)}, its inputs {_spread(inputs)}")


def host() -> None:
    """Wall time of steps that keep the GPU busy for less than a millisecond."""
    walls, ratios = [], []
    for name in TWINS:
        for visit in load_recording(name).visits:
            for point in visit.measurement.points:
                device = statistics.median(point.device_step_ms or [math.inf])
                pairs = zip(point.wall_step_ms, point.step_tokens, strict=True)
                wall = statistics.median(time for time, tokens in pairs if tokens)
                if device < 1:
                    walls.append(wall)
                elif device > 4:
                    ratios.append(wall / device)
    low, middle, high = np.quantile(walls, [0.05, 0.5, 0.95])
    print(
        f"\nhost_step_ms: {middle:.2f} ({low:.2f} to {high:.2f}, 5th to 95th percentile, {len(walls)} points)"
    )
    print(f"wall over device time where that is above 4 ms: median {statistics.median(ratios):.3f}")


def _spread(numbers: list[float]) -> str:
    return f"{statistics.median(numbers):.3g} ({min(numbers):.3g} to {max(numbers):.3g})"


if __name__ == "__main__":
    main()
