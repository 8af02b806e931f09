"""The models that ship: their sizes against what was published, and where sources disagree."""

from __future__ import annotations

import inspect
import json
from itertools import chain

import pytest
from rich.console import Console

from glmlab.catalog import find_model, list_models
from glmlab.cli import main
from glmlab.models.shape import DsaShape, GqaShape, MlaShape, ModelShape
from glmlab.tables.models import model_in_full

# Reference 1.1 and 1.2, billions: without the MTP layer, and with it.
TOTALS = {
    "glm-4.5": (352.8, 356.8),
    "glm-4.6": (352.8, 356.8),
    "glm-4.7": (352.8, 356.8),
    "glm-4.5-air": (106.9, 109.2),
    "glm-4.7-flash": (29.9, 30.6),
    "glm-5.0": (743.9, 753.9),
    "glm-5.1": (743.9, 753.9),
    "glm-5.2": (743.5, 753),
    "glm-4.5-air-reap-82b": (81.9, None),
    "glm-4.6-reap-268b": (268.8, None),
    "glm-4.6-reap-252b": (252.0, None),
    "glm-4.6-reap-218b": (218.4, None),
    "glm-4.7-reap-268b": (268.8, None),
    "glm-4.7-reap-218b": (218.4, None),
    "glm-5-reap-50pct": (381.5, 386.6),
    "glm-5.1-reap-160": (472.1, 478.4),
    "glm-5.1-reap-192": (562.7, 570.2),
    "glm-5.1-reap-154": (455.1, 461.2),
    "glm-5.2-reap-504b": (494.7, 501.4),
    "glm-5.2-reap-469b": (460.7, 466.9),
}
ACTIVE = {
    "glm-4.7": 32.9,
    "glm-4.5-air": 12.8,
    "glm-4.7-flash": 3.6,
    "glm-5.1": 40.8,
    "glm-5.1-reap-160": 40.8,
}
# GB that were read off checkpoints; each source is in the model's facts.
ON_DISK = {
    "glm-4.7-flash": 62.4,
    "glm-4.7-fp8": 362,
    "glm-5.1-reap-160": 306,
    "glm-5.1-reap-154": 910,
    "glm-5.1-reap-192": 1125,
    "glm-5.1-reap-192-nvfp4": 320,
    "glm-5.2": 1506.66,
    "glm-5.2-reap-504b": 317.9,
}


@pytest.fixture(autouse=True)
def no_own_data(monkeypatch):
    monkeypatch.delenv("GLMLAB_DATA", raising=False)


@pytest.mark.parametrize("name", TOTALS)
def test_totals_within_two_per_mille_of_the_published_table(name):
    model, (total, with_mtp) = find_model(name), TOTALS[name]
    # The table rounds to 0.1, which is more than 2 per mille of 29.9.
    assert model.total_params / 1e9 == pytest.approx(total, rel=2e-3)
    if with_mtp is not None:
        assert (model.total_params + model.mtp_params) / 1e9 == pytest.approx(with_mtp, rel=2e-3)


@pytest.mark.parametrize("name", ACTIVE)
def test_active_parameters(name):
    assert find_model(name).active_params / 1e9 == pytest.approx(ACTIVE[name], abs=0.05)


@pytest.mark.parametrize("name", ON_DISK)
def test_sizes_on_disk_are_what_the_layouts_give(name):
    assert find_model(name).disk_bytes / 1e9 == pytest.approx(ON_DISK[name], rel=2e-3)
    assert any(
        seen.what == "on disk" and ON_DISK[name] in seen.gb for seen in find_model(name).facts.measured
    )


def test_all_eighteen_disagreements_stand_with_a_model():
    found = chain.from_iterable(find_model(name).disagreements() for name in list_models())
    assert {each["reference"] for each in found} - {None} == set(range(1, 19))


def test_a_disagreement_has_three_values_what_is_used_and_a_source():
    for name in list_models():
        for each in find_model(name).disagreements():
            assert {"what", "seed", "card", "config", "used", "source"} <= set(each)
            assert each["used"] is not None
            assert each["source"]
            said = [each[key] for key in ("seed", "card", "config") if each[key] is not None]
            assert len(said) >= 2
            assert len({str(value) for value in said}) >= 2


def test_what_is_used_is_computed_not_copied():
    found = {each["what"]: each for each in find_model("glm-5.0").disagreements()}
    experts = found["routed experts"]
    assert (experts["seed"], experts["card"], experts["config"], experts["used"]) == (160, 256, 256, 256)
    assert found["total parameters, billions"]["used"] == 743.9
    assert {each["what"]: each for each in find_model("glm-5.1-reap-160").disagreements()}["hidden size"] == {
        "what": "hidden size", "seed": 7168, "card": 6144, "config": 6144, "used": 6144, "reference": 2,
        "source": 'seed, "The model"; card of 0xSero/GLM-5.1-478B-A42B-REAP-NVFP4; reference 1.3',
    }  # fmt: skip


def test_the_uncertain_size_of_5_1_nvfp4_is_shown():
    (found,) = find_model("glm-5.1-nvfp4").disagreements()
    assert (found["card"], found["used"]) == (434, 465.9)
    (seen,) = find_model("glm-5.1-nvfp4").facts.measured
    assert (seen.gb, seen.unit) == ((434,), "unclear")
    assert seen.gb[0] * 2**30 / 1e9 == pytest.approx(found["used"], rel=2e-3)


@pytest.mark.parametrize(
    ("other", "name"),
    [
        ("GLM-5.1", "glm-5.1"),
        ("glm-5", "glm-5.0"),
        ("GLM-5", "glm-5.0"),
        ("reap-160", "glm-5.1-reap-160"),
    ],
)
def test_other_names(other, name):
    assert find_model(other).name == name


def test_a_hub_name_has_the_sizes_and_stays_on_the_hub():
    model = find_model("0xSero/GLM-5.1-478B-A42B-REAP-NVFP4")
    assert (model.name, model.path, model.on_hub) == ("0xSero/GLM-5.1-478B-A42B-REAP-NVFP4", None, True)
    assert model.total_params == find_model("glm-5.1-reap-160").total_params
    assert model.layout.name == "nvfp4-experts"


def test_no_name_is_taken_twice():
    names = [
        other.lower()
        for name in list_models()
        for other in (name, *find_model(name).facts.hub, *find_model(name).facts.aliases)
    ]
    assert sorted(names) == sorted(set(names))


def test_every_full_size_model_says_what_it_is_and_where_from():
    for name in list_models():
        if not name.startswith("tiny/"):
            assert find_model(name).facts.title
            assert find_model(name).facts.source


# ---------------------------------------------------------------------------------- the command
def run(capsys, *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["models", *arguments])
    out, err = capsys.readouterr()
    return int(left.value.code or 0), out, err


def test_the_list_at_a_glance(capsys):
    code, out, _ = run(capsys)
    assert code == 0
    for name in list_models():
        assert name in out
    row = next(line for line in out.splitlines() if line.startswith("glm-5.1-reap-160 "))
    assert row.split()[1:9] == ["472.1", "B", "40.79", "B", "78", "mla+dsa", "nvfp4-experts", "306"]


def test_one_model_with_its_provenance(capsys):
    code, out, _ = run(capsys, "glm-5.1-reap-160")
    assert code == 0
    for said in (
        "472,076,075,232",
        "routed_experts nvfp4; others bf16",
        "where sources disagree",
        "7168",
        "6144",
    ):
        assert said in out


def test_one_model_as_json(capsys):
    code, out, _ = run(capsys, "glm-5.1-reap-160", "--json")
    body = json.loads(out)
    assert code == 0
    assert {"name", "total_params", "active_params", "layers", "attention", "disagreements"} <= set(body)
    assert (body["attention"], body["layers"], body["base"]) == ("mla+dsa", 78, "glm-5.1")
    assert body["layout"]["parts"] == {"routed_experts": "nvfp4"}
    assert body["disk_bytes"] == find_model("glm-5.1-reap-160").disk_bytes


def test_the_list_as_json(capsys):
    code, out, _ = run(capsys, "--json")
    assert code == 0
    assert [each["name"] for each in json.loads(out)["models"]] == list(list_models())


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "llama"}, "model_type = 'llama': not a GLM"),
        ({"model_type": "glm_moe_dsa", "vocab_size": -5}, "vocab_size = -5"),
    ],
)
def test_a_folder_that_is_no_glm_is_one_line(capsys, tmp_path, config, said):
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    code, out, err = run(capsys, str(tmp_path))
    assert (code, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1


def test_a_notebook_shows_sizes_and_disagreements():
    html = find_model("glm-5.1")._repr_html_()
    assert "DeepSeek Sparse Attention" in html
    assert "<table>" in html
    assert find_model("someone/GLM-9")._repr_html_().count("<table>") == 1


def test_what_may_be_gib_is_shown_in_gb_too():
    console = Console(width=400)
    with console.capture() as captured:
        console.print(model_in_full(find_model("glm-5.1-reap-160")))
    assert "77.15 to 77.2 GB, or GiB (as GiB: 82.8 to 82.9 GB)" in captured.get()


def test_a_shape_without_a_kind_of_attention_is_none():
    assert inspect.isabstract(ModelShape)
    assert not any(inspect.isabstract(kind) for kind in (GqaShape, MlaShape, DsaShape))
