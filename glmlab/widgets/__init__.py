"""Widgets for notebooks: the workbench and the pieces that it is made of.

Each piece is a box of ipywidgets and can be shown alone. Importing this package imports none of them yet.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glmlab.widgets.board import Board
    from glmlab.widgets.chart_box import ChartBox
    from glmlab.widgets.controls import Controls
    from glmlab.widgets.findings import FindingsPanel
    from glmlab.widgets.machine_picker import MachinePicker
    from glmlab.widgets.memory_panel import MemoryPanel
    from glmlab.widgets.model_picker import ModelPicker
    from glmlab.widgets.notice import Notice
    from glmlab.widgets.play import Play
    from glmlab.widgets.results import Results
    from glmlab.widgets.settings_form import SettingsForm
    from glmlab.widgets.setup import Setup
    from glmlab.widgets.sweep import Sweep
    from glmlab.widgets.workbench import Workbench

_HOME = {
    "Board": "board",
    "ChartBox": "chart_box",
    "Controls": "controls",
    "FindingsPanel": "findings",
    "MachinePicker": "machine_picker",
    "MemoryPanel": "memory_panel",
    "ModelPicker": "model_picker",
    "Notice": "notice",
    "Play": "play",
    "Results": "results",
    "SettingsForm": "settings_form",
    "Setup": "setup",
    "Sweep": "sweep",
    "Workbench": "workbench",
}

__all__ = [
    "Board",
    "ChartBox",
    "Controls",
    "FindingsPanel",
    "MachinePicker",
    "MemoryPanel",
    "ModelPicker",
    "Notice",
    "Play",
    "Results",
    "SettingsForm",
    "Setup",
    "Sweep",
    "Workbench",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__]
