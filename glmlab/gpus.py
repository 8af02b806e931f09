"""GPUs by name, and which of them a card of this machine is."""

from __future__ import annotations

import os
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

from glmlab import hardware
from glmlab.data_folders import DATA_VARIABLE, PACKAGED_DATA, data_folders
from glmlab.errors import GpuError
from glmlab.machine.gpu import Disagreement, Gpu
from glmlab.machine.gpu_file import read_gpu_file
from glmlab.names import did_you_mean

__all__ = ["Disagreement", "Gpu", "find_gpu", "gpu_of_device", "gpu_of_device_name", "list_gpus"]

_PACKAGED = PACKAGED_DATA / "gpus"
_NAME = re.compile(r"[a-z0-9][a-z0-9.-]*")
# A driver's clock may be a little above the datasheet's, which is rounded. More than that is counted
# otherwise: a Max-Q was seen to say 15,865 MHz where its memory is of 14,001 (rtx6kpro,
# hardware/blackwell-power-limit-sweep.md).
_CLOCK_TOLERANCE = 1.02


def list_gpus() -> tuple[str, ...]:
    """Names of the packaged GPUs and of those in ``GLMLAB_DATA``, sorted."""
    return tuple(sorted(_files()))


def find_gpu(name: str) -> Gpu:
    """Look a GPU up.

    Parameters
    ----------
    name : str
        One of :func:`list_gpus`.

    Raises
    ------
    GpuError
        If there is none of that name, or its file is wrong; then with the line.
    """
    files = _files()
    path = files.get(str(name))
    if path is None:
        raise GpuError(f"gpu = {name!r}: no such GPU{did_you_mean(str(name).lower(), files)}")
    # A user's own file may change while a notebook lives; the packaged ones do not.
    return _read(path, 0 if path.parent == _PACKAGED else path.stat().st_mtime_ns)


def gpu_of_device_name(name: str) -> Gpu | None:
    """Which GPU of the catalog has this name with its driver; None where the catalog has none."""
    return _by_device_name().get(_plain(name))


def gpu_of_device(gpu: hardware.Gpu) -> Gpu | None:
    """Which GPU of the catalog a card of this machine is, with what its driver says put over it.

    Memory, capability, PCIe link and power limit are the driver's. The bandwidth follows from the highest
    memory clock and the width of the bus where the driver tells both and they can be true.

    Parameters
    ----------
    gpu : hardware.Gpu
        A card as :func:`glmlab.hardware.machine` found it.

    Returns
    -------
    Gpu or None
        None for a card that the catalog has not, and for one that is split (MIG): a part has neither the
        memory nor the multiprocessors of the whole.
    """
    known = None if gpu.mig_enabled else gpu_of_device_name(gpu.name)
    if known is None:
        return None
    told = f"NVML on this machine, driver {gpu.driver}"
    disagreements = list(known.disagreements)
    changes: dict[str, Any] = {
        "capability": gpu.capability,
        "memory_bytes": gpu.memory_bytes,
        "pcie_generation": gpu.pcie_generation,
        "pcie_lanes": gpu.pcie_width,
        "power_w": gpu.power_limit_w,
    }
    if gpu.memory_bytes:
        # What CUDA keeps to itself is taken as the catalog's.
        kept = known.memory_bytes - known.usable_memory_bytes
        changes["usable_memory_bytes"] = max(0, gpu.memory_bytes - kept)
    bandwidth = _told_bandwidth(gpu)
    if bandwidth and bandwidth <= known.bandwidth_gb_s * _CLOCK_TOLERANCE:
        changes["bandwidth_gb_s"] = bandwidth
        if known.loaded_bandwidth_gb_s:
            changes["loaded_bandwidth_gb_s"] = min(known.loaded_bandwidth_gb_s, bandwidth)
    elif bandwidth:
        disagreements.append(
            Disagreement(
                field="bandwidth_gb_s",
                used=known.bandwidth_gb_s,
                says=bandwidth,
                source=told,
                note="more than its memory can do, so that clock is counted otherwise",
            )
        )
    changes = {key: value for key, value in changes.items() if value and value != getattr(known, key)}
    sources = known.sources | dict.fromkeys(changes, told)
    return known.model_copy(update={**changes, "sources": sources, "disagreements": disagreements})


def _told_bandwidth(gpu: hardware.Gpu) -> float | None:
    """GB/s of two transfers a clock over the whole bus, as CUDA's deviceQuery sample computes it."""
    if gpu.memory_clock_max_mhz is None or gpu.memory_bus_bits is None:
        return None
    return round(gpu.memory_clock_max_mhz * 1e6 * 2 * gpu.memory_bus_bits / 8 / 1e9, 1)


def _plain(device_name: str) -> str:
    """A device's name without what drivers write one way or another: case, spaces, the maker."""
    return " ".join(device_name.casefold().split()).removeprefix("nvidia ")


def _by_device_name() -> dict[str, Gpu]:
    found = map(find_gpu, list_gpus())
    return {_plain(name): gpu for gpu in found for name in gpu.device_names}


def _files() -> dict[str, Path]:
    """File of each GPU by its name, the user's own over the packaged ones."""
    if not os.environ.get(DATA_VARIABLE):
        return _packaged()
    files = dict(_packaged())
    for folder in data_folders(_PACKAGED.name):
        if folder != _PACKAGED:
            files |= _in_folder(folder)
    return files


@lru_cache(maxsize=1)
def _packaged() -> dict[str, Path]:
    return _in_folder(_PACKAGED)


def _in_folder(folder: Path) -> dict[str, Path]:
    files = {file.stem: file for file in sorted(folder.iterdir()) if file.suffix in (".yaml", ".yml")}
    for name, file in files.items():
        if not _NAME.fullmatch(name):
            raise GpuError(
                f"{file}: {name!r} cannot be a GPU's name; name the file with small letters, digits, dots"
                " and hyphens, such as my-card.yaml"
            )
    return files


@lru_cache(maxsize=256)
def _read(path: Path, _stamp: int) -> Gpu:
    """Read one file once; ``_stamp`` makes a changed file another one."""
    return read_gpu_file(path)
