from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from glmlab.hardware import machine
from glmlab.machine import driver_traces, host_settings
from glmlab.machine.device import Gpu, GpuProcess
from glmlab.machine.nvml import ask_nvml
from tests.nvml_double import H100, LOST, NO_PERMISSION, PRO_6000, Nvml, NvmlError, process, refuse


def only(table: dict[str, Any], **options: Any) -> Gpu:
    return ask_nvml(Nvml(table, **options)).gpus[0]


# ---------------------------------------------------------------------------------- what is told
def test_a_card_on_pcie():
    gpu = only(PRO_6000)
    assert (gpu.capability, gpu.pci_address) == ("12.0", "00000000:01:00.0")
    assert (gpu.pcie_generation, gpu.pcie_generation_now, gpu.pcie_generation_card) == (5, 1, 5)
    assert (gpu.pcie_width, gpu.pcie_width_max) == (16, 16)
    assert (gpu.sm_clock_mhz, gpu.sm_clock_max_mhz) == (180, 3090)
    assert (gpu.memory_clock_mhz, gpu.memory_clock_max_mhz, gpu.memory_bus_bits) == (405, 14001, 512)
    assert (gpu.power_limit_w, gpu.power_default_w, gpu.power_max_w, gpu.power_draw_w) == (
        600,
        600,
        600,
        31.5,
    )
    assert gpu.throttle_reasons == ("idle",)
    assert (gpu.ecc_enabled, gpu.ecc_uncorrected, gpu.rows_failed, gpu.mig_enabled) == (True, 0, False, False)
    assert (gpu.nvlinks_active, gpu.nvlinks_inactive, gpu.nvlink_peers) == (None, None, ())


def test_a_card_on_nvlink():
    gpu = only(H100)
    assert (gpu.nvlinks_active, gpu.nvlinks_inactive) == (18, 0)
    assert gpu.nvlink_peers == tuple(f"00000000:0{switch}:00.0" for switch in range(4))
    half = only(H100 | {"nvmlDeviceGetNvLinkState": lambda link: link % 2 if link < 18 else refuse(2)})
    assert (half.nvlinks_active, half.nvlinks_inactive) == (9, 9)


def test_reasons_are_named_and_older_drivers_asked_by_the_older_name():
    assert only(PRO_6000 | {"nvmlDeviceGetCurrentClocksEventReasons": 0x4 | 0x40}).throttle_reasons == (
        "power cap",
        "too hot (hardware)",
    )
    older = {key: value for key, value in PRO_6000.items() if "EventReasons" not in key}
    assert only(older | {"nvmlDeviceGetCurrentClocksThrottleReasons": 0x20}).throttle_reasons == ("too hot",)
    assert only(PRO_6000 | {"nvmlDeviceGetCurrentClocksEventReasons": 0}).throttle_reasons == ()
    assert only(older).throttle_reasons is None


def test_processes_are_told_once_and_without_their_arguments():
    gpu = only(
        PRO_6000
        | {
            "nvmlDeviceGetComputeRunningProcesses": [process(7, 5_000_000_000)],
            "nvmlDeviceGetGraphicsRunningProcesses": [process(7, 1), process(8)],
        }
    )
    assert gpu.processes == (
        GpuProcess(pid=7, memory_used_bytes=5_000_000_000, name="python3"),
        GpuProcess(pid=8, memory_used_bytes=None, name="python3"),
    )


def test_pairs_say_what_they_reach_and_over_what():
    found = ask_nvml(Nvml(PRO_6000, PRO_6000, PRO_6000, path=10))
    assert [(pair.first, pair.second) for pair in found.pairs] == [(0, 1), (0, 2), (1, 2)]
    pair = found.pairs[0]
    assert (pair.read, pair.write, pair.nvlink, pair.why_not, pair.path) == (
        True,
        True,
        False,
        "",
        "one PCIe switch",
    )
    linked = ask_nvml(Nvml(H100, H100, peers=lambda first, second, kind: 0)).pairs[0]
    assert linked.nvlink is True


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (1, "the chipset does not support it"),
        (2, "the GPUs do not support it"),
        (4, "a registry key of the driver turns it off"),
        (6, "the driver gives no reason"),
    ],
)
def test_a_refused_pair_has_the_drivers_reason(status, why):
    closed = ask_nvml(Nvml(PRO_6000, PRO_6000, peers=lambda first, second, kind: status)).pairs[0]
    assert (closed.read, closed.write, closed.why_not) == (False, False, why)
    read_only = ask_nvml(Nvml(PRO_6000, PRO_6000, peers=lambda first, second, kind: status * kind)).pairs[0]
    assert (read_only.read, read_only.write, read_only.why_not) == (True, False, why)


# ---------------------------------------------------------------------------------- what is not
def asked_functions() -> list[str]:
    double = Nvml(H100, H100)
    ask_nvml(double)
    return sorted(double.asked - {"nvmlInit", "nvmlShutdown"})


@pytest.mark.parametrize("function", asked_functions())
@pytest.mark.parametrize(
    "error",
    [
        NvmlError(NO_PERMISSION, "Insufficient Permissions"),
        AttributeError("an older pynvml has it not"),
        TypeError("a newer one wants another argument"),
        OSError("broken pipe"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_single_question_fails_the_rest_is_told(function, error):
    double = Nvml(H100, H100, broken={function: error})
    found = ask_nvml(double)
    assert double.running == 0
    if function in ("nvmlDeviceGetCount", "nvmlDeviceGetHandleByIndex"):
        assert found.state == "broken"
        assert str(error) in found.note
    else:
        assert (found.state, found.note, len(found.gpus), len(found.pairs)) == ("present", "", 2, 1)
    assert machine(double).gpu_state == found.state


def test_a_card_that_tells_nothing_is_still_a_card():
    found = ask_nvml(Nvml({}, {}))
    gpu = found.gpus[1]
    assert (gpu.index, gpu.name, gpu.driver) == (1, "unknown NVIDIA GPU", "580.95.05")
    told = {"index", "name", "uuid", "driver", "pci_address", "processes", "nvlink_peers"}
    assert {value for key, value in gpu.model_dump().items() if key not in told} == {None}
    assert found.state == "present"


def test_a_card_that_fell_off_the_bus_is_lost_and_the_others_are_not():
    def gone():
        refuse(LOST, "GPU is lost")

    found = ask_nvml(Nvml(PRO_6000, PRO_6000 | {"nvmlDeviceGetMemoryInfo": gone}, PRO_6000))
    assert [gpu.index for gpu in found.gpus] == [0, 2]
    assert (found.state, found.fault) == ("broken", "lost")
    assert found.note == "GPU 1 does not answer: GPU is lost"
    assert [(pair.first, pair.second) for pair in found.pairs] == [(0, 2)]


def test_an_answer_of_another_shape_loses_one_card_only():
    strange = PRO_6000 | {"nvmlDeviceGetMemoryInfo": SimpleNamespace(total="lots", used=None)}
    found = ask_nvml(Nvml(strange, PRO_6000))
    assert [gpu.index for gpu in found.gpus] == [1]
    assert found.note.startswith("GPU 0 does not answer: ")
    assert "\n" not in found.note


def test_an_error_that_cannot_say_its_name():
    class MuteError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("the library is gone")

    assert (
        ask_nvml(Nvml(broken={"nvmlInit": MuteError()})).note
        == "the NVIDIA driver does not answer: MuteError"
    )


# ---------------------------------------------------------------------------------- broken drivers
@pytest.fixture
def host(tmp_path, monkeypatch):
    """A machine whose traces of a driver are made up."""
    bus = tmp_path / "devices"
    bus.mkdir()
    monkeypatch.setattr(driver_traces, "_PCI_DEVICES", bus)
    monkeypatch.setattr(driver_traces, "_KERNEL_MODULE", tmp_path / "version")
    monkeypatch.setattr(host_settings, "_PCI_DEVICES", bus)

    def make(smi=False, module="", cards=()):
        monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/nvidia-smi" if smi else None)
        if module:
            (tmp_path / "version").write_text(f"NVRM version: NVIDIA UNIX x86_64 Module  {module}  x\n")
        for address, vendor, kind in cards:
            (bus / address).mkdir()
            (bus / address / "vendor").write_text(f"{vendor}\n")
            (bus / address / "class").write_text(f"{kind}\n")
        return bus

    return make


MISSING = NvmlError(12, "NVML Shared Library Not Found")
LIBRARY_MISSING = (
    "libnvidia-ml.so.1 is missing, though the kernel module 580.95 is loaded and 2 NVIDIA cards are on the"
    " PCI bus"
)
CARDS = [("0000:01:00.0", "0x10de", "0x030200"), ("0000:02:00.0", "0x10de", "0x030000")]


@pytest.mark.parametrize(
    ("traces", "state", "fault", "note"),
    [
        ({}, "absent", None, "no NVIDIA driver on this machine"),
        # Its audio function, and another maker's card, are no NVIDIA GPU.
        (
            {"cards": [("0000:01:00.1", "0x10de", "0x040300"), ("0000:02:00.0", "0x1002", "0x030000")]},
            "absent",
            None,
            "no NVIDIA driver on this machine",
        ),
        ({"smi": True}, "broken", "library", "libnvidia-ml.so.1 is missing, though nvidia-smi is there"),
        (
            {"module": "580.95", "cards": CARDS},
            "broken",
            "library",
            LIBRARY_MISSING,
        ),
        (
            {"cards": CARDS[:1]},
            "broken",
            "library",
            "libnvidia-ml.so.1 is missing, though 1 NVIDIA card is on the PCI bus",
        ),
    ],
)
def test_a_missing_library_is_a_fault_only_where_there_should_be_one(host, traces, state, fault, note):
    host(**traces)
    found = ask_nvml(Nvml(broken={"nvmlInit": MISSING}))
    assert (found.state, found.fault, found.note) == (state, fault, note)


@pytest.mark.parametrize(
    ("error", "fault", "note"),
    [
        (
            NvmlError(18, "Driver/library version mismatch"),
            "mismatch",
            "Driver/library version mismatch; the kernel module is 580.95.05",
        ),
        (NvmlError(9, "Driver Not Loaded"), "module", "Driver Not Loaded; the kernel module is 580.95.05"),
        (NvmlError(999, "Unknown Error"), "other", "Unknown Error; the kernel module is 580.95.05"),
        (OSError("invalid ELF header"), "other", "invalid ELF header; the kernel module is 580.95.05"),
    ],
)
def test_a_driver_that_does_not_start_says_which_part(host, error, fault, note):
    host(module="580.95.05")
    found = ask_nvml(Nvml(broken={"nvmlInit": error}))
    assert (found.state, found.fault) == ("broken", fault)
    assert found.note == f"the NVIDIA driver does not answer: {note}"


def test_a_broken_pynvml_is_a_line_too(monkeypatch):
    def broken(name):
        raise SyntaxError("half an update")

    monkeypatch.setattr("importlib.import_module", broken)
    assert ask_nvml().note == "GPUs cannot be listed: pynvml cannot be imported (half an update)"


# ---------------------------------------------------------------------------------- the host
@pytest.mark.parametrize(
    ("kinds", "iommu"),
    [
        (["DMA-FQ"], "translating"),
        (["DMA"], "translating"),
        (["identity"], "passthrough"),
        ([None], "off"),
        ([None, "identity"], "passthrough"),
        (["identity", "DMA"], "translating"),
        ([], None),
    ],
)
def test_the_iommu_in_front_of_the_gpus(host, tmp_path, kinds, iommu):
    bus = host(cards=CARDS[: len(kinds)])
    for (address, _, _), kind in zip(CARDS, kinds, strict=False):
        if kind is not None:
            (bus / address / "iommu_group").mkdir()
            (bus / address / "iommu_group" / "type").write_text(f"{kind}\n")
    settings = host_settings.host_settings(["00000000:01:00.0", "00000000:02:00.0"], {})
    assert settings.iommu == iommu


def test_limits_and_variables_are_read_and_others_are_not(monkeypatch):
    monkeypatch.setattr("resource.getrlimit", lambda which: (64, 1024) if which == 7 else (-1, -1))
    found = host_settings.host_settings((), {"NCCL_P2P_DISABLE": "1", "NCCL_P2P_LEVEL": "", "API_KEY": "x"})
    assert found.open_files == 1024
    assert found.locked_memory_bytes is None
    assert found.variables == {"NCCL_P2P_DISABLE": "1"}
    assert machine(Nvml(PRO_6000)).settings is not None
