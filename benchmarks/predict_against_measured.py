"""Print what the predictor says beside every decode time that was recorded or published for these models.

The twins of data/recorded are what the constants were taken from, so they say how well the formulas hold
together, no more. All else was left out of them. A published number often lacks its context, its KV dtype or
its splits; what was assumed instead stands beside it.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from glmlab.decode.attention import attention_floor_us
from glmlab.decode.floor import kernels_ms
from glmlab.decode.prediction import PredictedPoint
from glmlab.gpus import find_gpu
from glmlab.predictor import predict
from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe
from glmlab.recorded import list_recordings, load_recording
from glmlab.recordings.recording import Recording

CALIBRATED_ON = (
    "h100-glm-4.7-tp4-splits",
    "h100-glm-5.1-reap-160-tp4-splits",
    "h100-glm-4.7-tp4-fp8-splits",  # quantized_matrix_us
)
SHORT = 1024  # where a source does not say its context
NO_PEERS = {"NCCL_P2P_DISABLE": "1"}


@dataclass(frozen=True)
class Machine:
    """A recipe on a kind of GPU, and what was measured there."""

    what: str
    gpu: str
    fields: dict[str, Any] = field(hash=False)

    def row(self, context: int, ms: float, *, batch: int = 1, also: str = "") -> Row:
        """One measured time of a step."""
        recipe = Recipe.parse({"name": "measured", "max_num_seqs": 16, **self.fields})
        found = predict(recipe, find_gpu(self.gpu), contexts=(context,), batch_sizes=(batch,))
        point = f"{context:,}" + (f", batch {batch}" if batch > 1 else "") + (f", {also}" if also else "")
        return Row(self.what, point, ms, found.points[0], batch)

    def rate(self, context: int, tokens_per_s: float, batch: int = 1) -> Row:
        """One measured rate of all sequences together."""
        return self.row(context, batch / tokens_per_s * 1e3, batch=batch)

    def also(self, what: str, **changes: Any) -> Machine:
        return Machine(what, self.gpu, {**self.fields, **changes})


@dataclass(frozen=True)
class Row:
    """One measured time beside the predicted one, in ms per step."""

    what: str
    point: str
    measured_ms: float
    predicted: PredictedPoint
    batch: int

    @property
    def ratio(self) -> float:
        return self.predicted.tpot_ms / self.measured_ms

    @property
    def inside(self) -> bool:
        return self.predicted.tpot.low <= self.measured_ms <= self.predicted.tpot.high


def main() -> None:
    twins()
    print("\n## Engines of 4 and 8 layers on an H100 (reference h100-verified), ms per step\n")
    verified = list(_verified())
    _table(verified)
    print("\n## Whole models, published: ms per output token\n")
    published = [*_pro_6000(), *_other_gpus()]
    _table(published)
    print("\n## In short\n")
    for label, rows in (("H100, 4 and 8 layers", verified), ("published", published)):
        off = [abs(row.ratio - 1) for row in rows]
        inside = sum(row.inside for row in rows)
        print(f"{label}: {len(rows)} points, off by {statistics.median(off):.0%} (median),", end=" ")
        print(f"{max(off):.0%} at most; {inside} inside the range")


# ---------------------------------------------------------------------- twins
def twins() -> None:
    """Device time of a step by kernel family, over all split counts; * where the constants are from."""
    print("## Rank twins on an H100 (data/recorded): predicted over measured, device time, all splits\n")
    print("| twin | batch | context | attention | weights (gemm + moe) | whole step |")
    print("|---|---|---|---|---|---|")
    off: dict[bool, list[float]] = {True: [], False: []}
    for name in list_recordings():
        recording = load_recording(name)
        if any(knob.startswith("attn_") for knob in recording.header.knobs):
            continue  # tiles of attention, which no constant knows
        mark = "*" if name in CALIBRATED_ON else ""
        for context, batch in sorted(recording.header.workload.points, key=lambda point: point[::-1]):
            ratios = list(_twin_ratios(recording, context, batch))
            cells = [_spread([ratio[family] for ratio in ratios]) for family in range(3)]
            off[name in CALIBRATED_ON] += [abs(ratio[2] - 1) for ratio in ratios]
            print(f"| {name}{mark} | {batch} | {context:,} | {' | '.join(cells)} |")
    for calibrated, label in ((True, "calibrated on"), (False, "others")):
        if found := off[calibrated]:
            print(
                f"\nWhole step, {label}: {len(found)} points, off by {statistics.median(found):.1%}", end=" "
            )
            print(f"(median), {max(found):.0%} at most")


def _twin_ratios(recording: Recording, context: int, batch: int) -> Iterator[tuple[float, float, float]]:
    """Predicted over measured of attention, weights and the whole step, for each point of the grid."""
    for knobs in recording.points:
        if knobs.get("moe_tiles", "default") != "default":
            continue
        points = [visit.measurement.point(context, batch) for visit in recording.visits_of(knobs)]
        family = {
            each: statistics.median((point.device_family_ms or {})[each] for point in points)
            for each in points[0].device_family_ms or {}
        }
        attention, weights, whole = _on_twin(recording.header.recipe.replace(**knobs), context, batch)
        yield (
            attention / family["attention"],
            weights / (family["gemm"] + family["moe"]),
            whole / sum(family.values()),
        )


def _on_twin(recipe: Recipe, context: int, batch: int) -> tuple[float, float, float]:
    """Attention, weights with the launches of experts and of quantized products, the whole step; ms."""
    found = predict(recipe, "h100", 1, contexts=(context,), batch_sizes=(batch,))
    setup, point = found.setup, found.points[0]
    layers, kv, read = setup.shape.num_hidden_layers, point.terms["kv"].value, point.terms["weights"].value
    kernels = kernels_ms(setup, 0, batch, "value")
    attention = layers * attention_floor_us(setup, batch, "value") / 1e3
    kind = "gqa" if setup.shape.attention == "gqa" else "mla"
    launches = kernels - attention - layers * setup.constants.layer_us[kind].value / 1e3
    return attention + kv, read + launches, kv + read + kernels


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


# ---------------------------------------------------------------------- h100-verified.md
AIR = {"model": "glm-4.5-air@tp1-l8", "attention_backend": "TRITON_ATTN", "max_model_len": 160_000}
FLASH = {"model": "glm-4.7-flash@tp1-l8", "attention_backend": "TRITON_MLA", "max_model_len": 131_072}
# Segments -> ms at 1,024, 16,384 and 150,000 tokens, vLLM 0.26; where there were two visits, their mean.
AIR_FP8 = {
    16: (3.46, 3.83, 7.65),
    64: (3.55, 3.84, 5.67),
    128: (3.40, 3.70, 5.04),
    8: (3.64, 4.34, 10.48),
    1: (3.79, 9.45, 55.14),
}
AIR_BF16 = {1: 77.2, 4: 20.1, 8: 11.6, 16: 7.1, 32: 5.2, 64: 4.3, 128: 4.1}
FLASH_120K = {8: 14.7, 32: 4.47, 64: 3.59, 128: 2.52, 256: 3.18}


def _verified() -> Iterator[Row]:
    air = Machine("Air, 8 layers, FP8 KV, vLLM 0.26", "h100", {**AIR, "kv_cache_dtype": "fp8"})
    for splits, times in AIR_FP8.items():
        for context, ms in zip((1024, 16_384, 150_000), times, strict=True):
            yield air.also(air.what, kv_splits=splits).row(context, ms, also=f"{splits} splits")
    for splits, ms in AIR_BF16.items():
        other = Machine("the same, BF16 KV", "h100", {**AIR, "kv_splits": splits})
        yield other.row(120_000, ms, also=f"{splits} splits")
    for splits, context, ms in ((16, 1024, 2.4), (16, 60_000, 3.03), (64, 60_000, 2.91)):
        four = air.also("Air, 4 layers, FP8 KV, vLLM 0.32", model="glm-4.5-air@tp1-l4", kv_splits=splits)
        yield four.row(context, ms, also=f"{splits} splits")
    what = "4.7-Flash, 8 layers; KV dtype not said, FP8 assumed (BF16 would be 1.3 to 1.9 times the measured)"
    for splits, ms in FLASH_120K.items():
        flash = Machine(what, "h100", {**FLASH, "kv_cache_dtype": "fp8", "kv_splits": splits})
        yield flash.row(120_000, ms, also=f"{splits} splits")


# ---------------------------------------------------------------------- glm-on-blackwell.md
SEED = {256: 46.5, 4096: 41.8, 16_384: 38.6, 150_000: 22.4}
INDEX_CACHE = {
    256: 46.4, 4096: 41.7, 16_384: 40.9, 32_768: 36.5, 65_536: 29.5, 131_072: 21.3, 165_000: 18.4,
}  # fmt: skip
GLM_5 = {0: 51.6, 16_384: 44.3, 32_768: 42.4, 65_536: 36.2, 131_072: 31.1}
SGLANG_8 = {"serving_engine": "sglang", "tensor_parallel": 8, "max_num_seqs": 64, "max_model_len": 160_000}


def _pro_6000() -> Iterator[Row]:
    seed = find_recipe("glm-5.1-reap-160-sglang").model_dump(exclude_unset=True)
    what = "4x PRO 6000, REAP-160 NVFP4, sglang TP4, dense MLA, 64 splits (the seed)"
    ours = Machine(what, "rtx-pro-6000", {**seed, "env": {**seed["env"], **NO_PEERS}})
    yield from (ours.rate(context, rate) for context, rate in SEED.items())
    cached = ours.also("the same with IndexCache (predicted without)")
    yield from (cached.rate(context, rate) for context, rate in INDEX_CACHE.items())

    dense = {"dense_mla": True, "kv_cache_dtype": "bfloat16", "attention_backend": "flashinfer"}
    what = "8x PRO 6000, GLM-5 NVFP4, sglang TP8, dense MLA, BF16 KV (FlashInfer assumed)"
    glm5 = Machine(what, "rtx-pro-6000", {**SGLANG_8, **dense, "model": "glm-5.1-nvfp4"})
    yield from (glm5.rate(context, rate) for context, rate in GLM_5.items())
    yield glm5.also("the same, 64 at a time, context not said").rate(SHORT, 1010.6, 64)

    what = "8x PRO 6000, GLM-4.6-FP8, sglang TP8, context not said"
    yield Machine(what, "rtx-pro-6000", {**SGLANG_8, "model": "glm-4.6-fp8"}).rate(SHORT, 58)
    what = "8x PRO 6000 Server, GLM-4.7-FP8, without graphs (predicted with)"
    eager = Machine(what, "rtx-pro-6000-server", {**SGLANG_8, "model": "glm-4.7-fp8", "enforce_eager": True})
    yield from (eager.rate(SHORT, rate, batch) for batch, rate in {1: 18, 8: 140, 64: 1028}.items())

    plan = {"model": "glm-5.2-reap-504b", "tensor_parallel": 4, "max_model_len": 131_072, "env": NO_PEERS}
    what = "4x PRO 6000, GLM-5.2-REAP-504B, vLLM 0.25 TP4, sparse, context not said"
    sparse = Machine(what, "rtx-pro-6000", {**plan, "kv_cache_dtype": "fp8_ds_mla", "block_size": 64})
    yield sparse.rate(SHORT, 52)
    yield sparse.also("the same with DCP4 (-18 %)", decode_context_parallel=4).rate(SHORT, 52 * 0.82)


def _other_gpus() -> Iterator[Row]:
    four = {"tensor_parallel": 4, "max_model_len": 65_536}
    what = "4x Max-Q, GLM-4.6-AWQ TP4, engine and context not said"
    awq = Machine(what, "rtx-pro-6000-maxq", {**four, "model": "glm-4.6-awq"})
    yield awq.rate(SHORT, 65)
    yield awq.also("the same with expert_parallel", expert_parallel=True).rate(SHORT, 60)

    what = "8x B200, GLM-5-FP8, sglang TP8, context not said"
    b200 = Machine(what, "b200", {**SGLANG_8, "model": "glm-5.0-fp8", "attention_backend": "flashmla"})
    yield b200.row(SHORT, 20.3)
    what = "8x B200, GLM-5.1-FP8, 32 at a time, 8k in and 2k out, prefill included"
    yield b200.also(what, model="glm-5.1-fp8").rate(9216, 1345, 32)
    what = "4x GB200 (as B200), GLM-4.7-FP8, TensorRT-LLM, context not said"
    trt = Machine(what, "b200", {**four, "model": "glm-4.7-fp8", "max_num_seqs": 64})
    yield from (trt.rate(SHORT, rate, batch) for batch, rate in {4: 225.8, 64: 2069.8}.items())


def _table(rows: list[Row]) -> None:
    print("| what | context | measured | predicted | range | predicted / measured |")
    print("|---|---|---|---|---|---|")
    before = ""
    for row in rows:
        found, what = row.predicted.tpot, "" if row.what == before else row.what
        before = row.what
        outside = "" if row.inside else ", outside"
        tokens = f" ({row.batch / row.measured_ms * 1e3:,.0f} tokens/s)" if row.batch > 1 else ""
        print(
            f"| {what} | {row.point} | {row.measured_ms:.2f}{tokens} | {found.value:.2f}"
            f" | {found.low:.2f} to {found.high:.2f}{outside} | {row.ratio:.2f} |"
        )


if __name__ == "__main__":
    main()
