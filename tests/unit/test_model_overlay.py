"""A user's own models laid over the packaged ones, and what is wrong with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from glmlab.catalog import find_model, list_models
from glmlab.cli import main
from glmlab.errors import RecipeError


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("GLMLAB_DATA", str(tmp_path))
    return tmp_path / "models"


def facts(own: Path, name: str, text: str, source: str = "source: me\n") -> None:
    (own / name).mkdir(parents=True, exist_ok=True)
    (own / name / "facts.yaml").write_text(text + source, encoding="utf-8")


def test_a_prune_of_one_s_own_is_data_over_a_base(own):
    facts(
        own,
        "mine",
        "base: glm-5.1\nchanges: {n_routed_experts: 80}\nlayout: nvfp4-experts\naliases: [Short]\n",
    )
    model = find_model("mine")
    assert "mine" in list_models()
    assert (model.shape.n_routed_experts, model.layout.name) == (80, "nvfp4-experts")
    assert find_model("short") == model
    assert find_model("mine@tp4-l4").layers == 4


def test_a_base_may_be_made_from_another(own):
    facts(own, "mine", "base: glm-5.1-reap-160\nchanges: {num_nextn_predict_layers: 0}\n")
    assert find_model("mine").layout.name == "nvfp4-experts"
    assert find_model("mine").shape.n_routed_experts == 160
    assert find_model("mine").mtp_params == 0


def test_facts_alone_are_laid_over_a_packaged_config(own):
    facts(own, "glm-4.7", "title: ours\nlayout: fp8-block\n")
    assert find_model("glm-4.7").facts.title == "ours"
    assert find_model("glm-4.7").layout.name == "fp8-block"
    assert find_model("glm-4.7").layers == 92


def test_a_config_hides_the_packaged_facts(own):
    (own / "glm-5.1-reap-160").mkdir(parents=True)
    config = json.dumps(find_model("glm-4.5-air").config)
    (own / "glm-5.1-reap-160" / "config.json").write_text(config, encoding="utf-8")
    model = find_model("glm-5.1-reap-160")
    assert (model.layers, model.layout.name, model.disagreements()) == (46, "bf16", [])
    assert model.path == own / "glm-5.1-reap-160"


def test_an_edit_is_seen(own):
    facts(own, "mine", "base: glm-5.1\nchanges: {n_routed_experts: 80}\n")
    assert find_model("mine").shape.n_routed_experts == 80
    facts(own, "mine", "base: glm-5.1\nchanges: {n_routed_experts: 120}\naliases: [late]\n")
    assert find_model("mine").shape.n_routed_experts == 120
    assert find_model("LATE").name == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: x\nbase: glm-5.3\n", "facts.yaml line 2: base = 'glm-5.3': no such model; did you mean"),
        ("title: x\nbase: mine\n", "facts.yaml line 2: base = 'mine': is made from this model"),
        (
            "base: glm-5.1\nchanges:\n  n_routed_expert: 80\n",
            "line 3: changes.n_routed_expert: glm-5.1 has no such key; did you mean n_routed_experts",
        ),
        ("base: glm-5.1\nchanges:\n  n_routed_experts: -1\n", "facts.yaml line 2: n_routed_experts = -1"),
        (
            "base: glm-5.1\nchanges: {n_routed_experts: 4}\n",
            "num_experts_per_tok = 8 exceeds n_routed_experts = 4",
        ),
        (
            "base: glm-5.1\nlayout: nvfp5\n",
            "facts.yaml line 2: layout = 'nvfp5': no such quantization layout",
        ),
        ("base: glm-5.1\nlayouts: bf16\n", "facts.yaml line 2: layouts = 'bf16': unknown key"),
        ("changes: {n_routed_experts: 4}\n", "need a base"),
        ("title: x\n", "base: missing, and there is no config.json"),
        (
            "base: glm-5.1\nmeasured:\n  - {what: on disk, gb: -3, source: me}\n",
            "facts.yaml line 3: measured.0.gb.0 = -3",
        ),
        (
            "base: glm-5.1\ndisagreements:\n  - what: size\n    key: hidden\n    source: me\n",
            "facts.yaml line 4: key = 'hidden': no such size; did you mean hidden_",
        ),
        ("base: glm-5.1\ndisagreements:\n  - {what: size, source: me}\n", "line 3: disagreements.0"),
        ("base: [\n", "not valid YAML"),
    ],
)
def test_an_error_names_the_file_and_the_line(own, text, said):
    facts(own, "mine", text)
    with pytest.raises(RecipeError) as error:
        find_model("mine")
    message = str(error.value)
    assert said in message
    assert str(own / "mine") in message
    assert "\n" not in message


def test_a_base_beside_a_config_is_refused(own):
    facts(own, "mine", "base: glm-5.1\n")
    (own / "mine" / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(RecipeError, match=r"there is a config\.json beside it; drop one of them"):
        find_model("mine")


def test_two_that_are_made_from_each_other_are_refused(own):
    facts(own, "a", "base: b\n")
    facts(own, "b", "base: a\n")
    with pytest.raises(RecipeError, match="base = 'a': is made from this model"):
        find_model("a")


@pytest.mark.parametrize("source", ["", "source: ''\n"])
def test_facts_without_a_source_are_refused(own, source):
    facts(own, "mine", "title: ours\nbase: glm-5.1\n", source)
    with pytest.raises(RecipeError, match=r"facts\.yaml line \d: source"):
        find_model("mine")


@pytest.mark.parametrize(
    "content", ["parts: 5\nsource: me\n", "parts: {router: nvfp5}\nsource: me\n", "parts: [\n"]
)
def test_a_layout_that_is_named_has_to_be_readable(own, content):
    (own.parent / "layouts").mkdir()
    (own.parent / "layouts" / "ours.yaml").write_text(content, encoding="utf-8")
    facts(own, "mine", "base: glm-5.1\nlayout: ours\n")
    with pytest.raises(RecipeError, match=r"ours\.yaml"):
        find_model("mine")


def test_a_named_layout_that_breaks_later_is_no_mere_note(own, capsys):
    (own.parent / "layouts").mkdir()
    layout = own.parent / "layouts" / "nvfp4-experts.yaml"
    layout.write_text("parts: [\n", encoding="utf-8")
    for command in (["models", "glm-5.2-reap-504b"], ["models", "glm-5.2-reap-504b", "--json"]):
        with pytest.raises(SystemExit) as exit_:
            main(command)
        assert exit_.value.code == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        assert "nvfp4-experts.yaml" in printed.err
        assert printed.err.count("\n") == 1


def test_facts_that_nest_too_deep_are_one_line(own):
    facts(own, "mine", "base: " + "[" * 100_000 + "\n")
    with pytest.raises(RecipeError, match="brackets within brackets") as error:
        find_model("mine")
    assert "\n" not in str(error.value)
