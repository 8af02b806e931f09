"""The GPUs of this machine, as NVIDIA's management library (NVML) tells them.

Every question may go unanswered: parts of a split GPU, laptops, old drivers and containers leave much out. An
answer that does not come is None. Numbers of constants are those of ``nvml.h``: pynvml has not all of them in
all versions, and has ``NVML_P2P_CAPS_INDEX_READ`` as a tuple by a slip of the pen.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Iterator, Sequence
from itertools import combinations
from pathlib import PurePath
from typing import Any, Literal, NamedTuple

from glmlab.machine.device import Gpu, GpuPair, GpuPath, GpuProcess
from glmlab.machine.driver_traces import driver_traces, module_version

State = Literal["present", "absent", "broken"]
Fault = Literal["library", "module", "mismatch", "lost", "other"]


_LIBRARY_NOT_FOUND = 12
# NVML_ERROR_DRIVER_NOT_LOADED, NVML_ERROR_LIB_RM_VERSION_MISMATCH
_FAULTS: dict[object, Fault] = {9: "module", 18: "mismatch"}
_LOST = (15, 16)  # NVML_ERROR_GPU_IS_LOST, NVML_ERROR_RESET_REQUIRED: no other answer is worth anything
_MOST_NVLINKS = 36  # NVML_NVLINK_MAX_LINKS
_SM, _MEMORY = 1, 2  # NVML_CLOCK_SM, NVML_CLOCK_MEM
_UNCORRECTED, _SINCE_BOOT = 1, 0  # NVML_MEMORY_ERROR_TYPE_UNCORRECTED, NVML_VOLATILE_ECC
_P2P_READ, _P2P_WRITE, _P2P_NVLINK = 0, 1, 2
_P2P_OK = 0
_P2P_REFUSALS = {
    1: "the chipset does not support it",
    2: "the GPUs do not support it",
    3: "they hang on different I/O hubs",
    4: "a registry key of the driver turns it off",
    5: "not supported",
}
_THROTTLE = {
    0x1: "idle",
    0x2: "clocks set by hand",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "too hot",
    0x40: "too hot (hardware)",
    0x80: "power brake",
    0x100: "display clocks",
}
_PATHS: dict[int, GpuPath] = {
    0: "same board",
    10: "one PCIe switch",
    20: "several PCIe switches",
    30: "host bridge",
    40: "one NUMA node",
    50: "between NUMA nodes",
}


class Gpus(NamedTuple):
    """What NVML said: the GPUs, the pairs of them, and why some are missing."""

    gpus: tuple[Gpu, ...]
    pairs: tuple[GpuPair, ...]
    state: State
    fault: Fault | None
    note: str


class _LostError(Exception):
    """A GPU that no longer answers anything."""


def ask_nvml(nvml: Any = None) -> Gpus:
    """List the GPUs; needs no CUDA context, and raises nothing.

    Parameters
    ----------
    nvml : module, optional
        Stands in for ``pynvml``, which is imported otherwise.
    """
    try:
        nvml = nvml or importlib.import_module("pynvml")
    except Exception as error:  # noqa: BLE001 (a broken package raises what it likes)
        return _none("absent", None, f"GPUs cannot be listed: pynvml cannot be imported ({_one_line(error)})")
    try:
        nvml.nvmlInit()
    except Exception as error:  # noqa: BLE001 (a driver may fail in any way; a machine is still a machine)
        return _not_initialized(error)
    try:
        return _listed(nvml)
    except Exception as error:  # noqa: BLE001 (as above)
        return _none("broken", "other", f"the NVIDIA driver failed while listing GPUs: {_one_line(error)}")
    finally:
        with contextlib.suppress(Exception):
            nvml.nvmlShutdown()


def _none(state: State, fault: Fault | None, note: str) -> Gpus:
    return Gpus((), (), state, fault, note)


def _not_initialized(error: Exception) -> Gpus:
    value = getattr(error, "value", None)
    seen = driver_traces()
    if value == _LIBRARY_NOT_FOUND and not seen:
        return _none("absent", None, "no NVIDIA driver on this machine")
    if value == _LIBRARY_NOT_FOUND:
        return _none("broken", "library", f"libnvidia-ml.so.1 is missing, though {' and '.join(seen)}")
    version = f"; the kernel module is {loaded}" if (loaded := module_version()) else ""
    note = f"the NVIDIA driver does not answer: {_one_line(error)}{version}"
    return _none("broken", _FAULTS.get(value, "other"), note)


def _listed(nvml: Any) -> Gpus:
    driver = _text(_Asked(nvml)("nvmlSystemGetDriverVersion") or "of unknown version")
    gpus: list[Gpu] = []
    handles: list[Any] = []
    lost: list[str] = []
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
            gpus.append(_gpu(_Asked(nvml, handle), index, driver))
            handles.append(handle)
        except Exception as error:  # noqa: BLE001 (the other GPUs are still worth telling)
            lost.append(f"GPU {index} does not answer: {_one_line(error)}")
    pairs = tuple(_pairs(nvml, gpus, handles))
    if lost:
        return Gpus(tuple(gpus), pairs, "broken", "lost", "; ".join(lost))
    if not gpus:
        return _none("absent", None, f"the NVIDIA driver {driver} finds no GPU")
    return Gpus(tuple(gpus), pairs, "present", None, "")


class _Asked:
    """Questions to NVML about one GPU; None for what is not answered."""

    def __init__(self, nvml: Any, *handles: Any) -> None:
        self.nvml = nvml
        self._handles = handles

    def __call__(self, function: str, *args: Any) -> Any:
        try:
            return getattr(self.nvml, function)(*self._handles, *args)
        except Exception as error:  # noqa: BLE001 (not supported, not permitted, not in this pynvml, a bug)
            if getattr(error, "value", None) in _LOST:
                raise _LostError(_one_line(error)) from None
            return None

    def watts(self, function: str) -> float | None:
        """An answer in milliwatts, in watts."""
        return None if (told := self(function)) is None else told / 1e3

    def at(self, place: int, function: str, *args: Any) -> Any:
        """One part of an answer that has several."""
        return None if (told := self(function, *args)) is None else told[place]


def _gpu(ask: _Asked, index: int, driver: str) -> Gpu:
    memory = ask("nvmlDeviceGetMemoryInfo")
    capability = ask("nvmlDeviceGetCudaComputeCapability")
    highest_mw = ask.at(1, "nvmlDeviceGetPowerManagementLimitConstraints")
    pci = ask("nvmlDeviceGetPciInfo")
    rows = ask("nvmlDeviceGetRemappedRows")
    mig = ask.at(0, "nvmlDeviceGetMigMode")
    ecc = ask.at(0, "nvmlDeviceGetEccMode")
    active, inactive, peers = _nvlinks(ask)
    return Gpu(
        index=index,
        name=_text(ask("nvmlDeviceGetName") or "unknown NVIDIA GPU"),
        uuid=_text(ask("nvmlDeviceGetUUID") or ""),
        capability=None if capability is None else "{}.{}".format(*capability),
        memory_bytes=None if memory is None else memory.total,
        memory_used_bytes=None if memory is None else memory.used,
        driver=driver,
        pcie_generation=ask("nvmlDeviceGetMaxPcieLinkGeneration"),
        pcie_width=ask("nvmlDeviceGetCurrPcieLinkWidth"),
        power_limit_w=ask.watts("nvmlDeviceGetEnforcedPowerLimit"),
        sm_clock_mhz=ask("nvmlDeviceGetClockInfo", _SM),
        memory_clock_mhz=ask("nvmlDeviceGetClockInfo", _MEMORY),
        temperature_c=ask("nvmlDeviceGetTemperature", 0),
        processes=tuple(_processes(ask)),
        pci_address=None if pci is None else _text(pci.busId),
        pcie_generation_now=ask("nvmlDeviceGetCurrPcieLinkGeneration"),
        pcie_generation_card=ask("nvmlDeviceGetGpuMaxPcieLinkGeneration"),
        pcie_width_max=ask("nvmlDeviceGetMaxPcieLinkWidth"),
        nvlinks_active=active,
        nvlinks_inactive=inactive,
        nvlink_peers=peers,
        sm_clock_max_mhz=ask("nvmlDeviceGetMaxClockInfo", _SM),
        memory_clock_max_mhz=ask("nvmlDeviceGetMaxClockInfo", _MEMORY),
        memory_bus_bits=ask("nvmlDeviceGetMemoryBusWidth"),
        throttle_reasons=_throttle_reasons(ask),
        power_draw_w=ask.watts("nvmlDeviceGetPowerUsage"),
        power_default_w=ask.watts("nvmlDeviceGetPowerManagementDefaultLimit"),
        power_max_w=None if highest_mw is None else highest_mw / 1e3,
        ecc_enabled=None if ecc is None else bool(ecc),
        ecc_uncorrected=ask("nvmlDeviceGetTotalEccErrors", _UNCORRECTED, _SINCE_BOOT),
        # corrected, uncorrected, waiting for a reset, failed
        rows_failed=None if rows is None else bool(rows[2] or rows[3]),
        mig_enabled=None if mig is None else bool(mig),
    )


def _nvlinks(ask: _Asked) -> tuple[int | None, int | None, tuple[str, ...]]:
    """How many links are up and down, and where those that are up end."""
    states = []
    for link in range(_MOST_NVLINKS):
        if (state := ask("nvmlDeviceGetNvLinkState", link)) is None:
            break  # a GPU has links 0 to n - 1, and refuses the others
        states.append(bool(state))
    if not states:
        return None, None, ()
    ends = (ask("nvmlDeviceGetNvLinkRemotePciInfo", link) for link, up in enumerate(states) if up)
    peers = dict.fromkeys(_text(end.busId) for end in ends if end is not None)
    return sum(states), len(states) - sum(states), tuple(peers)


def _throttle_reasons(ask: _Asked) -> tuple[str, ...] | None:
    # The second is the name of older drivers.
    bits = ask("nvmlDeviceGetCurrentClocksEventReasons")
    if bits is None:
        bits = ask("nvmlDeviceGetCurrentClocksThrottleReasons")
    return None if bits is None else tuple(name for bit, name in _THROTTLE.items() if bits & bit)


def _processes(ask: _Asked) -> Iterator[GpuProcess]:
    """Those that compute, then those that draw; one that does both is told once."""
    told: set[int] = set()
    for function in ("nvmlDeviceGetComputeRunningProcesses", "nvmlDeviceGetGraphicsRunningProcesses"):
        for row in ask(function) or ():
            if row.pid not in told:
                told.add(row.pid)
                name = _Asked(ask.nvml)("nvmlSystemGetProcessName", row.pid)
                # Its file name only: arguments are nobody's business.
                short = PurePath(_text(name).split(" ")[0]).name if name else None
                yield GpuProcess(pid=row.pid, memory_used_bytes=row.usedGpuMemory, name=short)


def _pairs(nvml: Any, gpus: Sequence[Gpu], handles: Sequence[Any]) -> Iterator[GpuPair]:
    for (first, one), (second, other) in combinations(zip(gpus, handles, strict=True), 2):
        with contextlib.suppress(_LostError):  # it was told above, or the next run will
            ask = _Asked(nvml, one, other)
            read, write, nvlink = (
                ask("nvmlDeviceGetP2PStatus", index) for index in (_P2P_READ, _P2P_WRITE, _P2P_NVLINK)
            )
            refusal = next((each for each in (read, write) if each not in (None, _P2P_OK)), None)
            yield GpuPair(
                first=first.index,
                second=second.index,
                read=None if read is None else read == _P2P_OK,
                write=None if write is None else write == _P2P_OK,
                why_not="" if refusal is None else _P2P_REFUSALS.get(refusal, "the driver gives no reason"),
                nvlink=None if nvlink is None else nvlink == _P2P_OK,
                path=_PATHS.get(ask("nvmlDeviceGetTopologyCommonAncestor")),
            )


def _text(value: str | bytes) -> str:
    """Older nvidia-ml-py gives bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _one_line(error: Exception) -> str:
    try:
        return " ".join(str(error).split()) or type(error).__name__
    except Exception:  # noqa: BLE001 (pynvml asks the driver for its words, which may fail too)
        return type(error).__name__
