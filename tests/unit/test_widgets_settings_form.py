"""The form edits every field; what cannot be is refused beside it, and the last valid recipe stays."""

from __future__ import annotations

import re
from html import unescape

import ipywidgets
import pytest

from glmlab.engines.base import KnobStatus
from glmlab.recipe import Recipe
from glmlab.rules import Finding, check
from glmlab.widgets.look import is_shown
from glmlab.widgets.recipe_fields import GROUPS, recipe_fields
from glmlab.widgets.settings_form import SettingsForm, allowed_here, locked_because

RECIPE = Recipe(name="unit", model="tiny/glm4-moe", max_num_seqs=8, max_num_batched_tokens=1024)
LIVE = {
    "max_num_seqs": KnobStatus(live=True, value=8, low=1, high=8),
    "cpu_split_kv": KnobStatus(live=True, value=True, values=(True, False)),
    "kv_splits": KnobStatus(live=False, why="CPU_ATTN has no such splits"),
}


@pytest.fixture
def form():
    return SettingsForm(RECIPE)


def enter(form: SettingsForm, name: str, value) -> str:
    """What a user does to a field; gives back what is said beside it."""
    row = form.row(name)
    row.control.value = value
    return text(row._message.value)


def text(html: str) -> str:
    return unescape(re.sub(r"\s+", " ", re.sub("<[^>]*>", " ", html)).strip())


def controls(widget: ipywidgets.Widget) -> list[ipywidgets.Widget]:
    found = [widget] if hasattr(widget, "tooltip") and hasattr(widget, "description") else []
    return found + [each for child in getattr(widget, "children", ()) for each in controls(child)]


# ---------------------------------------------------------------------------------------- generated
def test_every_field_of_the_recipe_has_a_control_with_its_value(form):
    for name, field in recipe_fields().items():
        control = form.row(name).control
        assert control.description == name
        value = getattr(RECIPE, name)
        assert control.value == (value if isinstance(control, ipywidgets.Dropdown) else field.written(value))


def test_every_control_has_a_description_and_a_tooltip(form):
    for name in recipe_fields():
        form.row(name)
    inputs = [each for each in controls(form) if not isinstance(each, ipywidgets.HTML)]
    assert len(inputs) > len(recipe_fields())
    for each in inputs:
        assert each.description
        assert each.tooltip or not is_shown(each)


def test_choices_offer_exactly_what_the_recipe_takes(form):
    for name, field in recipe_fields().items():
        control = form.row(name).control
        if not isinstance(control, ipywidgets.Dropdown):
            continue
        for _, value in control.options:
            fields = {"name": "unit", "model": "tiny/glm4-moe", name: value}
            assert getattr(Recipe.parse(fields), name) == value
        assert (None in [value for _, value in control.options]) == field.optional


def test_beside_each_field_stand_reach_range_default_and_help(form):
    about = text(form.row("max_num_seqs")._about.value)
    assert about == "set live 1 or more; default: 16 sequences decoded together at most"
    about = text(form.row("block_size")._about.value)
    assert about == "rebuild 1 or more; default: the engine's choice tokens of one KV block"


def test_what_the_model_allows_stands_in_place_of_the_schemas_range(form):
    fields = recipe_fields()
    assert allowed_here(fields["tensor_parallel"], RECIPE, None) == "1, 2, 4, 8 with this model"
    assert allowed_here(fields["max_model_len"], RECIPE, None) == "1 to 8,192, the model's own"
    unknown = RECIPE.replace(model="my-org/my-model")
    assert allowed_here(fields["tensor_parallel"], unknown, None) == ""


# ---------------------------------------------------------------------------------------- edits
def test_a_valid_edit_makes_a_new_recipe(form):
    changed: list[Recipe] = []
    form.on_change(changed.append)
    assert enter(form, "max_num_seqs", "4") == ""
    enter(form, "prefix_caching", False)
    enter(form, "env", "A: 1")
    assert [each.max_num_seqs for each in changed] == [4, 4, 4]
    assert form.recipe == RECIPE.replace(max_num_seqs=4, prefix_caching=False, env={"A": "1"})
    assert form.recipe is changed[-1]


def test_an_emptied_field_goes_back_to_its_default(form):
    enter(form, "max_num_seqs", "")
    enter(form, "max_num_batched_tokens", "")
    assert (form.recipe.max_num_seqs, form.recipe.max_num_batched_tokens) == (16, None)
    assert form.row("max_num_seqs").control.value == "16"
    assert not text(form.row("max_num_seqs")._about.value).startswith("set")


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("max_num_seqs", "0", "max_num_seqs = 0: Input should be greater than or equal to 1"),
        ("max_num_seqs", "four", "max_num_seqs = 'four': expected a whole number"),
        ("gpu_memory_utilization", "1.5", "less than or equal to 1"),
        ("moe_tiles", "16x", "moe_tiles"),
        ("name", "a b", "name = 'a b'"),
        ("model", "glm-4.7-flsh", "did you mean glm-4.7-flash"),
        ("engine_args", "max_num_seqs: 3", "set 'max_num_seqs' instead"),
    ],
)
def test_bad_input_is_refused_beside_its_field_and_the_last_valid_recipe_stays(form, name, value, said):
    changed: list[Recipe] = []
    form.on_change(changed.append)
    shown = enter(form, name, value)
    assert shown.startswith("Not taken: ")
    assert said in shown
    assert form.recipe == RECIPE
    assert changed == []
    assert form.row(name).control.value == value, "what was typed is not taken from under one's hands"
    group = next(group for group, names in GROUPS.items() if name in names)
    assert "1 not valid" in form._sections[group].button.description


def test_a_refused_entry_stays_while_others_are_edited_and_goes_when_it_is_mended(form):
    enter(form, "max_num_seqs", "four")
    enter(form, "block_size", "32")
    row = form.row("max_num_seqs")
    assert row.control.value == "four"
    assert "Not taken" in row._message.value
    assert enter(form, "max_num_seqs", "4") == ""
    assert form.recipe == RECIPE.replace(max_num_seqs=4, block_size=32)


def test_two_fields_that_contradict_each_other_are_taken_when_both_are_entered(form):
    said = enter(form, "max_num_seqs", "2048")
    assert "max_num_batched_tokens = 1024 is below max_num_seqs = 2048" in said
    assert form.recipe == RECIPE
    enter(form, "max_num_batched_tokens", "4096")
    assert (form.recipe.max_num_seqs, form.recipe.max_num_batched_tokens) == (2048, 4096)
    assert text(form.row("max_num_seqs")._message.value) == ""


def test_an_edit_that_the_refused_one_does_not_touch_is_taken_alone(form):
    enter(form, "max_num_seqs", "2048")
    enter(form, "seed", "7")
    assert form.recipe == RECIPE.replace(seed=7)
    assert form.row("max_num_seqs").control.value == "2048"


def test_another_recipe_takes_the_place_of_everything_and_calls_nobody(form):
    changed: list[Recipe] = []
    form.on_change(changed.append)
    enter(form, "max_num_seqs", "four")
    form.recipe = RECIPE.replace(max_num_seqs=2, notes="other")
    assert form.row("max_num_seqs").control.value == "2"
    assert text(form.row("max_num_seqs")._message.value) == ""
    assert form.row("notes").control.value == "other"
    assert changed == []


def test_entering_what_is_there_already_is_no_change(form):
    changed: list[Recipe] = []
    form.on_change(changed.append)
    enter(form, "max_num_seqs", " 8 ")
    assert changed == []


# ---------------------------------------------------------------------------------------- findings
def test_findings_stand_beside_their_field_with_a_button_that_mends_it(form):
    form.recipe = Recipe(name="unit", model="glm-5.1-reap-160", tensor_parallel=3)
    form.show_findings(check(form.recipe, "rtx-pro-6000", 4))
    row = form.row("tensor_parallel")
    assert "tensor_parallel = 3 does not go with 64 query" in text(row._message.value)
    assert row.fix.description == "Apply fix: tensor_parallel: 2"
    assert "finding" in form._sections["Parallelism"].button.description
    row.fix.click()
    assert form.recipe.tensor_parallel == 2
    form.show_findings([])
    assert text(row._message.value) == ""
    assert not is_shown(row.fix)
    assert "finding" not in form._sections["Parallelism"].button.description


def test_findings_that_came_before_the_row_are_shown_when_it_is_made(form):
    form.show_findings([Finding("made-up", "warns", "too many", "fewer", {"max_num_seqs": 2}, "here")])
    assert "1 finding" in form._sections["Scheduler and speculation"].button.description
    assert "too many" in form.row("max_num_seqs")._message.value


def test_a_fix_that_cannot_be_is_told(form):
    form.show_findings([Finding("made-up", "warns", "why", "fix", {"max_num_batched_tokens": 2}, "here")])
    form.row("max_num_batched_tokens").fix.click()
    assert "below max_num_seqs" in form.notice.text
    assert form.recipe == RECIPE


# ---------------------------------------------------------------------------------------- locks
def test_what_a_running_engine_cannot_change_is_locked_with_the_reason(form):
    form.row("kv_splits")
    form.lock(LIVE)
    reasons = {name: locked_because(field, LIVE) for name, field in recipe_fields().items()}
    assert reasons["max_num_seqs"] == reasons["cpu_split_kv"] == reasons["name"] == reasons["notes"] == ""
    assert reasons["kv_splits"] == "the running engine cannot change it: CPU_ATTN has no such splits"
    assert reasons["moe_tiles"] == "the running engine has no such knob"
    assert reasons["block_size"].startswith("needs a new engine")
    for name in recipe_fields():
        row = form.row(name)
        assert row.control.disabled == bool(reasons[name])
        assert ("locked: " in text(row._about.value)) == bool(reasons[name])


def test_a_fix_of_a_locked_field_waits_for_the_engine_to_be_closed(form):
    change = {"block_size": 64, "max_num_seqs": 4}
    form.show_findings([Finding("made-up", "warns", "why", "fix", change, "here")])
    fix = form.row("block_size").fix
    form.lock(LIVE)
    assert fix.disabled
    assert fix.tooltip == "block_size: needs a new engine; close the running one first"
    form.lock(None)
    assert not fix.disabled
    assert form.locked_change(change) == ""
    form.lock(LIVE)
    assert form.locked_change({"max_num_seqs": 4}) == "", "a live one can be changed"


def test_a_live_field_shows_what_the_engine_allows_and_all_are_free_without_one(form):
    form.lock(LIVE)
    assert "the running engine takes 1 to 8" in text(form.row("max_num_seqs")._about.value)
    form.lock(None)
    assert not any(form.row(name).control.disabled for name in recipe_fields())
    assert "1 or more" in text(form.row("max_num_seqs")._about.value)


# ---------------------------------------------------------------------------------------- groups and search
def visible(form: SettingsForm) -> list[str]:
    return [
        name
        for group, names in GROUPS.items()
        for name in names
        if is_shown(form._sections[group])
        and is_shown(form._sections[group].body)
        and name in form._rows
        and is_shown(form._rows[name])
    ]


def test_rows_are_made_when_their_group_is_opened(form):
    assert form._rows == {}
    button = form._sections["Parallelism"].button
    assert button.description == "Show: Parallelism (6 settings, 0 set)"
    button.value = True
    assert visible(form) == list(GROUPS["Parallelism"])
    assert button.description.startswith("Hide: ")
    button.value = False
    assert visible(form) == []


def test_searching_shows_what_has_the_words_in_its_name_or_help(form):
    form.find.value = "split"
    assert "kv_splits" in visible(form)
    assert all("split" in f"{name} {recipe_fields()[name].help}".lower() for name in visible(form))
    form.find.value = "kv dtype"
    assert visible(form) == ["kv_cache_dtype"]
    form.find.value = ""
    assert visible(form) == []
    form._sections["Parallelism"].button.value = True
    assert visible(form) == list(GROUPS["Parallelism"])


def test_only_what_is_set_or_spoken_of(form):
    form.show_findings([Finding("made-up", "warns", "why", "fix", {"kv_splits": 8}, "here")])
    form.only_set.value = True
    assert set(visible(form)) == {"model", "name", "max_num_seqs", "max_num_batched_tokens", "kv_splits"}
