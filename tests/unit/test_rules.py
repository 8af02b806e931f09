"""check: versions, counts, what is not known, fixes, speed; and what it says of each recipe that ships."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest

from glmlab.errors import InputError, RecipeError
from glmlab.gpus import find_gpu, list_gpus
from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe, list_recipes
from glmlab.rules import Finding, apply_fix, check, load_rules, versions_in_force
from tests.pace import in_recipes

PRO = find_gpu("rtx-pro-6000")
SPARSE = Recipe.parse({"name": "r", "model": "glm-5.1-reap-160", "tensor_parallel": 4})


@pytest.fixture(autouse=True)
def nothing_installed(monkeypatch):
    monkeypatch.delenv("GLMLAB_DATA", raising=False)
    monkeypatch.setattr("glmlab.rules.installed_packages", dict)


def ids(*args, severity: str | None = None, **kwargs) -> set[str]:
    return {each.id for each in check(*args, **kwargs) if severity in (None, each.severity)}


# ---------------------------------------------------------------------- versions
def test_asked_versions_go_before_the_recipes_and_these_before_the_installed(monkeypatch):
    monkeypatch.setattr("glmlab.rules.installed_packages", lambda: {"vllm": "0.32.0", "flashinfer": "0.6.20"})
    assert versions_in_force(SPARSE) == {"vllm": "0.32.0", "flashinfer": "0.6.20"}
    own = SPARSE.replace(versions={"flashinfer": "0.6.14"})
    assert versions_in_force(own) == {"vllm": "0.32.0", "flashinfer": "0.6.14"}
    assert versions_in_force(own, {"flashinfer": "0.6.15"})["flashinfer"] == "0.6.15"


def test_what_is_installed_beside_another_vllm_does_not_count(monkeypatch):
    monkeypatch.setattr("glmlab.rules.installed_packages", lambda: {"vllm": "0.32.0", "flashinfer": "0.6.20"})
    assert versions_in_force(SPARSE, {"vllm": "0.25.0"}) == {"vllm": "0.25.0"}
    assert "flashinfer-pin-too-old" in ids(SPARSE, PRO, 4, {"vllm": "0.25.0"})
    other = SPARSE.replace(serving_engine="sglang")
    assert versions_in_force(other) == {}


def test_the_recipes_packages_count_beside_the_vllm_that_it_names_only():
    own = SPARSE.replace(versions={"vllm": "0.32.0", "flashinfer": "0.6.18.post1", "transformers": "5.19.0"})
    assert versions_in_force(own, {"vllm": "0.32"})["flashinfer"] == "0.6.18.post1"
    assert versions_in_force(own, {"vllm": "0.26.0"}) == {"vllm": "0.26.0"}
    assert versions_in_force(own, {"vllm": "0.26.0", "flashinfer": "0.6.14"})["flashinfer"] == "0.6.14"
    assert "sparse-mla-flashinfer-too-old" in ids(own, PRO, 4, {"vllm": "0.25.1"})  # by what it pins


@pytest.mark.parametrize(
    ("vllm", "flashinfer"),
    [("0.24.0", "0.6.12"), ("0.25.1", "0.6.13"), ("0.28.0", "0.6.16.post3"), ("0.30.0", "0.6.18.post1")],
)
def test_an_unknown_flashinfer_is_the_one_that_vllm_pins(monkeypatch, vllm, flashinfer):
    found = versions_in_force(SPARSE, {"vllm": f"{vllm}+cu130"})
    assert (found["flashinfer"], found.pinned) == (flashinfer, frozenset({"flashinfer"}))
    assert f"flashinfer {flashinfer} (pinned)" in str(found)
    named = versions_in_force(SPARSE, {"vllm": vllm, "flashinfer": "0.6.14"})
    assert (named["flashinfer"], named.pinned) == ("0.6.14", frozenset())
    assert "(pinned)" not in str(named)
    # What is not installed beside an installed vLLM is missing, whatever it pins.
    monkeypatch.setattr("glmlab.rules.installed_packages", lambda: {"vllm": vllm})
    assert versions_in_force(SPARSE) == {"vllm": vllm}


def test_a_version_decides(monkeypatch):
    assert "sparse-mla-backend-missing" in ids(SPARSE, PRO, 4, {"vllm": "0.23.0"})
    assert "sparse-mla-backend-missing" not in ids(SPARSE, PRO, 4, {"vllm": "0.24.0"})
    assert "sparse-mla-backend-missing" not in ids(SPARSE, PRO, 4)  # not known: not said


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ({"vlm": "0.32.0"}, "versions.vlm: no package that rules know; did you mean vllm"),
        ({"vllm": "newest"}, "versions.vllm = 'newest': not a version, such as '0.32.0'"),
    ],
)
def test_versions_that_cannot_be_are_one_line(versions, said):
    with pytest.raises(InputError) as refused:
        check(SPARSE, PRO, 4, versions)
    assert said in str(refused.value)
    with pytest.raises(InputError) as refused:
        check(SPARSE.replace(versions=versions), PRO, 4)
    assert f"recipe r: {said}" in str(refused.value)


@pytest.mark.parametrize("count", [0, -1, True, 1.5, "4"])
def test_a_count_that_cannot_be_is_one_line(count):
    with pytest.raises(InputError, match=r"^count = .*: expected a number of GPUs, 1 or more$"):
        check(SPARSE, PRO, count)


def test_an_unknown_model_is_refused():
    with pytest.raises(RecipeError, match="no such model"):
        check(SPARSE.replace(model="glm-9"))


# ---------------------------------------------------------------------- what is not known
def test_without_a_gpu_only_rules_that_need_none_speak():
    recipe = SPARSE.replace(kv_splits=64, custom_all_reduce=True)
    assert ids(recipe) == {"kv-splits-on-the-sparse-path", "parsers-glm47"}
    assert "custom-all-reduce-beyond-two-pcie" in ids(recipe, PRO, 4)


def test_a_model_of_which_only_the_name_is_known_is_judged_by_what_can_be_told():
    recipe = SPARSE.replace(model="some/GLM-4.7-NVFP4-of-mine", moe_tiles="default", max_model_len=10**7)
    assert "moe-tiles-with-nvfp4" in ids(recipe, PRO, 4)
    assert "context-beyond-model" not in ids(recipe, PRO, 4)


def test_what_blocks_stands_first():
    order = [each.severity for each in check(SPARSE.replace(block_size=24, kv_splits=8), PRO, 4)]
    assert order == sorted(order, key=["blocks", "warns", "notes"].index)
    assert order[0] == "blocks"


# ---------------------------------------------------------------------- fixes
def test_fixes_of_one_check_can_be_made_one_after_the_other():
    env = {"A": "1", "LD_PRELOAD": "libvgpu.so", "NCCL_P2P_DISABLE": "1"}
    recipe = SPARSE.replace(env=env, versions={"vllm": "0.32.0"})
    found = [each for each in check(recipe, PRO, 4) if each.change and "env" in each.change]
    assert len(found) >= 3
    for finding in found:
        recipe = apply_fix(recipe, finding)
    assert recipe.env["A"] == "1"
    assert not {"LD_PRELOAD", "NCCL_P2P_DISABLE"} & set(recipe.env)
    assert recipe.env["VLLM_ALLREDUCE_USE_FLASHINFER_PCIE_IPC"] == "1"
    assert not {each.id for each in found} & ids(recipe, PRO, 4)


@pytest.mark.parametrize("kv", ["auto", "bfloat16", "fp8_ds_mla", "fp8_e5m2", "nvfp4"])
def test_the_way_out_of_a_missing_sparse_backend_runs(kv):
    recipe = SPARSE.replace(kv_cache_dtype=kv, attention_backend="FLASHINFER_MLA_SPARSE_SM120")
    for versions in ({"vllm": "0.23.0"}, {"vllm": "0.24.0"}):
        found = check(recipe, PRO, 4, versions)
        assert found.blocked
        mended = apply_fix(recipe, next(each for each in found if each.id.startswith("sparse-mla-")))
        assert mended.dense_mla
        assert not check(mended, PRO, 4, versions).blocked


def test_fixing_comes_to_rest():
    draw = random.Random(11)
    for _ in range(200):
        fields = {field: draw.choice(values) for field, values in ANY.items()}
        recipe = Recipe.parse({"name": "r"} | {k: v for k, v in fields.items() if v is not None})
        gpu = find_gpu(draw.choice(list_gpus()))
        versions = {"vllm": draw.choice(["0.19.1", "0.23.0", "0.24.0", "0.26.0", "0.32.0"])}
        for _step in range(30):
            changes = [each for each in check(recipe, gpu, 4, versions) if each.change]
            if not changes:
                break
            recipe = apply_fix(recipe, changes[0])
        else:
            pytest.fail(f"goes round in circles: {[each.id for each in changes]} {recipe!r}")


def test_expert_parallelism_over_data_parallel_ranks_becomes_tensor_parallelism():
    recipe = Recipe.parse(
        {
            "name": "r",
            "model": "glm-4.7",
            "tensor_parallel": 2,
            "data_parallel": 2,
            "expert_parallel": True,
        }
    )
    (finding,) = [each for each in check(recipe, PRO, 4) if each.id == "ep-on-pcie-all-to-all"]
    assert finding.change == {"expert_parallel": False, "data_parallel": 1, "tensor_parallel": 4}
    stays = recipe.replace(data_parallel=5)
    (finding,) = [each for each in check(stays, PRO, 10) if each.id.startswith("ep-on-pcie-all-to-all")]
    assert finding.change is None
    # 1,408 columns in blocks of 128 do not divide by 4 once experts are no longer whole.
    blocks = recipe.replace(model="glm-4.5-air", quantization="fp8_per_block")
    assert "ep-on-pcie-all-to-all-stays" in ids(blocks, PRO, 4)
    assert "ep-on-pcie-all-to-all" not in ids(blocks, PRO, 4)
    alone = recipe.replace(data_parallel=1)
    assert "ep-on-pcie-small-loss" in ids(alone, PRO, 2)
    assert "ep-on-pcie-small-loss" not in ids(alone.replace(serving_engine="sglang"), PRO, 2)


def test_a_finding_without_a_change_cannot_be_applied():
    (finding,) = [
        each for each in check(SPARSE.replace(tensor_parallel=8), PRO, 4) if each.severity == "blocks"
    ]
    with pytest.raises(
        InputError, match=r"finding more-ranks-than-gpus: no change of the recipe mends it; as many"
    ):
        apply_fix(SPARSE, finding)


def test_a_change_that_contradicts_the_recipe_is_refused_by_it():
    finding = Finding("x", "warns", "why", "fix", {"cudagraph_mode": "FULL"}, "source")
    with pytest.raises(RecipeError, match="contradicts"):
        apply_fix(SPARSE.replace(enforce_eager=True), finding)


def test_shared_memory_is_computed_for_the_tile_and_the_gpu():
    recipe = Recipe.parse({"name": "r", "model": "glm-4.7", "moe_tiles": "64x128x128 g1 w4 s4"})
    (finding,) = [each for each in check(recipe, PRO) if each.id == "moe-tile-exceeds-shared-memory"]
    assert "needs 147,456 bytes" in finding.why  # the very number of sglang PR #16975
    assert "has 101,376" in finding.why
    assert finding.change == {"moe_tiles": "64x128x128 g1 w4 s2"}
    assert "moe-tile-exceeds-shared-memory" not in ids(recipe, find_gpu("h100"))


def test_a_notebook_shows_findings_as_a_table():
    html = check(SPARSE.replace(name="a", env={"LD_PRELOAD": "<libvgpu>"}), PRO, 4)._repr_html_()
    assert html.startswith("<table>")
    assert "preloaded-libvgpu" in html
    assert "LD_PRELOAD: null" in html
    assert "&quot;" not in check(Recipe.parse({"name": "t", "model": "tiny/glm4-moe"}))._repr_html_()
    assert "<libvgpu>" not in html


def test_any_recipe_can_be_checked_and_a_change_silences_its_rule():
    draw = random.Random(7)
    gpus = [None, *map(find_gpu, list_gpus())]
    for _ in range(300):
        fields = {field: draw.choice(values) for field, values in ANY.items()}
        recipe = Recipe.parse(
            {"name": "r"} | {key: value for key, value in fields.items() if value is not None}
        )
        gpu, count = draw.choice(gpus), draw.choice([1, 4, 8])
        versions = {"vllm": draw.choice(["0.19.1", "0.23.0", "0.26.0", "0.32.0"])}
        for finding in check(recipe, gpu, count, versions):
            assert "{" not in finding.why + finding.fix
            if finding.change is not None:
                mended = apply_fix(recipe, finding)
                assert mended != recipe
                assert finding.id not in ids(mended, gpu, count, versions), finding


ANY: dict[str, list[Any]] = {
    "model": [
        "glm-4.7",
        "glm-4.7-fp8",
        "glm-4.5-air",
        "glm-4.7-flash",
        "glm-5.1-reap-160",
        "glm-4.6-awq",
        "a/b",
    ],
    "serving_engine": ["vllm", "vllm", "sglang"],
    "tensor_parallel": [1, 2, 3, 4, 8, 16],
    "pipeline_parallel": [1, 4, 100],
    "data_parallel": [1, 2],
    "decode_context_parallel": [1, 2, 3],
    "expert_parallel": [False, True],
    "dense_mla": [False, True],
    "custom_all_reduce": [None, True],
    "mtp_tokens": [0, 1, 5],
    "kv_cache_dtype": ["auto", "fp8", "fp8_e5m2", "fp8_ds_mla", "nvfp4"],
    "block_size": [None, 24, 64, 128],
    "attention_backend": [
        None,
        "TRITON_ATTN",
        "TRITON_MLA",
        "FLASH_ATTN",
        "B12X",
        "FLASHMLA",
        "triton",
        "FLASH_ATTN_MLA",
    ],
    "moe_backend": [None, "triton", "marlin", "flashinfer-trtllm", "flashinfer_cutlass", "b12x"],
    "moe_tiles": [None, "default", "128x256x128 g8 w8 s8", "1: 16x16x16 g1 w4 s2; 64: 256x256x256 g1 w8 s8"],
    "kv_splits": [None, 0, 48, 64],
    "attn_decode_tile": [None, 64, 512],
    "attn_decode_stages": [None, 1, 8],
    "quantization": [None, "fp8_per_block", "modelopt_fp4", "unheard_of"],
    "max_model_len": [None, 4096, 2_000_000],
    "env": [{}, {"VLLM_USE_DEEP_GEMM": "0", "PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"}],
    "engine_args": [{}, {"reasoning_parser": "glm47"}, {"attention_config": 3, "all2all_backend": "deepep"}],
}


# ---------------------------------------------------------------------- speed
def test_a_check_costs_no_more_than_reading_some_dozen_recipes():
    """That is 0.5 ms: a thousand in half a second, since a search asks before every step."""
    recipes = [SPARSE.replace(kv_splits=1 + n % 64, max_num_seqs=1 + n % 32) for n in range(100)]
    check(SPARSE, PRO, 4)
    assert in_recipes(lambda: [check(r, PRO, 4, {"vllm": "0.32.0"}) for r in recipes]) / 100 < 80


# ---------------------------------------------------------------------- the recipes that ship
ON_PRO = {
    "glm-5.1-reap-160-sglang": {"cutlass-nvfp4-shared-memory", "dense-mla-quality-sglang"},
    "glm-5.1-reap-160-vllm": {"dense-mla-quality"},
    "glm-5.1-reap-160-vllm-sparse": {"sparse-mla-hangs-under-load"},
    "glm-5.1-nvfp4": {"sparse-mla-hangs-under-load"},
    "glm-4.7-nvfp4": set(),
    "glm-4.7-fp8": set(),
    "glm-4.5-air-fp8": set(),
    "glm-4.7-flash": set(),
    "tiny-glm4-moe": set(),
    "tiny-glm4-moe-lite": set(),
}
ON_H100 = {
    "glm-5.1-reap-160-sglang": set(),
    "glm-5.1-reap-160-vllm": {"nvfp4-moe-backend-on-hopper"},
    "glm-5.1-reap-160-vllm-sparse": {"attention-backend-not-for-this-gpu", "nvfp4-moe-backend-on-hopper"},
    "glm-5.1-nvfp4": {"nvfp4-moe-backend-on-hopper"},
    "glm-4.7-nvfp4": {"nvfp4-moe-backend-on-hopper"},
    "glm-4.7-fp8": set(),
    "glm-4.5-air-fp8": set(),
    "glm-4.7-flash": set(),
    "tiny-glm4-moe": set(),
    "tiny-glm4-moe-lite": set(),
}


def test_every_recipe_that_ships_has_an_expectation():
    assert set(ON_PRO) == set(ON_H100) == set(list_recipes())


@pytest.mark.parametrize("name", ON_PRO)
def test_a_recipe_that_ships_runs_on_four_rtx_pro_6000_and_what_warns_is_known(name):
    recipe = find_recipe(name)
    found = check(recipe, PRO, 4)
    assert not found.blocked
    several = {"nccl-hangs-with-iommu"} if recipe.tensor_parallel > 1 else set()
    assert {each.id for each in found if each.severity == "warns"} == ON_PRO[name] | several
    assert ("kv-splits" in str(sorted(ids(recipe, PRO, 4)))) is False  # its kv_splits take effect


@pytest.mark.parametrize("name", ON_H100)
def test_a_recipe_that_ships_on_four_h100(name):
    found = check(find_recipe(name), find_gpu("h100"), 4)
    assert {each.id for each in found if each.severity == "blocks"} == ON_H100[name]
    assert "nccl-hangs-with-iommu" not in {each.id for each in found}


@pytest.mark.parametrize("name", [name for name in ON_PRO if find_recipe(name).serving_engine == "vllm"])
def test_a_recipe_that_ships_is_for_a_vllm_that_glmlab_drives(name):
    version = find_recipe(name).versions.get("vllm", "0.32.0")
    assert version == "0.32.0"


# ---------------------------------------------------------------------- the rules as data
def test_rules_go_to_json_with_their_sources():
    body = [rule.to_json() for rule in load_rules()]
    assert json.loads(json.dumps(body)) == body
    assert all(len(each["source"]) > 8 for each in body)
    assert len({each["id"] for each in body}) == len(body) > 100


@pytest.mark.parametrize(
    "number",
    ["#31936", "#43477", "#47527", "#16975", "#38652", "#32109", "#13719", "#33041", "#45915", "#29562"],
)
def test_the_sources_name_the_issues(number):
    assert any(number in rule.source for rule in load_rules())
