"""Weights of one rank: against published and measured sizes, and by what a plan shards or repeats."""

from __future__ import annotations

import pytest

from glmlab.catalog import Model, find_model
from glmlab.errors import RecipeError
from glmlab.models.weight_table import PARTS
from glmlab.ranks.stages import pipeline_stages
from glmlab.ranks.weights import rank_weights
from glmlab.recipe import Recipe
from tests.pace import in_recipes


@pytest.fixture(autouse=True)
def no_own_data(monkeypatch):
    monkeypatch.delenv("GLMLAB_DATA", raising=False)


def recipe(model: str, tp: int = 1, **fields: object) -> Recipe:
    return Recipe.parse({"name": "plan", "model": model, "tensor_parallel": tp, **fields})


def gb(model: str, tp: int = 1, **fields: object) -> float:
    return rank_weights(recipe(model, tp, **fields)).bytes / 1e9


# ---------------------------------------------------------------------------------- known cases
def test_reap_160_over_four():
    """Reference 1.2: 76.2 GB computed with replicated parts, 77.15 to 77.2 on the card."""
    assert 76 <= gb("glm-5.1-reap-160", 4) <= 78
    assert gb("glm-5.1-reap-160", 4) == pytest.approx(76.2, rel=5e-3)


def test_reap_504b_over_four():
    """Reference 1.2: 79.1 GB a GPU in use."""
    assert gb("glm-5.2-reap-504b", 4) == pytest.approx(79.1, abs=1)


def test_glm_4_7_nvfp4_over_four_as_vllm_measured_it():
    """Model loading took 47.11 GiB a rank (vLLM 0.15.1; source in the model's facts)."""
    assert gb("glm-4.7-nvfp4", 4) == pytest.approx(47.11 * 2**30 / 1e9, rel=0.01)


def test_the_whole_of_5_1_in_nvfp4_is_far_from_four_cards():
    """Reference 1.2: 446 GB without the MTP layer, and replicated parts on each of four."""
    assert gb("glm-5.1-nvfp4") == pytest.approx(446, rel=2e-3)
    assert gb("glm-5.1-nvfp4", 4) > 114


@pytest.mark.parametrize(
    ("model", "tp"),
    [("glm-4.7", 4), ("glm-4.5-air", 8), ("glm-5.1", 4), ("glm-5.2", 8), ("glm-4.7-flash", 4)],
)
def test_in_bf16_the_parameters_are_those_of_the_rank_twin(model, tp):
    """The twin was counted against transformers; it has no indexer and a router in the plain type."""
    base = find_model(model)
    twin = find_model(f"{model}@tp{tp}-l{base.layers}")
    assert rank_weights(recipe(model, tp, dense_mla=True)).params == twin.total_params


# ---------------------------------------------------------------------------------- parts
def test_the_parts_are_the_contract_s_and_add_up():
    found = rank_weights(recipe("glm-5.1-reap-160", 4, mtp_tokens=1))
    assert tuple(found.parts) == PARTS
    assert sum(found.parts.values()) == found.bytes
    assert all(size > 0 for size in found.parts.values())


def test_a_caller_cannot_spoil_what_the_next_one_gets():
    plan = recipe("glm-4.7", 4)
    rank_weights(plan).parts["norms"] = 0
    assert rank_weights(plan).parts["norms"] > 0


def test_what_four_ranks_divide_and_what_each_holds_whole():
    one, four = (rank_weights(recipe("glm-5.1", tp)).parts for tp in (1, 4))
    for part in ("routed_experts", "shared_experts", "dense_ffn", "embedding", "lm_head"):
        assert four[part] * 4 == one[part]
    for part in ("indexer", "router", "norms"):
        assert four[part] == one[part]
    q_a_and_kv_a = 78 * 6144 * (2048 + 576) * 2
    assert (four["attention"] - q_a_and_kv_a) * 4 == one["attention"] - q_a_and_kv_a


def test_kv_heads_are_repeated_beyond_their_number():
    eight, sixteen = (rank_weights(recipe("glm-4.7", tp)).parts["attention"] for tp in (8, 16))
    keys_and_values = 92 * 5120 * 128 * 2 * 2
    assert (sixteen - keys_and_values) * 2 == eight - keys_and_values


def test_the_vocabulary_is_padded_before_it_is_divided():
    plain = find_model("glm-4.7")
    odd = Model(name="odd", config=(plain.config or {}) | {"vocab_size": 151_553})
    padded = rank_weights(recipe("x/odd", 4), odd).parts["lm_head"]
    assert padded == (151_552 + 64) * 5120 * 2 // 4


def test_the_router_of_glm4_moe_is_held_in_fp32_and_that_of_dsa_is_not():
    assert rank_weights(recipe("glm-4.7", 4)).parts["router"] == 89 * 160 * (5120 + 1) * 4
    assert rank_weights(recipe("glm-5.1", 4)).parts["router"] == 75 * 256 * (6144 * 2 + 4)


def test_expert_parallelism_gives_whole_experts_and_rounds_up():
    assert gb("glm-5.1", 4) == gb("glm-5.1", 4, expert_parallel=True)
    split = rank_weights(recipe("glm-5.1-reap-154", 4)).parts["routed_experts"]
    whole = rank_weights(recipe("glm-5.1-reap-154", 4, expert_parallel=True)).parts["routed_experts"]
    assert whole / split == pytest.approx(39 / 38.5)


def test_data_parallel_ranks_share_experts_and_repeat_attention():
    one, two = (
        rank_weights(recipe("glm-4.7", 2, data_parallel=dp, expert_parallel=True)).parts for dp in (1, 2)
    )
    assert two["routed_experts"] * 2 == one["routed_experts"]
    assert two["attention"] == one["attention"]
    assert two["shared_experts"] == 2 * one["shared_experts"]  # whole on each rank then


def test_dense_mla_drops_the_indexer_and_nothing_else():
    sparse, dense = (rank_weights(recipe("glm-5.1", 4, dense_mla=on)) for on in (False, True))
    assert dense.parts["indexer"] == 0
    assert sparse.bytes - dense.bytes == pytest.approx(sparse.parts["indexer"], rel=1e-4)  # and its norm


def test_the_mtp_layer_comes_with_drafting():
    assert rank_weights(recipe("glm-5.1", 4)).parts["mtp"] == 0
    found = rank_weights(recipe("glm-5.1", 1, mtp_tokens=3)).parts["mtp"]
    assert found == pytest.approx(2 * find_model("glm-5.1").mtp_params, rel=1e-4)
    assert rank_weights(recipe("glm-5.1", 1, mtp_tokens=3, dense_mla=True)).parts["mtp"] < found


def test_float32_on_a_cpu_is_twice_as_much():
    plan = recipe("tiny/glm4-moe-lite")
    assert rank_weights(plan.replace(dtype="float32")).bytes == pytest.approx(
        2 * rank_weights(plan).bytes, 1e-2
    )


# ---------------------------------------------------------------------------------- pipelines
@pytest.mark.parametrize(
    ("layers", "stages", "sizes"),
    [(92, 1, [92]), (92, 4, [23] * 4), (78, 4, [19, 20, 20, 19]), (47, 2, [24, 23]), (46, 3, [15, 16, 15])],
)
def test_layers_go_to_stages_as_vllm_deals_them(layers, stages, sizes):
    plan = recipe("glm-4.7", pipeline_parallel=stages)
    assert [last - first for first, last in pipeline_stages(plan, layers)] == sizes


def test_stages_equal_vllm_s_own():
    utils = pytest.importorskip("vllm.distributed.utils")
    for layers in (46, 47, 78, 92):
        for stages in range(1, 9):
            own = [utils.get_pp_indices(layers, rank, stages) for rank in range(stages)]
            assert list(pipeline_stages(recipe("glm-4.7", pipeline_parallel=stages), layers)) == own


def test_the_fullest_stage_counts():
    env = {"VLLM_PP_LAYER_PARTITION": "10,68"}
    even, uneven = gb("glm-5.1", pipeline_parallel=2), gb("glm-5.1", pipeline_parallel=2, env=env)
    assert even == pytest.approx(1488 * 39 / 75, rel=0.01)  # the second has no dense layer
    assert uneven == pytest.approx(1488 * 68 / 75, rel=0.01)


@pytest.mark.parametrize("partition", ["10,69", "78", "a,b", "-2,80", ""])
def test_a_partition_that_is_none_is_refused(partition):
    plan = recipe("glm-5.1", pipeline_parallel=2, env={"VLLM_PP_LAYER_PARTITION": partition})
    with pytest.raises(RecipeError, match=r"env\.VLLM_PP_LAYER_PARTITION = .* add up to 78 layers"):
        rank_weights(plan)


def test_more_stages_than_layers_are_refused():
    with pytest.raises(RecipeError, match="pipeline_parallel = 79: the model has 78 layers"):
        rank_weights(recipe("glm-5.1", pipeline_parallel=79))


# ---------------------------------------------------------------------------------- formats
def test_a_method_on_a_plain_checkpoint_and_on_a_quantized_one():
    assert gb("glm-4.7", 4, quantization="fp8") == pytest.approx(gb("glm-4.7-fp8", 4), rel=2e-3)
    assert gb("glm-5.1-reap-160", 4, quantization="modelopt_fp4") == gb("glm-5.1-reap-160", 4)
    assert gb("glm-5.1", 4, quantization="nvfp4-experts") == gb("glm-5.1-nvfp4", 4)


def test_a_quantized_kv_b_is_held_a_second_time_in_16_bits():
    plain = rank_weights(recipe("glm-5.1", 4, quantization="nvfp4-mlp")).parts["attention"]
    fp8 = rank_weights(recipe("glm-5.1", 4, quantization="fp8-online")).parts["attention"]
    kv_b = 78 * 512 * 64 * (192 + 256) * 2 // 4
    assert fp8 == plain // 2 + kv_b


def test_an_unknown_quantization_is_one_line_with_the_nearest():
    with pytest.raises(
        RecipeError, match="quantization = 'nvfp4-expert': neither a quantization layout nor"
    ) as error:
        rank_weights(recipe("glm-5.1", 4, quantization="nvfp4-expert"))
    assert "did you mean nvfp4-experts" in str(error.value)


def test_a_model_of_which_nothing_is_known_and_heads_that_do_not_divide_are_refused():
    with pytest.raises(RecipeError, match=r"config\.json is not on this machine"):
        rank_weights(recipe("someone/GLM-9"))
    with pytest.raises(RecipeError, match=r"tensor_parallel = 3: glm-4\.7 has 96 query heads and 8 KV heads"):
        rank_weights(recipe("glm-4.7", 3))


def test_a_recipe_costs_no_more_than_reading_some_dozen():
    plans = [
        recipe("glm-5.1-reap-160", tp, pipeline_parallel=pp, max_num_seqs=seqs, kv_splits=splits)
        for tp in (1, 2, 4, 8)
        for pp in (1, 2, 3, 4, 5)
        for seqs in (1, 2, 4, 8, 16)
        for splits in range(10)
    ]
    left = iter(plans)
    assert in_recipes(lambda: [rank_weights(next(left)) for _ in range(300)]) / 300 < 50
