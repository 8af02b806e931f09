from __future__ import annotations

import json
import os
import platform
from types import SimpleNamespace

import psutil
import pytest

from glmlab import hardware
from glmlab.hardware import GpuProcess, machine


@pytest.fixture(autouse=True)
def _no_traces(monkeypatch):
    """As on a machine without a GPU, wherever these tests run."""
    monkeypatch.setattr("glmlab.machine.nvml.driver_traces", tuple)
    monkeypatch.setattr("glmlab.machine.nvml.module_version", str)


class FakeNvmlError(Exception):
    def __init__(self, message: str, value: int) -> None:
        super().__init__(message)
        self.value = value


class FakeNvml:
    """The part of pynvml that is asked for, two RTX PRO 6000 by default."""

    NVMLError = FakeNvmlError
    NVML_ERROR_LIBRARY_NOT_FOUND = 12
    NVML_CLOCK_SM, NVML_CLOCK_MEM, NVML_TEMPERATURE_GPU = 1, 2, 0

    def __init__(self, count: int = 2, unanswered: tuple[str, ...] = (), lost: int | None = None) -> None:
        self._count, self._unanswered, self._lost = count, unanswered, lost
        self.running = 0

    def nvmlInit(self) -> None:  # noqa: N802
        self.running += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self.running -= 1

    def nvmlSystemGetDriverVersion(self) -> bytes:  # noqa: N802
        return b"580.95.05"

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self._count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index == self._lost:
            raise FakeNvmlError("GPU is\nlost", 15)
        return index

    def __getattr__(self, function: str):
        answers = {
            "nvmlDeviceGetName": lambda gpu: "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
            "nvmlDeviceGetUUID": lambda gpu: f"GPU-{gpu}",
            "nvmlDeviceGetCudaComputeCapability": lambda gpu: (12, 0),
            "nvmlDeviceGetMemoryInfo": lambda gpu: SimpleNamespace(total=102_641_958_912, used=5_000_000_000),
            "nvmlDeviceGetMaxPcieLinkGeneration": lambda gpu: 5,
            "nvmlDeviceGetCurrPcieLinkWidth": lambda gpu: 16,
            "nvmlDeviceGetEnforcedPowerLimit": lambda gpu: 600_000,
            "nvmlDeviceGetClockInfo": lambda gpu, clock: {1: 2617, 2: 13365}[clock],
            "nvmlDeviceGetTemperature": lambda gpu, sensor: 41,
            "nvmlDeviceGetComputeRunningProcesses": lambda gpu: [
                SimpleNamespace(pid=4242, usedGpuMemory=4_500_000_000),
                SimpleNamespace(pid=4243, usedGpuMemory=None),
            ],
        }
        if function in self._unanswered:
            raise FakeNvmlError("Not Supported", 3)
        return answers[function]


class DeadNvml(FakeNvml):
    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    def nvmlInit(self) -> None:  # noqa: N802
        raise self._error


def test_gpus_as_nvml_tells_them():
    nvml = FakeNvml()
    seen = machine(nvml)
    assert (seen.gpu_state, seen.gpu_note) == ("present", "")
    assert [gpu.index for gpu in seen.gpus] == [0, 1]
    assert [gpu.uuid for gpu in seen.gpus] == ["GPU-0", "GPU-1"]
    gpu = seen.gpus[0]
    assert gpu.name == "NVIDIA RTX PRO 6000 Blackwell Workstation Edition"
    assert (gpu.capability, gpu.driver) == ("12.0", "580.95.05")
    assert (gpu.memory_bytes, gpu.memory_used_bytes) == (102_641_958_912, 5_000_000_000)
    assert (gpu.pcie_generation, gpu.pcie_width) == (5, 16)
    assert gpu.power_limit_w == 600.0
    assert (gpu.sm_clock_mhz, gpu.memory_clock_mhz, gpu.temperature_c) == (2617, 13365, 41)
    assert gpu.processes == (
        GpuProcess(pid=4242, memory_used_bytes=4_500_000_000),
        GpuProcess(pid=4243, memory_used_bytes=None),
    )
    assert nvml.running == 0


def test_what_a_gpu_does_not_tell_is_none():
    unanswered = (
        "nvmlDeviceGetMemoryInfo",
        "nvmlDeviceGetCudaComputeCapability",
        "nvmlDeviceGetEnforcedPowerLimit",
        "nvmlDeviceGetClockInfo",
        "nvmlDeviceGetComputeRunningProcesses",
    )
    seen = machine(FakeNvml(count=1, unanswered=unanswered))
    assert seen.gpu_state == "present"
    gpu = seen.gpus[0]
    assert (gpu.memory_bytes, gpu.memory_used_bytes, gpu.capability) == (None, None, None)
    assert (gpu.power_limit_w, gpu.sm_clock_mhz, gpu.memory_clock_mhz) == (None, None, None)
    assert gpu.processes == ()
    assert gpu.temperature_c == 41


def test_a_lost_gpu_leaves_the_others_and_says_so():
    nvml = FakeNvml(count=3, lost=1)
    seen = machine(nvml)
    assert [gpu.index for gpu in seen.gpus] == [0, 2]
    assert (seen.gpu_state, seen.gpu_note) == ("broken", "GPU 1 does not answer: GPU is lost")
    assert nvml.running == 0


@pytest.mark.parametrize(
    ("nvml", "state", "note"),
    [
        (
            DeadNvml(FakeNvmlError("NVML Shared Library Not Found", 12)),
            "absent",
            "no NVIDIA driver on this machine",
        ),
        (
            DeadNvml(FakeNvmlError("Driver/library\nversion mismatch", 18)),
            "broken",
            "the NVIDIA driver does not answer: Driver/library version mismatch",
        ),
        (
            DeadNvml(OSError("libnvidia-ml.so.1: invalid ELF header")),
            "broken",
            "the NVIDIA driver does not answer: libnvidia-ml.so.1: invalid ELF header",
        ),
        (DeadNvml(RuntimeError()), "broken", "the NVIDIA driver does not answer: RuntimeError"),
        (FakeNvml(count=0), "absent", "the NVIDIA driver 580.95.05 finds no GPU"),
    ],
    ids=["no driver", "mismatch", "broken library", "silent", "no gpu"],
)
def test_without_gpus_there_is_one_line_of_reason(nvml, state, note):
    seen = machine(nvml)
    assert (seen.gpus, seen.gpu_state, seen.gpu_note) == ((), state, note)


def test_a_driver_that_fails_while_listing_is_broken_and_given_back():
    nvml = FakeNvml()
    nvml.nvmlDeviceGetCount = lambda: 1 / 0  # type: ignore[method-assign, assignment, return-value]
    seen = machine(nvml)
    assert seen.gpu_state == "broken"
    assert seen.gpu_note == "the NVIDIA driver failed while listing GPUs: division by zero"
    assert nvml.running == 0


def test_without_pynvml_there_is_one_line_of_reason(monkeypatch):
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("importlib.import_module", missing)
    seen = machine()
    assert (seen.gpus, seen.gpu_state) == ((), "absent")
    assert seen.gpu_note == "GPUs cannot be listed: pynvml cannot be imported (No module named 'pynvml')"


def test_the_machine_itself():
    seen = machine(FakeNvml(count=0))
    assert seen.logical_cpus == psutil.cpu_count()
    assert set(seen.allowed_cpus) == os.sched_getaffinity(0)
    assert seen.memory_bytes == psutil.virtual_memory().total
    assert 0 < seen.memory_available_bytes <= seen.memory_bytes
    assert seen.python == platform.python_version()
    assert seen.cpu_model
    assert json.loads(seen.model_dump_json())["gpus"] == []


def test_a_machine_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        setattr(machine(FakeNvml()).gpus[0], "index", 3)  # noqa: B010 (mypy knows better, too)


CPU_INFO = """processor\t: 0
model name\t: INTEL(R) XEON(R) PLATINUM 8580
flags\t\t: fpu avx2 avx512f avx512_bf16 amx_bf16 amx_tile

processor\t: 1
model name\t: something else
flags\t\t: fpu
"""


def test_cpu_name_and_flags_are_the_first_cpus(tmp_path, monkeypatch):
    file = tmp_path / "cpuinfo"
    file.write_text(CPU_INFO, encoding="utf-8")
    monkeypatch.setattr(hardware, "_CPU_INFO", file)
    seen = machine(FakeNvml(count=0))
    assert seen.cpu_model == "INTEL(R) XEON(R) PLATINUM 8580"
    assert seen.cpu_flags == ("avx2", "avx512f", "avx512_bf16", "amx_bf16")


def test_a_system_without_cpuinfo_still_has_a_cpu(tmp_path, monkeypatch):
    monkeypatch.setattr(hardware, "_CPU_INFO", tmp_path / "none")
    monkeypatch.setattr(hardware, "_SHARED_MEMORY", tmp_path / "none")
    seen = machine(FakeNvml(count=0))
    assert seen.cpu_model == (platform.processor() or platform.machine())
    assert seen.cpu_flags == ()
    assert seen.shared_memory_free_bytes is None
