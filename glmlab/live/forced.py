"""Knobs that this process has been asked for, whatever vLLM would choose by itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Knob -> value; a knob that is missing is left to vLLM. One per process, like the modules of vLLM
# that read it: a process runs one engine at a time.
_forced: dict[str, Any] = {}


def reset(knobs: Mapping[str, Any]) -> None:
    """Start over, for a new engine of this process."""
    _forced.clear()
    _forced.update(knobs)


def force(name: str, value: Any) -> None:
    """Ask for a value."""
    _forced[name] = value


def release(name: str) -> None:
    """Leave a knob to vLLM again."""
    _forced.pop(name, None)


def forced(name: str) -> Any:
    """The value asked for, ``None`` where vLLM decides."""
    return _forced.get(name)
