"""The full-size configurations that ship: their parameters, and that the README tells of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from glmlab.catalog import find_model

README = Path(__file__).parents[2] / "glmlab" / "data" / "README.md"
# Billions, without the MTP layer: the published table (reference: glm-on-blackwell.md 1.1, 1.2).
TOTAL_B = {
    "glm-4.5": 352.8,
    "glm-4.5-air": 106.9,
    "glm-4.6": 352.8,
    "glm-4.7": 352.8,
    "glm-4.7-flash": 29.9,
    "glm-5.0": 743.9,
    "glm-5.1": 743.9,
    "glm-5.1-reap-160": 472.1,
    "glm-5.2": 743.4,
}


@pytest.fixture(autouse=True)
def no_own_data(monkeypatch):
    monkeypatch.delenv("GLMLAB_DATA", raising=False)


@pytest.mark.parametrize("name", TOTAL_B)
def test_parameters_equal_the_published_table(name):
    assert find_model(name).total_params / 1e9 == pytest.approx(TOTAL_B[name], rel=2e-3)


@pytest.mark.parametrize("name", TOTAL_B)
def test_the_readme_says_as_much(name):
    rows = README.read_text(encoding="utf-8").splitlines()
    assert sum(f"| {TOTAL_B[name]} B |" in row for row in rows if row.startswith(f"| `{name}` |")) == 1


@pytest.mark.parametrize("name", TOTAL_B)
def test_vllm_finds_what_it_reads_beside_the_sizes(name):
    config = find_model(name).config
    assert config is not None
    wanted = {
        "architectures",
        "dtype",
        "hidden_act",
        "rms_norm_eps",
        "routed_scaling_factor",
        "norm_topk_prob",
    }
    assert wanted <= set(config)
    assert config["rope_parameters"]["rope_theta"] == (8_000_000 if name == "glm-5.2" else 1_000_000)
