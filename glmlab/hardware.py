"""The machine that glmlab runs on: CPU and memory through psutil, GPUs through NVML."""

from __future__ import annotations

import contextlib
import importlib
import os
import platform
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import psutil
from pydantic import BaseModel, ConfigDict

# What decides which kernels vLLM's CPU engine takes.
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_CPU_INFO = Path("/proc/cpuinfo")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (only its size is asked for)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GpuProcess(_Record):
    """A process that computes on a GPU; its memory is None where the driver keeps it to itself."""

    pid: int
    memory_used_bytes: int | None


class Gpu(_Record):
    """One GPU. A value is None where this GPU or driver does not tell it.

    Attributes
    ----------
    capability : str or None
        CUDA compute capability, such as ``"12.0"``.
    pcie_generation : int or None
        The highest that card and slot agree on; the present one falls while the card idles.
    pcie_width : int or None
        Lanes in use now: fewer than the card has point to its slot or its seat.
    power_limit_w : float or None
        The limit in force.
    """

    index: int
    name: str
    uuid: str
    capability: str | None
    memory_bytes: int | None
    memory_used_bytes: int | None
    driver: str
    pcie_generation: int | None
    pcie_width: int | None
    power_limit_w: float | None
    sm_clock_mhz: int | None
    memory_clock_mhz: int | None
    temperature_c: int | None
    processes: tuple[GpuProcess, ...]


class Machine(_Record):
    """One machine as it is now.

    Attributes
    ----------
    allowed_cpus : tuple of int
        Logical CPUs that this process may use.
    cpu_flags : tuple of str
        Those of avx2, avx512f, avx512_bf16 and amx_bf16 that the CPU has.
    load_average : tuple of float
        Over 1, 5 and 15 minutes.
    shared_memory_free_bytes : int or None
        Room in ``/dev/shm``, through which the ranks of an engine talk; None where there is none.
    gpu_state : {"present", "absent", "broken"}
        ``broken``: there is a driver, but it does not answer as it should.
    gpu_note : str
        One line that says why GPUs are missing from the list; empty where none is.
    """

    cpu_model: str
    logical_cpus: int
    allowed_cpus: tuple[int, ...]
    cpu_flags: tuple[str, ...]
    memory_bytes: int
    memory_available_bytes: int
    shared_memory_free_bytes: int | None
    load_average: tuple[float, float, float]
    os: str
    python: str
    gpus: tuple[Gpu, ...]
    gpu_state: Literal["present", "absent", "broken"]
    gpu_note: str


def machine(nvml: Any = None) -> Machine:
    """Look at this machine. No GPU is touched: NVML needs no CUDA context.

    Parameters
    ----------
    nvml : module, optional
        Stands in for ``pynvml``, which is imported otherwise.
    """
    gpus, state, note = _gpus(nvml)
    memory = psutil.virtual_memory()
    cpu_model, flags = _cpu(_CPU_INFO)
    return Machine(
        cpu_model=cpu_model,
        logical_cpus=psutil.cpu_count() or 1,
        allowed_cpus=_allowed_cpus(),
        cpu_flags=tuple(flag for flag in _CPU_FLAGS if flag in flags),
        memory_bytes=memory.total,
        memory_available_bytes=memory.available,
        shared_memory_free_bytes=shutil.disk_usage(_SHARED_MEMORY).free if _SHARED_MEMORY.is_dir() else None,
        load_average=psutil.getloadavg(),
        os=platform.platform(),
        python=platform.python_version(),
        gpus=gpus,
        gpu_state=state,
        gpu_note=note,
    )


def _allowed_cpus() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(psutil.cpu_count() or 1))  # macOS pins nothing


def _cpu(path: Path) -> tuple[str, frozenset[str]]:
    """Name and feature flags of the first CPU that the kernel lists."""
    fields: dict[str, str] = {}
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            fields.setdefault(key.strip(), value.strip())
    name = fields.get("model name") or platform.processor() or platform.machine()
    return name, frozenset(fields.get("flags", fields.get("Features", "")).split())


_Answer = tuple[tuple[Gpu, ...], Literal["present", "absent", "broken"], str]


def _gpus(nvml: Any) -> _Answer:
    try:
        nvml = nvml or importlib.import_module("pynvml")
    except ImportError as error:
        return (), "absent", f"GPUs cannot be listed: pynvml cannot be imported ({error})"
    try:
        nvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 (a driver may fail in any way; a machine is still a machine)
        if getattr(error, "value", None) == nvml.NVML_ERROR_LIBRARY_NOT_FOUND:
            return (), "absent", "no NVIDIA driver on this machine"
        return (), "broken", f"the NVIDIA driver does not answer: {_one_line(error)}"
    try:
        return _listed(nvml)
    except Exception as error:  # noqa: BLE001 (as above)
        return (), "broken", f"the NVIDIA driver failed while listing GPUs: {_one_line(error)}"
    finally:
        with contextlib.suppress(nvml.NVMLError):
            nvml.nvmlShutdown()


def _listed(nvml: Any) -> _Answer:
    driver = _text(nvml.nvmlSystemGetDriverVersion())
    gpus: list[Gpu] = []
    lost: list[str] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            gpus.append(_gpu(nvml, index, driver))
        except nvml.NVMLError as error:
            lost.append(f"GPU {index} does not answer: {_one_line(error)}")
    if lost:
        return tuple(gpus), "broken", "; ".join(lost)
    if not gpus:
        return (), "absent", f"the NVIDIA driver {driver} finds no GPU"
    return tuple(gpus), "present", ""


def _gpu(nvml: Any, index: int, driver: str) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)

    def ask(function: str, *args: Any) -> Any:
        """The answer, or None: parts of a split GPU and laptops' ones leave much unanswered."""
        try:
            return getattr(nvml, function)(handle, *args)
        except nvml.NVMLError:
            return None

    memory = ask("nvmlDeviceGetMemoryInfo")
    capability = ask("nvmlDeviceGetCudaComputeCapability")
    limit_mw = ask("nvmlDeviceGetEnforcedPowerLimit")
    return Gpu(
        index=index,
        name=_text(nvml.nvmlDeviceGetName(handle)),
        uuid=_text(nvml.nvmlDeviceGetUUID(handle)),
        capability=None if capability is None else "{}.{}".format(*capability),
        memory_bytes=None if memory is None else memory.total,
        memory_used_bytes=None if memory is None else memory.used,
        driver=driver,
        pcie_generation=ask("nvmlDeviceGetMaxPcieLinkGeneration"),
        pcie_width=ask("nvmlDeviceGetCurrPcieLinkWidth"),
        power_limit_w=None if limit_mw is None else limit_mw / 1e3,
        sm_clock_mhz=ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_SM),
        memory_clock_mhz=ask("nvmlDeviceGetClockInfo", nvml.NVML_CLOCK_MEM),
        temperature_c=ask("nvmlDeviceGetTemperature", nvml.NVML_TEMPERATURE_GPU),
        processes=tuple(_processes(ask("nvmlDeviceGetComputeRunningProcesses") or ())),
    )


def _processes(rows: Any) -> Iterator[GpuProcess]:
    for row in rows:
        yield GpuProcess(pid=row.pid, memory_used_bytes=row.usedGpuMemory)


def _text(value: str | bytes) -> str:
    """Older nvidia-ml-py gives bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
