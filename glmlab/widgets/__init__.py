"""Widgets for notebooks: the workbench and the pieces that it is made of.

Each piece is a box of ipywidgets and can be shown alone. Importing this package imports none of them yet.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glmlab.widgets.findings import FindingsPanel
    from glmlab.widgets.machine_picker import MachinePicker
    from glmlab.widgets.memory_panel import MemoryPanel
    from glmlab.widgets.model_picker import ModelPicker
    from glmlab.widgets.notice import Notice
    from glmlab.widgets.play import Play
    from glmlab.widgets.settings_form import SettingsForm
    from glmlab.widgets.setup import Setup

_HOME = {
    "FindingsPanel": "findings",
    "MachinePicker": "machine_picker",
    "MemoryPanel": "memory_panel",
    "ModelPicker": "model_picker",
    "Notice": "notice",
    "Play": "play",
    "SettingsForm": "settings_form",
    "Setup": "setup",
}

__all__ = [
    "FindingsPanel",
    "MachinePicker",
    "MemoryPanel",
    "ModelPicker",
    "Notice",
    "Play",
    "SettingsForm",
    "Setup",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]
