"""Setup: whatever is changed, recipe, form, fit and findings tell the same, and nothing waits for them."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from glmlab.errors import RecipeError
from glmlab.gpus import find_gpu
from glmlab.hardware import machine
from glmlab.memory import fit
from glmlab.predictor import predict
from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe
from glmlab.rules import check
from glmlab.widgets import setup as the_module
from glmlab.widgets.judgement import judge
from glmlab.widgets.look import is_shown
from glmlab.widgets.setup import Setup, with_model
from tests.nvml_double import H100, Nvml

NO_GPU = machine(Nvml()).model_copy(
    update={"gpus": (), "gpu_state": "absent", "gpu_note": "no NVIDIA driver"}
)


@pytest.fixture
def make():
    made = []

    def make(*args, **kwargs):
        made.append(Setup(*args, **{"here": NO_GPU, **kwargs}))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def too_large(make):
    return make("glm-5.1-nvfp4", gpu="rtx-pro-6000", count=4)


def take(setup: Setup, words: str) -> None:
    """Press the button of a piece of advice or a fix."""
    slots: list[Any] = [*setup.memory.slots, *setup.findings.slots]
    [slot] = [slot for slot in slots if words in slot.button.description and is_shown(slot)]
    slot.button.click()


# ---------------------------------------------------------------------------------------- at first
def test_fit_and_findings_are_there_from_the_first_moment(too_large):
    asked = find_recipe("glm-5.1-nvfp4")
    assert too_large.judgement.fit == fit(asked, "rtx-pro-6000", 4)
    assert list(too_large.judgement.findings) == list(check(asked, "rtx-pro-6000", 4))
    assert too_large.memory.line.startswith("does not fit 4 x rtx-pro-6000")
    assert too_large.recipes.value == "glm-5.1-nvfp4"


def test_the_speed_is_predicted_and_called_so(make):
    setup = make("glm-5.1-reap-160-vllm-sparse", gpu="rtx-pro-6000", count=4)
    found = predict("glm-5.1-reap-160-vllm-sparse", "rtx-pro-6000", 4)
    assert setup.judgement.speed == found
    assert "predicted" in setup.speed.value
    assert f"{found.point(150_000).tpot_ms:.1f}" in setup.speed.value


def test_what_cannot_be_predicted_says_why(make):
    assert make("glm-5.1-reap-160-vllm-sparse").speed.value == ""  # no GPU: the memory panel asks for one
    few = make("glm-5.1-reap-160-vllm-sparse", gpu="rtx-pro-6000", count=2)
    assert few.judgement.speed is None
    assert "No prediction: " in few.speed.value
    assert "4 ranks" in few.speed.value


def test_by_default_it_is_the_tiny_model_on_this_machine(make):
    setup = make(here=machine(Nvml(H100, H100)))
    assert setup.recipe == find_recipe("tiny-glm4-moe")
    assert (setup.gpu.name, setup.count) == ("h100", 2)
    assert make().gpu is None


def test_without_a_gpu_memory_is_not_judged_and_that_is_said(make):
    setup = make("glm-4.7-nvfp4")
    assert "No GPU is chosen" in setup.memory.line
    assert list(setup.judgement.findings) == list(check("glm-4.7-nvfp4"))


def test_a_recipe_that_is_not_there_is_refused(make):
    with pytest.raises(RecipeError, match="no such recipe"):
        make("glm-9")


# ---------------------------------------------------------------------------------------- changes
def test_a_model_that_is_picked_is_judged(too_large):
    too_large.model.listing.value = "glm-5.1-reap-160"
    judged = too_large.wait()
    assert too_large.recipe.model == "glm-5.1-reap-160"
    assert judged.fit.fits
    assert too_large.memory.line == "fits 4 x rtx-pro-6000"
    assert too_large.form.row("model").control.value == "glm-5.1-reap-160"
    assert too_large.recipes.value == "", "it is none of the packaged recipes any more"


def test_a_model_that_is_typed_into_the_form_is_shown_in_the_picker(too_large):
    too_large.form.row("model").control.value = "glm-5.1-reap-160"
    assert too_large.wait().fit.fits
    assert too_large.model.model == "glm-5.1-reap-160"
    assert too_large.model.listing.value == "glm-5.1-reap-160"


def test_advice_is_applied_by_its_button(too_large):
    take(too_large, "model: glm-5.1-reap-160")
    assert too_large.wait().fit.fits
    assert too_large.recipe.model == "glm-5.1-reap-160"
    assert too_large.recipe.name == "glm-5.1-reap-160"


def test_advice_to_have_more_gpus_changes_recipe_and_machine(too_large):
    take(too_large, "tensor_parallel: 8, 8 GPUs")
    judged = too_large.wait()
    assert (too_large.count, too_large.recipe.tensor_parallel) == (8, 8)
    assert judged.fit.fits


def test_a_fix_is_applied_by_its_button(make):
    setup = make("glm-5.1-reap-160-vllm-sparse", gpu="rtx-pro-6000", count=4)
    setup.form.row("block_size").control.value = "32"
    assert setup.wait().findings.blocked
    take(setup, "block_size: 64")
    assert not setup.wait().findings.blocked
    assert setup.recipe.block_size == 64
    assert setup.form.row("block_size").control.value == "64"


def test_findings_stand_in_the_form_too(make):
    setup = make("glm-5.1-reap-160-vllm-sparse", gpu="rtx-pro-6000", count=4)
    setup.form.row("block_size").control.value = "32"
    setup.wait()
    assert "takes multiples of 64" in setup.form.row("block_size")._message.value


def test_another_gpu_is_judged(too_large):
    too_large.machine.choice.value = "b200"
    assert too_large.wait().fit == fit("glm-5.1-nvfp4", "b200", 4)


def test_a_packaged_recipe_replaces_everything(too_large):
    too_large.recipes.value = "glm-4.7-flash"
    too_large.wait()
    assert too_large.recipe == find_recipe("glm-4.7-flash")
    assert too_large.model.model == "glm-4.7-flash"
    assert too_large.recipes.value == "glm-4.7-flash"


def test_a_recipe_that_is_set_by_program(too_large):
    too_large.recipe = {"name": "mine", "model": "glm-4.7", "tensor_parallel": 8}
    assert too_large.wait().recipe.model == "glm-4.7"
    assert too_large.model.model == "glm-4.7"


def test_others_are_told_of_each_change_with_all_of_it(too_large):
    told = []
    too_large.on_change(lambda setup: told.append((setup.recipe.model, setup.gpu.name, setup.count)))
    too_large.model.listing.value = "glm-5.2"
    too_large.machine.number.value = 8
    too_large.form.row("seed").control.value = "1"
    assert told == [
        ("glm-5.2", "rtx-pro-6000", 4),
        ("glm-5.2", "rtx-pro-6000", 8),
        ("glm-5.2", "rtx-pro-6000", 8),
    ]


def test_what_cannot_be_judged_is_said_where_it_would_stand(too_large):
    too_large.form.row("tensor_parallel").control.value = "3"
    assert too_large.wait().fit is None
    assert "Memory cannot be judged: tensor_parallel = 3" in too_large.memory.line
    too_large.recipe = too_large.recipe.replace(model="my-org/My-GLM")
    too_large.wait()
    assert "config.json is not on this machine" in too_large.memory.line


def test_bad_input_changes_nothing_that_is_judged(too_large):
    before = too_large.judgement
    too_large.form.row("max_num_seqs").control.value = "zero"
    assert too_large.wait() is before


# ---------------------------------------------------------------------------------------- in the background
def test_a_callback_returns_before_the_judgement_and_only_the_last_is_shown(too_large, monkeypatch):
    may_go, judged = threading.Event(), []

    def slow(recipe, gpu, count):
        judged.append(count)
        assert may_go.wait(30)
        return judge(recipe, gpu, count)

    monkeypatch.setattr(the_module, "judge", slow)
    before = too_large.judgement
    for count in (5, 6, 7, 8):
        too_large.machine.number.value = count
    assert too_large.judgement is before, "nothing was waited for"
    may_go.set()
    assert too_large.wait().count == 8
    assert judged in ([5, 8], [8]), "what was overtaken is not computed"


def test_what_fails_unforeseen_in_the_background_is_shown(too_large, monkeypatch, caplog):
    def broken(*_):
        raise ZeroDivisionError("in the judge")

    monkeypatch.setattr(the_module, "judge", broken)
    too_large.machine.number.value = 5
    too_large.wait()
    assert "ZeroDivisionError: in the judge" in too_large.notice.text
    assert "in the judge" in caplog.text


def test_while_an_engine_runs_the_model_cannot_be_picked(too_large):
    too_large.lock({})
    assert too_large.model.listing.disabled
    [slot] = [slot for slot in too_large.memory.slots if "reap-160" in slot.button.description]
    assert slot.button.disabled
    assert "needs a new engine" in slot.button.tooltip
    assert too_large.form.row("block_size").control.disabled
    too_large.lock(None)
    assert not too_large.model.listing.disabled
    assert not slot.button.disabled
    slot.button.click()
    assert too_large.recipe.model == "glm-5.1-reap-160"
    assert not too_large.form.row("block_size").control.disabled


# ---------------------------------------------------------------------------------------- another model
def test_another_model_takes_the_settings_along_but_not_what_was_the_old_ones():
    old = find_recipe("glm-5.1-nvfp4").replace(quantization="modelopt_fp4")
    new = with_model(old, "glm-4.7")
    assert (new.name, new.model, new.notes, new.quantization) == ("glm-4.7", "glm-4.7", "", None)
    assert new.tensor_parallel == old.tensor_parallel
    assert "#" not in new.to_yaml(), "comments of the file were about the other model"
    assert with_model(old, old.model) is old


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("zai-org/GLM-4.7", "GLM-4.7"),
        ("/somewhere/my model/", "my-model"),
        ("glm-4.7@tp4-l4", "glm-4.7-tp4-l4"),
    ],
)
def test_the_name_is_made_of_the_models(model, name):
    assert with_model(Recipe(name="a", model="b"), model).name == name


def test_a_judgement_without_gpu_asks_the_rules_without_one():
    judged = judge(find_recipe("glm-4.7-nvfp4"), None, 1)
    assert judged.fit is None
    assert list(judged.findings) == list(check("glm-4.7-nvfp4"))
    assert judge(find_recipe("glm-4.7-nvfp4"), find_gpu("rtx-pro-6000"), 4).no_fit == ""
