"""What shows that a machine has NVIDIA GPUs, when their driver does not answer."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

_PCI_DEVICES = Path("/sys/bus/pci/devices")
_KERNEL_MODULE = Path("/proc/driver/nvidia/version")
# Vendor, and the class of display controllers, as the kernel writes them.
_NVIDIA, _DISPLAY_CLASS = "0x10de", "0x03"


def driver_traces() -> tuple[str, ...]:
    """What shows that there should be a driver, each as the end of a sentence."""
    return tuple(_traces())


def _traces() -> Iterator[str]:
    if shutil.which("nvidia-smi"):
        yield "nvidia-smi is there"
    if version := module_version():
        yield f"the kernel module {version} is loaded"
    cards = 0
    with contextlib.suppress(OSError):
        for device in _PCI_DEVICES.iterdir():
            with contextlib.suppress(OSError):
                vendor, kind = ((device / name).read_text().strip() for name in ("vendor", "class"))
                cards += vendor == _NVIDIA and kind.startswith(_DISPLAY_CLASS)
    if cards:
        yield f"{cards} NVIDIA {'card is' if cards == 1 else 'cards are'} on the PCI bus"


def module_version() -> str:
    """Of the loaded kernel module, such as 580.95.05; empty where none is."""
    with contextlib.suppress(OSError):
        words = _KERNEL_MODULE.read_text(encoding="utf-8", errors="replace").split()
        return next((word for word in words if word[0].isdigit() and "." in word), "")
    return ""
