"""The machine that glmlab runs on: CPU and memory through psutil, GPUs through NVML."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import psutil
from pydantic import BaseModel, ConfigDict

from glmlab.machine.device import Gpu, GpuPair, GpuProcess
from glmlab.machine.host_settings import HostSettings, host_settings
from glmlab.machine.nvml import Fault, State, ask_nvml

__all__ = ["Gpu", "GpuPair", "GpuProcess", "HostSettings", "Machine", "machine"]

# What decides which kernels vLLM's CPU engine takes.
_CPU_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
_CPU_INFO = Path("/proc/cpuinfo")
_SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (only its size is asked for)


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


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
    gpu_pairs : tuple of GpuPair
        Every two GPUs once, the lower index first.
    gpu_fault : {"library", "module", "mismatch", "lost", "other"} or None
        What is broken: the driver's library is missing, its kernel module is not loaded, the two are of
        different versions, a GPU fell off the bus, or something else.
    settings : HostSettings or None
        What the operating system allows the ranks of an engine; None where nobody looked.
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
    gpu_state: State
    gpu_note: str
    gpu_pairs: tuple[GpuPair, ...] = ()
    gpu_fault: Fault | None = None
    settings: HostSettings | None = None


def machine(nvml: Any = None) -> Machine:
    """Look at this machine. No GPU is touched: NVML needs no CUDA context.

    Parameters
    ----------
    nvml : module, optional
        Stands in for ``pynvml``, which is imported otherwise.
    """
    found = ask_nvml(nvml)
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
        gpus=found.gpus,
        gpu_state=found.state,
        gpu_note=found.note,
        gpu_pairs=found.pairs,
        gpu_fault=found.fault,
        settings=host_settings([gpu.pci_address for gpu in found.gpus if gpu.pci_address]),
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
