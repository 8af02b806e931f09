"""This machine's GPUs first, then the catalog's, and how many."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from glmlab.errors import GpuError, InputError
from glmlab.gpus import find_gpu, list_gpus
from glmlab.hardware import Machine, machine
from glmlab.widgets.machine_picker import MachinePicker
from tests.nvml_double import H100, PRO_6000, Nvml

UNKNOWN = PRO_6000 | {"nvmlDeviceGetName": "NVIDIA Something New"}
SMALLER = PRO_6000 | {"nvmlDeviceGetMemoryInfo": SimpleNamespace(total=90_000_000_000, used=0)}


def here(*gpus) -> Machine:
    return machine(Nvml(*gpus))


@pytest.fixture
def without() -> Machine:
    return machine(Nvml()).model_copy(
        update={"gpus": (), "gpu_state": "absent", "gpu_note": "no NVIDIA driver"}
    )


def name_of(picker: MachinePicker) -> str | None:
    return None if picker.gpu is None else picker.gpu.name


def keys(picker: MachinePicker) -> list[str]:
    return [key for _, key in picker.choice.options]


def test_gpus_of_this_machine_stand_first_and_are_picked_with_their_number():
    picker = MachinePicker(here=here(PRO_6000, PRO_6000, PRO_6000, H100))
    assert keys(picker)[:2] == ["here:rtx-pro-6000", "here:h100"]
    assert keys(picker)[2:-1] == list(list_gpus())
    assert name_of(picker) == "rtx-pro-6000"
    assert picker.count == 3
    assert picker.choice.options[0][0].startswith("this machine: 3 x rtx-pro-6000")
    assert "as this machine's driver tells" in picker._about.value


def test_of_several_alike_the_smallest_counts():
    picker = MachinePicker(here=here(PRO_6000, SMALLER))
    assert picker.gpu is not None
    assert picker.gpu.memory_bytes == 90_000_000_000


def test_without_a_gpu_none_is_picked_and_it_is_said_why(without):
    picker = MachinePicker(here=without)
    assert picker.gpu is None
    assert picker.number.disabled
    assert "no NVIDIA driver" in picker._about.value
    assert keys(picker)[0] == "none"


def test_a_card_that_the_catalog_has_not_is_named():
    picker = MachinePicker(here=here(UNKNOWN))
    assert picker.gpu is None
    assert "the catalog has no NVIDIA Something New" in picker._about.value


def test_another_gpu_is_picked_with_the_number_that_is_there(without):
    told = []
    picker = MachinePicker("rtx-pro-6000", 4, here=without)
    picker.on_change(lambda: told.append((name_of(picker), picker.count)))
    picker.choice.value = "h100"
    picker.number.value = 8
    assert told == [("h100", 4), ("h100", 8)]
    assert "from the catalog" in picker._about.value


def test_going_back_to_this_machine_brings_its_number():
    picker = MachinePicker("h200", 8, here=here(PRO_6000, PRO_6000))
    picker.choice.value = "here:rtx-pro-6000"
    assert picker.count == 2


def test_shown_by_program_nobody_is_called_back(without):
    told = []
    picker = MachinePicker(here=without)
    picker.on_change(lambda: told.append(1))
    picker.pick("b200", 8)
    assert (picker.gpu, picker.count) == (find_gpu("b200"), 8)
    picker.count = 16
    assert picker.count == 16
    picker.pick(None)
    assert picker.gpu is None
    assert told == []


def test_a_gpu_of_the_users_own_gets_a_row(without):
    mine = find_gpu("h100").model_copy(update={"name": "mine", "memory_bytes": 70_000_000_000})
    picker = MachinePicker(mine, 2, here=without)
    assert picker.gpu == mine
    assert "mine" in keys(picker)


def test_what_cannot_be_is_refused(without):
    with pytest.raises(GpuError, match="no such GPU"):
        MachinePicker("h1000", here=without)
    picker = MachinePicker("h100", here=without)
    with pytest.raises(InputError, match="count = 100"):
        picker.pick("h100", 100)
    with pytest.raises(InputError, match="count = 0"):
        picker.count = 0
