"""One GPU of this machine as its driver tells it, and how two of them reach each other."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

GpuPath = Literal[
    "same board",
    "one PCIe switch",
    "several PCIe switches",
    "host bridge",
    "one NUMA node",
    "between NUMA nodes",
]


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class GpuProcess(_Record):
    """A process on a GPU; what the driver keeps to itself, as it does in containers, is None."""

    pid: int
    memory_used_bytes: int | None
    name: str | None = None


class GpuPair(_Record):
    """Whether two GPUs reach each other's memory.

    Attributes
    ----------
    read, write : bool or None
        Whether the first may read, and write, the second's memory.
    why_not : str
        The driver's reason where it may not.
    nvlink : bool or None
        Whether that goes over NVLink.
    path : str or None
        The nearest thing in the PCIe tree that both hang on.
    """

    first: int
    second: int
    read: bool | None
    write: bool | None
    why_not: str
    nvlink: bool | None
    path: GpuPath | None


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
    pcie_generation_now, pcie_generation_card : int or None
        In use now, and the highest of the card in any slot.
    pcie_width_max : int or None
        Lanes that card and slot agree on.
    nvlinks_active, nvlinks_inactive : int or None
        Links of NVLink that are up, and that are not.
    nvlink_peers : tuple of str
        Where they end: the PCI address of a GPU or a switch.
    throttle_reasons : tuple of str or None
        Why the clocks are not higher just now; empty where nothing holds them.
    power_default_w, power_max_w : float or None
        The limit it left the factory with, and the highest that may be set.
    ecc_enabled : bool or None
    ecc_uncorrected : int or None
        Memory errors since the driver was loaded that could not be mended.
    rows_failed : bool or None
        Whether memory rows are worn and could not be replaced, or wait for a reset to be.
    mig_enabled : bool or None
        Whether it is split into parts.
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
    pci_address: str | None = None
    pcie_generation_now: int | None = None
    pcie_generation_card: int | None = None
    pcie_width_max: int | None = None
    nvlinks_active: int | None = None
    nvlinks_inactive: int | None = None
    nvlink_peers: tuple[str, ...] = ()
    sm_clock_max_mhz: int | None = None
    memory_clock_max_mhz: int | None = None
    memory_bus_bits: int | None = None
    throttle_reasons: tuple[str, ...] | None = None
    power_draw_w: float | None = None
    power_default_w: float | None = None
    power_max_w: float | None = None
    ecc_enabled: bool | None = None
    ecc_uncorrected: int | None = None
    rows_failed: bool | None = None
    mig_enabled: bool | None = None
