"""Which GPUs an engine takes."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from glmlab.engines.placement import place
from glmlab.hardware import Machine
from glmlab.hardware import machine as this_machine
from glmlab.machine.device import Gpu, GpuPair
from glmlab.recipe import Recipe

THIS = this_machine()


def machine(paths: dict[tuple[int, int], Any], count: int = 4, busy: tuple[int, ...] = ()) -> Machine:
    """GPUs whose pairs have the given paths; all others lie across NUMA nodes."""
    gpus = [
        Gpu(
            index=index, name="RTX PRO 6000", uuid=f"GPU-{index}", capability="12.0", memory_bytes=96 << 30,
            memory_used_bytes=(40 << 30) if index in busy else (100 << 20), driver="580", pcie_generation=5,
            pcie_width=16, power_limit_w=600, sm_clock_mhz=0, memory_clock_mhz=0, temperature_c=30,
            processes=(),
        )
        for index in range(count)
    ]  # fmt: skip
    pairs = []
    for first, second in itertools.combinations(range(count), 2):
        path = paths.get((first, second), "between NUMA nodes")
        fields: dict[str, Any] = {"read": True, "write": True, "nvlink": False, "path": path}
        if path == "nvlink":
            fields |= {"nvlink": True, "path": None}
        if path == "closed":
            fields |= {"read": False, "write": False, "path": "one PCIe switch"}
        pairs.append(GpuPair(first=first, second=second, why_not="", **fields))
    return THIS.model_copy(update={"gpus": tuple(gpus), "gpu_pairs": tuple(pairs)})


def recipe(**plan: int) -> Recipe:
    return Recipe(name="plan", model="glm-4.7", **plan)


SWITCHES: dict[tuple[int, int], Any] = {(0, 2): "one PCIe switch", (1, 3): "one PCIe switch"}


def test_two_ranks_sit_below_one_switch() -> None:
    found = place(recipe(tensor_parallel=2), machine(SWITCHES), {})
    assert found.gpus == (0, 2)
    assert found.environment == {"CUDA_VISIBLE_DEVICES": "0,2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    assert found.why == "ranks sit on GPU 0, 2: these reach each other best"


def test_stages_are_apart_and_tensor_parallel_ranks_together() -> None:
    found = place(recipe(tensor_parallel=2, pipeline_parallel=2), machine(SWITCHES), {})
    assert found.gpus == (0, 2, 1, 3)


def test_a_gpu_in_use_is_left_out() -> None:
    found = place(recipe(), machine({}, busy=(0,)), {})
    assert found.gpus == (1,)
    assert found.why == "ranks sit on GPU 1: GPU 0 is in use by others"
    both = place(recipe(tensor_parallel=2), machine(SWITCHES, busy=(0,)), {})
    assert both.gpus == (1, 3)


def test_nvlink_comes_before_a_switch_and_closed_peers_come_last() -> None:
    paths: dict[tuple[int, int], Any] = {**SWITCHES, (2, 3): "nvlink"}
    assert place(recipe(tensor_parallel=2), machine(paths), {}).gpus == (2, 3)
    paths = {(0, 1): "closed", (2, 3): "between NUMA nodes"}
    assert place(recipe(tensor_parallel=2), machine(paths), {}).gpus == (0, 2)


@pytest.mark.parametrize(
    ("host", "plan", "variables"),
    [
        (machine({}), {"tensor_parallel": 2}, {}),  # all alike
        (machine(SWITCHES), {"tensor_parallel": 4}, {}),  # all taken
        (machine(SWITCHES), {"tensor_parallel": 2}, {"CUDA_VISIBLE_DEVICES": "1,3"}),  # chosen by the user
        (machine(SWITCHES, count=1), {}, {}),
        (machine(SWITCHES), {"tensor_parallel": 8}, {}),  # more than there are
    ],
)
def test_vllms_own_choice_stands(host: Machine, plan: dict[str, int], variables: dict[str, str]) -> None:
    found = place(recipe(**plan), host, variables)
    assert (found.environment, found.why) == ({}, "")


def test_a_recipe_that_names_its_gpus_is_left_alone() -> None:
    named = recipe(tensor_parallel=2).replace(env={"CUDA_VISIBLE_DEVICES": "3,1"})
    assert place(named, machine(SWITCHES), {}).environment == {}
