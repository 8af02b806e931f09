"""What the operating system allows the ranks of an engine: IOMMU, limits, environment."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

Iommu = Literal["off", "passthrough", "translating"]

_PCI_DEVICES = Path("/sys/bus/pci/devices")
_HMM_OFF = Path("/sys/module/nvidia_uvm/parameters/uvm_disable_hmm")
# What NCCL, vLLM and torch read when they choose how ranks talk.
_VARIABLES = (
    "NCCL_P2P_DISABLE",
    "NCCL_P2P_LEVEL",
    "NCCL_SHM_DISABLE",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF",
    "CUDA_VISIBLE_DEVICES",
)


class HostSettings(BaseModel):
    """What the operating system allows; None where it does not tell.

    Attributes
    ----------
    iommu : {"off", "passthrough", "translating"} or None
        What stands between the GPUs and the memory: nothing, a unit that lets addresses through, or one
        that translates each. The strictest, where GPUs differ.
    open_files : int or None
        How many files and sockets a process may open at most (hard limit); None for no limit.
    locked_memory_bytes : int or None
        How much memory a process may lock (soft limit); None for no limit.
    hmm_disabled : bool or None
        Whether the driver's heterogeneous memory management is off.
    variables : dict
        Those environment variables, of the ones that decide how ranks talk, that are set.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    iommu: Iommu | None = None
    open_files: int | None = None
    locked_memory_bytes: int | None = None
    hmm_disabled: bool | None = None
    variables: dict[str, str] = {}


def host_settings(
    pci_addresses: Sequence[str] = (), environment: Mapping[str, str] = os.environ
) -> HostSettings:
    """Look at the operating system; nothing is changed and nothing raises.

    Parameters
    ----------
    pci_addresses : sequence of str
        Of the GPUs, as NVML writes them; the IOMMU is looked at in front of these only.
    environment : mapping
        Where the variables are read.
    """
    return HostSettings(
        iommu=_iommu(pci_addresses),
        open_files=_limit(resource.RLIMIT_NOFILE, hard=True),
        locked_memory_bytes=_limit(resource.RLIMIT_MEMLOCK, hard=False),
        hmm_disabled=_switch(_HMM_OFF),
        variables={name: environment[name] for name in _VARIABLES if environment.get(name)},
    )


def _iommu(pci_addresses: Sequence[str]) -> Iommu | None:
    """As the kernel's ``iommu_group/type`` says: identity is passthrough, DMA and DMA-FQ translate."""
    found: list[Iommu] = []
    for address in pci_addresses:
        device = _PCI_DEVICES / _sysfs(address)
        with contextlib.suppress(OSError):
            if not device.is_dir():
                continue
            group = device / "iommu_group"
            if not group.exists():
                found.append("off")
            else:
                kind = (group / "type").read_text(encoding="utf-8").strip()
                found.append("passthrough" if kind == "identity" else "translating")
    strictest: tuple[Iommu, ...] = ("translating", "passthrough", "off")
    return next((kind for kind in strictest if kind in found), None)


def _sysfs(address: str) -> str:
    """NVML writes 8 digits of the domain, the kernel 4."""
    domain, _, rest = address.lower().partition(":")
    return f"{domain[-4:]}:{rest}"


def _limit(which: int, *, hard: bool) -> int | None:
    value = resource.getrlimit(which)[hard]
    return None if value == resource.RLIM_INFINITY else value


def _switch(path: Path) -> bool | None:
    with contextlib.suppress(OSError):
        return path.read_text(encoding="utf-8").strip() in ("Y", "1")
    return None
