"""What ``glmlab gpus`` prints: this machine's GPUs, the catalog, one GPU in full."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from glmlab.gpus import gpu_of_device
from glmlab.hardware import Gpu as Device
from glmlab.hardware import GpuPair, Machine
from glmlab.machine.gpu import FORMATS, Gpu
from glmlab.roomy_table import Roomy
from glmlab.units import format_bytes

_EVIDENCE = (
    "memory in GB of 1e9 bytes; TFLOP/s dense, with FP32 accumulation; from datasheets and others'"
    " measurements: glmlab gpus NAME says which"
)

# Of the catalog, what a narrow terminal does without, the least needed first.
_SPARE = ("smem/block", "L2", "loaded", "SMs", "usable", "FP4", "BF16", "FP8", "power")


def gpus_json(catalog: Sequence[Gpu], host: Machine) -> dict[str, Any]:
    """What ``glmlab gpus --json`` prints; ``catalog`` of a device is its name there, or null."""
    devices = []
    for device in host.gpus:
        known = gpu_of_device(device)
        devices.append({**device.model_dump(mode="json"), "catalog": known.name if known else None})
    return {
        "machine": {
            "gpus": devices,
            "pairs": [pair.model_dump(mode="json") for pair in host.gpu_pairs],
            "state": host.gpu_state,
            "note": host.gpu_note,
        },
        "gpus": [gpu.to_json() for gpu in catalog],
    }


def gpus_tables(catalog: Sequence[Gpu], host: Machine) -> RenderableType:
    """GPUs of this machine on top, then the catalog."""
    parts: list[RenderableType] = [*_machine(host), Text("")]
    listing = _table(
        "catalog", ("GPU", "arch", ">SMs", ">memory", ">usable", ">GB/s", ">loaded", ">BF16", ">FP8", ">FP4",
        ">smem/block", ">L2", "link", ">power"),
    )  # fmt: skip
    for gpu in catalog:
        listing.add_row(
            gpu.name,
            gpu.architecture,
            str(gpu.sms),
            f"{gpu.memory_gb:.1f} GB",
            f"{gpu.usable_memory_bytes / 1e9:.1f} GB",
            f"{gpu.bandwidth_gb_s:,.0f}",
            _or_dash(gpu.loaded_bandwidth_gb_s),
            *(_or_dash(gpu.dense_tflops[each]) for each in FORMATS),
            f"{gpu.shared_memory_per_block_bytes:,} B",
            f"{gpu.l2_bytes / 2**20:.4g} MiB",
            _link(gpu),
            f"{gpu.power_w:.0f} W",
        )
    return Group(*parts, Roomy(listing, _SPARE), Text(_EVIDENCE, style="dim"))


def gpu_in_full(gpu: Gpu) -> RenderableType:
    """Every value with its source, then where sources disagree."""
    rows = _table(f"{gpu.name}: {gpu.title}, {gpu.architecture}", ("", "", "from"))
    for name, value, source in gpu.rows():
        rows.add_row(name, Text(value), Text(source, style="dim"))
    lines: list[RenderableType] = [rows]
    if gpu.disagreements:
        lines += [Text(""), Text("where sources disagree", style="bold")]
        lines += [Text(str(each)) for each in gpu.disagreements]
    return Group(*lines)


def device_line(device: Device) -> str:
    """One GPU of this machine in one line."""
    parts = [f"{device.name}, compute {device.capability or 'unknown'}"]
    if device.memory_bytes is not None:
        parts.append(
            f"{format_bytes(device.memory_bytes)} ({format_bytes(device.memory_used_bytes or 0)} used)"
        )
    parts.append(f"PCIe {device.pcie_generation or '?'} x{device.pcie_width or '?'}")
    if device.nvlinks_active:
        parts.append(f"{device.nvlinks_active} NVLinks")
    if device.power_limit_w is not None:
        parts.append(f"{device.power_limit_w:.0f} W")
    if device.mig_enabled:
        parts.append("split (MIG)")
    return ", ".join([*parts, f"driver {device.driver}"])


def pair_lines(pairs: Sequence[GpuPair]) -> list[str]:
    """Peer access, pairs of one kind together: ``0-1, 0-2: yes, over NVLink``."""
    kinds: dict[str, list[str]] = {}
    for pair in pairs:
        if pair.read is None and pair.write is None:
            said = "not told"
        elif pair.read is False or pair.write is False:
            said = f"no ({pair.why_not})"
        else:
            said = "yes, over NVLink" if pair.nvlink else "yes, over PCIe"
        if pair.path and not pair.nvlink:
            said += f", {pair.path}"
        kinds.setdefault(said, []).append(f"{pair.first}-{pair.second}")
    return [f"{', '.join(which)}: {said}" for said, which in kinds.items()]


def _machine(host: Machine) -> list[RenderableType]:
    if not host.gpus:
        return [Text(f"this machine: {host.gpu_note}")]
    rows = _table("this machine", ("", "", "in the catalog"))
    for device in host.gpus:
        known = gpu_of_device(device)
        rows.add_row(f"GPU {device.index}", Text(device_line(device)), known.name if known else "not there")
    for line in pair_lines(host.gpu_pairs):
        rows.add_row("peers", Text(line))
    notes: list[RenderableType] = [Text(host.gpu_note, style="yellow")] if host.gpu_note else []
    return [rows, *notes]


def _link(gpu: Gpu) -> str:
    pcie = f"PCIe {gpu.pcie_generation} x{gpu.pcie_lanes}"
    return pcie if gpu.nvlink_gb_s is None else f"NVLink {gpu.nvlink_gb_s:,.0f} GB/s"


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4g}" if value < 1e3 else f"{value:,.0f}"


def _table(title: str, columns: Sequence[str]) -> Table:
    from glmlab.render import table

    return table(*columns, title=title)
