"""Predictions: limits and directions that any of them must have, whatever the constants."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest

from glmlab.decode.prediction import TERMS, Prediction
from glmlab.errors import InputError, RecipeError
from glmlab.gpus import Gpu, find_gpu
from glmlab.predictor import parse_numbers, predict
from glmlab.recipe import Recipe

DENSE: dict[str, Any] = {
    "model": "glm-5.1-reap-160",
    "dense_mla": True,
    "kv_cache_dtype": "fp8",
    "attention_backend": "TRITON_MLA",
    "max_model_len": 160_000,
}
GQA: dict[str, Any] = {
    "model": "glm-4.7-nvfp4",
    "kv_cache_dtype": "fp8",
    "attention_backend": "TRITON_ATTN",
    "max_model_len": 131_072,
}
SPARSE: dict[str, Any] = {"model": "glm-5.1-reap-160", "max_model_len": 160_000}
CASES = [DENSE, GQA, SPARSE, {"model": "glm-4.7-flash"}, {"model": "glm-4.5-air-fp8"}]


def of(fields: dict[str, Any], gpu: Gpu | str = "rtx-pro-6000", **asked: Any) -> Prediction:
    return predict(Recipe(name="it", **fields), gpu, **asked)


def with_bandwidth(name: str, gb_s: float) -> Gpu:
    return find_gpu(name).model_copy(update={"bandwidth_gb_s": gb_s, "loaded_bandwidth_gb_s": None})


# ---------------------------------------------------------------------- limits
@pytest.mark.parametrize("fields", CASES)
@pytest.mark.parametrize("plan", [{}, {"tensor_parallel": 2}, {"pipeline_parallel": 2}])
def test_the_terms_add_up_and_the_value_lies_in_its_range(fields, plan):
    for point in of(fields | plan, contexts=(0, 256, 100_000), batch_sizes=(1, 4, 33)).points:
        for end in range(3):
            assert sum(point.terms[term][end] for term in TERMS) == pytest.approx(point.tpot[end])
        assert 0 < point.tpot.low <= point.tpot.value <= point.tpot.high
        assert point.tokens_per_s == pytest.approx(point.batch / point.tpot_ms * 1e3)


@pytest.mark.parametrize("fields", CASES)
def test_without_context_there_is_no_kv_to_read(fields):
    assert list(of(fields, contexts=(0,)).points[0].terms["kv"]) == [0, 0, 0]


@pytest.mark.parametrize("fields", CASES)
def test_one_rank_has_nobody_to_talk_to(fields):
    point = of(fields).points[0]
    assert list(point.terms["collectives"]) == [0, 0, 0]
    assert list(point.terms["pipeline"]) == [0, 0, 0]


def test_a_pipeline_alone_has_hops_and_no_collectives():
    point = of({**DENSE, "pipeline_parallel": 4}).points[0]
    assert list(point.terms["collectives"]) == [0, 0, 0]
    assert point.terms["pipeline"].low > 0


def test_a_tiny_model_waits_for_the_host():
    point = of({"model": "tiny/glm4-moe", "weights": "random"}, "h100", contexts=(256,)).points[0]
    assert point.tpot_ms == pytest.approx(2.1)
    assert point.terms["floor"].value > 0.9 * point.tpot_ms


# ---------------------------------------------------------------------- directions
@pytest.mark.parametrize("fields", CASES)
@pytest.mark.parametrize("ranks", [1, 4])
def test_more_bandwidth_is_never_slower(fields, ranks):
    plan = {**fields, "tensor_parallel": ranks}
    times = [
        [point.tpot for point in of(plan, with_bandwidth("rtx-pro-6000", gb_s), batch_sizes=(1, 8)).points]
        for gb_s in (400, 800, 1792, 3350, 8000)
    ]
    for slower, faster in pairwise(times):
        for before, after in zip(slower, faster, strict=True):
            assert all(a <= b + 1e-12 for a, b in zip(after, before, strict=True))


@pytest.mark.parametrize("fields", CASES)
def test_longer_contexts_and_larger_batches_take_no_less(fields):
    found = of({**fields, "max_num_seqs": 64}, contexts=(0, 256, 4096, 32_768), batch_sizes=(1, 2, 8, 32))
    for context, batch in ((0, 1), (256, 2), (4096, 8)):
        for longer in (4096, 32_768):
            assert found.point(longer, batch).tpot_ms >= found.point(context, batch).tpot_ms - 1e-9
        for larger in (8, 32):
            assert found.point(context, larger).tpot_ms >= found.point(context, batch).tpot_ms - 1e-9


@pytest.mark.parametrize("fields", [DENSE, GQA])
def test_more_ranks_read_fewer_weights_each_and_talk_more(fields):
    one, two, four = (of({**fields, "tensor_parallel": ranks}).points[0].terms for ranks in (1, 2, 4))
    assert one["weights"].value > two["weights"].value > four["weights"].value
    assert one["collectives"].value < two["collectives"].value < four["collectives"].value


def test_mla_keeps_its_latent_whole_where_gqa_divides_its_heads():
    """Bytes alone: a backend that fills the GPU by itself."""
    mla = [of({**DENSE, "attention_backend": "FLASHMLA", "tensor_parallel": n}).points[3] for n in (1, 4)]
    gqa = [of({**GQA, "attention_backend": "FLASHINFER", "tensor_parallel": n}).points[3] for n in (1, 4)]
    assert mla[0].terms["kv"].value == pytest.approx(mla[1].terms["kv"].value)
    assert gqa[0].terms["kv"].value == pytest.approx(4 * gqa[1].terms["kv"].value)


def test_products_with_quantized_inputs_cost_a_launch_more_and_in_triton_many():
    plan = {"model": "glm-4.5-air-fp8", "tensor_parallel": 2}
    floors = [
        of({**plan, "linear_backend": linear}).points[0].terms["floor"].value for linear in (None, "triton")
    ]
    plain = of({"model": "glm-4.5-air", "tensor_parallel": 2}).points[0].terms["floor"].value
    assert plain < floors[0] < floors[1]


def test_half_the_bytes_of_kv_take_half_the_time():
    wide = of({**GQA, "attention_backend": "FLASHINFER", "kv_cache_dtype": "bfloat16"}).points[3]
    narrow = of({**GQA, "attention_backend": "FLASHINFER", "kv_cache_dtype": "fp8"}).points[3]
    assert wide.terms["kv"].value == pytest.approx(2 * narrow.terms["kv"].value)


def test_ranks_that_share_a_sequence_read_less_kv_and_talk_more():
    alone = of({**DENSE, "tensor_parallel": 4, "kv_splits": 64}).points[3].terms
    shared = (
        of({**DENSE, "tensor_parallel": 4, "kv_splits": 64, "decode_context_parallel": 4}).points[3].terms
    )
    assert shared["kv"].value < alone["kv"].value
    assert shared["collectives"].value > 2 * alone["collectives"].value


@pytest.mark.parametrize("fields", [DENSE, GQA])
def test_more_splits_help_a_long_context_at_batch_1(fields):
    times = [
        of({**fields, "kv_splits": splits}, contexts=(120_000,)).points[0].tpot_ms for splits in (1, 8, 64)
    ]
    assert times[0] > 2 * times[1] > 2 * times[2]


def test_sparse_attention_reads_chosen_tokens_and_the_keys_of_all():
    found = of({**SPARSE, "tensor_parallel": 4}, contexts=(2048, 4096, 150_000)).points
    kv = [point.terms["kv"].value for point in found]
    assert kv[0] < kv[1] < kv[2] < 20 * kv[1]
    dense = of({**DENSE, "tensor_parallel": 4}, contexts=(150_000,)).points[0].terms["kv"].value
    assert kv[2] < dense / 2


def test_whole_experts_make_the_fullest_rank_read_more():
    slices, whole = (
        of({**GQA, "tensor_parallel": 4, "expert_parallel": ep}).points[0].terms["weights"].value
        for ep in (False, True)
    )
    assert whole > slices
    many_slices, many_whole = (
        of({**GQA, "tensor_parallel": 4, "expert_parallel": ep, "max_num_seqs": 512}, batch_sizes=(512,))
        .points[0].terms["weights"].value
        for ep in (False, True)
    )  # fmt: skip
    assert many_whole == pytest.approx(many_slices, rel=0.01)


def test_stages_are_in_series_for_one_sequence_and_overlap_for_several():
    one, four = (of({**DENSE, "pipeline_parallel": n}, batch_sizes=(1, 8)) for n in (1, 4))
    assert four.point(256, 1).tpot_ms >= one.point(256, 1).tpot_ms
    assert four.point(256, 8).tokens_per_s > one.point(256, 8).tokens_per_s
    # Sequences that stay together gain nothing: the far end of the range.
    assert four.point(256, 8).tpot.high > one.point(256, 8).tpot.high


def test_sequences_that_start_together_keep_the_stages_waiting_for_each_other():
    fields = {**GQA, "pipeline_parallel": 2}
    asked = {"contexts": [4096], "batch_sizes": [1, 32]}
    apart, together = of(fields, "h100", **asked), of(fields, "h100", **asked, together=True)
    assert together.point(4096, 1).tpot == apart.point(4096, 1).tpot
    one, other = apart.point(4096, 32).tpot, together.point(4096, 32).tpot
    assert other.value > 1.1 * one.value
    assert other.high == one.high, "which was the worst case before"
    alone = {**GQA, "tensor_parallel": 2}
    assert of(alone, "h100", **asked, together=True).points == of(alone, "h100", **asked).points


@pytest.mark.parametrize(
    ("version", "env", "is_said"),
    [("0.32.0", {}, False), ("0.32.0", {"VLLM_USE_V2_MODEL_RUNNER": "0"}, True), ("0.26.0", {}, True),
     ("0.26.0", {"VLLM_USE_V2_MODEL_RUNNER": "1"}, False)],
)  # fmt: skip
def test_a_pipeline_on_the_v1_runner_is_told(version, env, is_said):
    fields = {**GQA, "pipeline_parallel": 2, "env": env, "versions": {"vllm": version}}
    notes = of(fields, "h100", contexts=[256]).notes
    assert any("V1 runner" in note for note in notes) is is_said


def test_points_may_be_given_and_nothing_is_said_of_others():
    fields = {**GQA, "tensor_parallel": 4}
    asked: dict[str, Any] = {"contexts": (256, 65_536), "batch_sizes": (1, 64)}
    whole, part = of(fields, **asked), of(fields, points=[(65_536, 1), (256, 64), (256, 1)])
    assert [(p.context, p.batch) for p in part.points] == [(256, 1), (256, 64), (65_536, 1)]
    assert any("KV pool" in note for note in whole.notes)
    assert not any("KV pool" in note for note in part.notes)


def test_stages_that_wait_for_each_other_are_told_of():
    fields = {**GQA, "pipeline_parallel": 4}
    apart, together = (of(fields, batch_sizes=[8], contexts=[256], together=t) for t in (False, True))
    assert together.points[0].tpot_ms > apart.points[0].tpot_ms
    assert any("--together" in note for note in apart.notes)
    assert not any("--together" in note for note in together.notes)
    assert not any("--together" in note for note in of(fields, batch_sizes=[1]).notes), (
        "one has nobody to wait for"
    )
    assert (apart.to_json()["together"], together.to_json()["together"]) == (False, True)


def test_published_all_reduces_are_not_held_against_one_gpu():
    alone, pair = (of({**GQA, "tensor_parallel": ranks}, "h200", contexts=[256]) for ranks in (1, 4))
    assert any("published times" in note for note in pair.notes)
    assert not any("published times" in note for note in alone.notes)


def test_one_number_stands_for_a_list_of_one():
    assert of(GQA, contexts=256, batch_sizes=2).points == of(GQA, contexts=[256], batch_sizes=[2]).points


def test_no_peers_and_no_fast_all_reduce():
    fast = {**GQA, "tensor_parallel": 4, "env": {"VLLM_ALLREDUCE_USE_FLASHINFER_PCIE_IPC": "1"}}
    slow = {**GQA, "tensor_parallel": 4}
    off = {**fast, "env": {**fast["env"], "NCCL_P2P_DISABLE": "1"}}
    times = [of(fields).points[0].terms["collectives"].value for fields in (fast, slow, off)]
    assert times[0] < times[1] == times[2]


def test_nvlink_is_faster_than_pcie_and_its_own_all_reduce_than_nccl():
    fields = {**GQA, "tensor_parallel": 4}
    pcie, nvlink = (of(fields, gpu).points[0].terms["collectives"].value for gpu in ("rtx-pro-6000", "h200"))
    nccl = of({**fields, "custom_all_reduce": False}, "h200").points[0].terms["collectives"].value
    assert nvlink < pcie
    assert nvlink < nccl


# ---------------------------------------------------------------------- words and refusals
@pytest.mark.parametrize(
    ("fields", "asked", "said"),
    [
        ({**GQA, "tensor_parallel": 4}, {"contexts": (150_000,)}, "beyond max_model_len 131,072"),
        ({**GQA, "tensor_parallel": 4}, {"contexts": (500_000,)}, "no setting allows these points"),
        (GQA, {}, "does not fit"),
        ({**GQA, "tensor_parallel": 4}, {"batch_sizes": (1, 128)}, "arithmetic"),
        ({**GQA, "tensor_parallel": 4}, {"batch_sizes": (32,)}, "predicted with max_num_seqs 32"),
        ({**GQA, "tensor_parallel": 4, "mtp_tokens": 1}, {}, "without drafts"),
        ({**GQA, "tensor_parallel": 4, "enforce_eager": True}, {}, "without CUDA graphs"),
        ({**GQA, "tensor_parallel": 4}, {"count": 8}, "4 GPUs of 8 unused"),
    ],
)
def test_what_a_reader_must_know(fields, asked, said):
    assert any(said in note for note in of(fields, **asked).notes)


@pytest.mark.parametrize(
    ("fields", "asked", "said"),
    [
        ({**GQA, "tensor_parallel": 4}, {"count": 2}, "count = 2: it has 4 ranks"),
        (GQA, {"contexts": ()}, "contexts: is empty"),
        (GQA, {"contexts": (-1,)}, "contexts = -1: expected whole numbers from 0"),
        (GQA, {"contexts": (1.5,)}, "contexts = 1.5"),
        ({**GQA, "tensor_parallel": 2}, {"all_reduce": {"tensor_parallel=2": []}}, "lie by plan, such as"),
        (GQA, {"batch_sizes": (0,)}, "batch_sizes = 0: expected whole numbers from 1"),
        (GQA, {"points": [(256, 0)]}, "batch_sizes = 0: expected whole numbers from 1"),
        (GQA, {"points": []}, "contexts: is empty"),
        (GQA, {"points": [256]}, "points: 256 is no pair of a context and a batch size"),
        ({**GQA, "tensor_parallel": 5}, {}, "96 query heads"),
        ({"model": "some/model"}, {}, "config.json is not on this machine"),
    ],
)
def test_what_cannot_be_predicted(fields, asked, said):
    with pytest.raises((InputError, RecipeError), match=said):
        of(fields, **asked)


@pytest.mark.parametrize(
    ("text", "numbers"), [("256", (256,)), ("256, 4096", (256, 4096)), ("1_000", (1000,))]
)
def test_numbers_as_people_type_them(text, numbers):
    assert parse_numbers("--contexts", text) == numbers


@pytest.mark.parametrize("text", ["", "a", "1,,2", "-1", "1.5", "²"])
def test_what_is_no_list_of_numbers(text):
    with pytest.raises(InputError, match=r"--contexts = .*: expected whole numbers"):
        parse_numbers("--contexts", text)


def test_json_and_html_say_that_it_is_predicted():
    found = of({**GQA, "tensor_parallel": 4}, contexts=(256,), batch_sizes=(1, 8))
    body = found.to_json()
    assert body["evidence"] == "predicted"
    assert [(point["context"], point["batch"]) for point in body["points"]] == [(256, 1), (256, 8)]
    assert set(body["points"][0]["terms_ms"]) == {"weights", "kv", "collectives", "pipeline", "floor"}
    assert "predicted" in found._repr_html_()
