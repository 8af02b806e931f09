"""A stand-in for pynvml: GPUs that answer as they are told to, and drivers that fail."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

NOT_SUPPORTED, NO_PERMISSION, LOST = 3, 4, 15

PRO_6000 = {
    "nvmlDeviceGetName": "NVIDIA RTX PRO 6000 Blackwell Workstation Edition",
    "nvmlDeviceGetCudaComputeCapability": (12, 0),
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=102_641_958_912, used=500_000_000),
    "nvmlDeviceGetMaxPcieLinkGeneration": 5,
    "nvmlDeviceGetCurrPcieLinkGeneration": 1,
    "nvmlDeviceGetGpuMaxPcieLinkGeneration": 5,
    "nvmlDeviceGetCurrPcieLinkWidth": 16,
    "nvmlDeviceGetMaxPcieLinkWidth": 16,
    "nvmlDeviceGetEnforcedPowerLimit": 600_000,
    "nvmlDeviceGetPowerManagementDefaultLimit": 600_000,
    "nvmlDeviceGetPowerManagementLimitConstraints": [150_000, 600_000],
    "nvmlDeviceGetPowerUsage": 31_500,
    "nvmlDeviceGetClockInfo": lambda clock: {1: 180, 2: 405}[clock],
    "nvmlDeviceGetMaxClockInfo": lambda clock: {1: 3090, 2: 14001}[clock],
    "nvmlDeviceGetMemoryBusWidth": 512,
    "nvmlDeviceGetTemperature": lambda sensor: 41,
    "nvmlDeviceGetCurrentClocksEventReasons": 0x1,
    "nvmlDeviceGetEccMode": [1, 1],
    "nvmlDeviceGetTotalEccErrors": lambda kind, since: 0,
    "nvmlDeviceGetRemappedRows": (0, 0, 0, 0),
    "nvmlDeviceGetMigMode": [0, 0],
    "nvmlDeviceGetComputeRunningProcesses": [],
    "nvmlDeviceGetGraphicsRunningProcesses": [],
}
H100 = PRO_6000 | {
    "nvmlDeviceGetName": "NVIDIA H100 80GB HBM3",
    "nvmlDeviceGetCudaComputeCapability": (9, 0),
    "nvmlDeviceGetMemoryInfo": SimpleNamespace(total=85_520_809_984, used=500_000_000),
    "nvmlDeviceGetMemoryBusWidth": 5120,
    "nvmlDeviceGetMaxClockInfo": lambda clock: {1: 1980, 2: 2619}[clock],
    "nvmlDeviceGetEnforcedPowerLimit": 700_000,
    "nvmlDeviceGetPowerManagementDefaultLimit": 700_000,
    "nvmlDeviceGetNvLinkState": lambda link: 1 if link < 18 else refuse(2),
    "nvmlDeviceGetNvLinkRemotePciInfo": lambda link: SimpleNamespace(busId=f"00000000:0{link % 4}:00.0"),
}


class NvmlError(Exception):
    """As pynvml's: it carries the number of the error."""

    def __init__(self, value: int, message: str = "") -> None:
        super().__init__(message or f"error {value}")
        self.value = value


def refuse(value: int = NOT_SUPPORTED, message: str = "Not Supported") -> Any:
    """Answer with an error, inside a lambda too."""
    raise NvmlError(value, message)


class Nvml:
    """Answers with what a table says: a value, or a function of the arguments after the GPU.

    Parameters
    ----------
    *gpus : dict
        One table for each GPU; what it has not is not supported.
    peers : callable
        Of the two indices and the kind of access; gives a status of ``nvml.h``.
    path : int
        What two GPUs hang on.
    broken : dict
        Function -> what it raises, for all GPUs.
    """

    NVMLError = NvmlError

    def __init__(
        self,
        *gpus: dict[str, Any],
        peers: Callable[[int, int, int], int] = lambda first, second, kind: 0 if kind < 2 else 5,
        path: int = 30,
        broken: dict[str, Exception] | None = None,
    ) -> None:
        self._gpus, self._peers, self._path, self._broken = gpus, peers, path, broken or {}
        self.running = 0
        self.asked: set[str] = set()

    def __getattr__(self, function: str) -> Callable[..., Any]:
        if not function.startswith("nvml"):
            raise AttributeError(function)

        def answer(*args: Any) -> Any:
            self.asked.add(function)
            if function in self._broken:
                raise self._broken[function]
            return self._answer(function, *args)

        return answer

    def _answer(self, function: str, *args: Any) -> Any:
        match function:
            case "nvmlInit":
                self.running += 1
                return None
            case "nvmlShutdown":
                self.running -= 1
                return None
            case "nvmlSystemGetDriverVersion":
                return "580.95.05"
            case "nvmlSystemGetProcessName":
                return b"/usr/bin/python3 serve.py --token secret"
            case "nvmlDeviceGetCount":
                return len(self._gpus)
            case "nvmlDeviceGetHandleByIndex":
                return args[0]
            case "nvmlDeviceGetUUID":
                return f"GPU-{args[0]}"
            case "nvmlDeviceGetPciInfo":
                return SimpleNamespace(busId=f"00000000:{args[0] + 1:02X}:00.0")
            case "nvmlDeviceGetP2PStatus":
                return self._peers(*args)
            case "nvmlDeviceGetTopologyCommonAncestor":
                return self._path
        index, *rest = args
        if function not in self._gpus[index]:
            refuse()
        told = self._gpus[index][function]
        return told(*rest) if callable(told) else told


def process(pid: int, used: int | None = None) -> SimpleNamespace:
    """One row of the processes on a GPU."""
    return SimpleNamespace(pid=pid, usedGpuMemory=used)
