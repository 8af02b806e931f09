"""Number formats and layouts: what a parameter costs, and files of a user's own."""

from __future__ import annotations

import pytest

from glmlab.errors import RecipeError
from glmlab.models.quant_layout import (
    find_format,
    find_layout,
    known_methods,
    layout_for_method,
    list_layouts,
)


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.setenv("GLMLAB_DATA", str(tmp_path))
    (tmp_path / "layouts").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("name", "cost"),
    [
        ("bf16", 2),
        ("nvfp4", 0.5625),
        ("fp8-block", 1 + 4 / 16384),
        ("fp8-channel", 1 + 4 / 4096),
        ("fp8-tensor", 1),
        ("int4-g128", 0.5 + 2 / 128),
        ("int4-g128-zero", 0.5 + 2.5 / 128),
        ("mxfp4", 0.53125),
    ],
)
def test_bytes_of_a_parameter_with_its_scales(name, cost):
    assert find_format(name).bytes_per_param(row=4096) == cost


def test_every_layout_is_whole_and_has_a_source():
    for name in list_layouts():
        layout = find_layout(name)
        assert layout.source
        assert "embedding" not in layout.parts
        assert "router" not in layout.parts
        for mix in layout.parts.values():
            assert sum(share for _, _, share in mix.formats) == pytest.approx(1)


def test_a_method_belongs_to_one_layout():
    methods = known_methods()
    assert len(set(methods)) == len(methods)
    for method, name in (("modelopt_fp4", "nvfp4-experts"), ("fp8", "fp8-online"), ("awq", "int4-awq")):
        layout = layout_for_method(method)
        assert layout is not None
        assert layout.name == name
    assert layout_for_method("no-such") is None


def test_own_layouts_are_laid_over(own):
    file = own / "layouts" / "mine.yaml"
    file.write_text("parts: {routed_experts: {nvfp4: 0.5, bf16: 0.5}}\nsource: me\n", encoding="utf-8")
    layout = find_layout("mine")
    assert layout.mix("routed_experts").bytes_per_param(1, 2) == 0.5 * 0.5625 + 1
    assert layout.mix("routed_experts").label == "nvfp4 50%, bf16 50%"
    assert layout.mix("attention").is_plain
    file.write_text("parts: {}\nsource: me, later\n", encoding="utf-8")
    assert find_layout("mine").source == "me, later"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("source: x\nparts:\n  experts: nvfp4\n", "mine.yaml line 3: parts.experts"),
        ("source: x\npart: {}\n", "mine.yaml line 2: part: unknown key"),
        ("parts: {}\n", "mine.yaml line 1: source: missing"),
        (
            "source: x\nparts:\n  attention: nvfp5\n",
            "mine.yaml line 3: format = 'nvfp5': no such number format",
        ),
        ("source: x\nparts:\n  attention: {nvfp4: 0.5}\n", "shares add up to 0.5, expected 1"),
        ("- a\n", "mine.yaml line 1: expected keys and values, found a list"),
        ("source: [\n", "not valid YAML"),
        ("", "expected keys and values, found nothing"),
    ],
)
def test_an_error_names_the_file_and_the_line(own, text, said):
    (own / "layouts" / "mine.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError) as error:
        find_layout("mine")
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_unknown_names_get_the_nearest():
    with pytest.raises(
        RecipeError, match="layout = 'nvfp4-expert': no such quantization layout; did you mean nvfp4-exp"
    ):
        find_layout("nvfp4-expert")
    with pytest.raises(RecipeError, match="format = 'nvfp': no such number format; did you mean nvfp4"):
        find_format("nvfp")
