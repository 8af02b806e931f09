"""A model by typing, or by its name, folder or rank twin; with what is known of it."""

from __future__ import annotations

import json

import pytest

from glmlab.catalog import find_model, list_models
from glmlab.widgets.model_picker import ModelPicker, known_html


@pytest.fixture
def picker():
    return ModelPicker("glm-4.7-nvfp4")


def marked(picker: ModelPicker) -> str | None:
    name: str | None = picker.listing.value
    return name


def listed(picker: ModelPicker) -> list[str]:
    return [name for _, name in picker.listing.options]


def test_the_whole_catalog_is_listed_with_sizes_and_the_picked_one_marked(picker):
    assert listed(picker) == list(list_models())
    assert picker.listing.value == "glm-4.7-nvfp4"
    [line] = [line for line, name in picker.listing.options if name == "glm-4.7-nvfp4"]
    assert line == "glm-4.7-nvfp4  (353 B, nvfp4-linear, 201 GB)"


@pytest.mark.parametrize(
    ("typed", "among"),
    [
        ("5.1 nvfp4", "glm-5.1-reap-160"),
        ("FLASH", "glm-4.7-flash"),
        ("zai-org/GLM-4.6", "glm-4.6"),
        ("dsa", "glm-5.2"),
    ],
)
def test_typing_filters_by_name_title_hub_name_format_and_attention(picker, typed, among):
    picker.search.value = typed
    assert among in listed(picker)
    assert len(listed(picker)) < len(list_models())
    assert picker.listing.description == f"Models ({len(listed(picker))})"


def test_filtering_picks_nothing_and_keeps_what_was_picked(picker):
    picked: list[str] = []
    picker.on_change(picked.append)
    picker.search.value = "flash"
    assert marked(picker) is None
    picker.search.value = ""
    assert marked(picker) == "glm-4.7-nvfp4"
    assert picked == []
    assert picker.model == "glm-4.7-nvfp4"


def test_a_model_of_the_list_is_picked(picker):
    picked: list[str] = []
    picker.on_change(picked.append)
    picker.search.value = "flash"
    picker.listing.value = "glm-4.7-flash"
    assert picked == ["glm-4.7-flash"]
    assert picker.model == "glm-4.7-flash"
    assert "GLM-4.7-Flash, 30B-A3B" in picker._known.value
    assert "computed from config.json" in picker._known.value


def test_a_hub_name_is_taken_and_what_is_not_known_of_it_is_said(picker):
    picker.search.value = "my-org/My-GLM"
    assert not picker.use.disabled
    assert picker.use.description == "Use “my-org/My-GLM” as it is"
    picker.use.click()
    assert picker.model == "my-org/My-GLM"
    assert "not on this machine" in picker._known.value


def test_a_folder_with_a_config_is_taken_with_its_sizes(picker, tmp_path):
    config = find_model("tiny/glm4-moe").config
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    picker.search.value = str(tmp_path)
    picker.use.click()
    assert picker.model == str(tmp_path)
    assert "computed from config.json" in picker._known.value


def test_a_rank_twin_is_taken(picker):
    picker.search.value = "glm-4.7@tp4-l4"
    picker.use.click()
    assert picker.model == "glm-4.7@tp4-l4"


def test_words_that_find_something_are_no_name(picker):
    picker.search.value = "flash reap"
    assert picker.use.disabled


def test_a_name_that_is_nothing_is_refused_with_the_nearest_and_changes_nothing(picker):
    picked: list[str] = []
    picker.on_change(picked.append)
    picker.search.value = "glm-4.7-flsh"
    picker.use.click()
    assert "glm-4.7-flash" in picker.notice.text
    assert picker.model == "glm-4.7-nvfp4"
    assert picked == []
    picker.search.value = ""
    picker.listing.value = "glm-4.7"
    assert picker.notice.text == ""


def test_what_is_typed_is_escaped(picker, tmp_path):
    folder = tmp_path / "<b>x"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(find_model("tiny/glm4-moe").config), encoding="utf-8")
    assert "<b>x" not in known_html(find_model(folder)).removeprefix('<div class="glmlab-card"><b>')


def test_every_packaged_model_can_be_told():
    for name in list_models():
        assert name in known_html(find_model(name))
