"""glmlab: tune a GLM model on your own GPUs without restarting the engine.

``import glmlab`` is cheap: what needs vLLM, torch or Optuna is imported on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glmlab.diagnosis import doctor
    from glmlab.engines import Engine, start
    from glmlab.errors import GlmlabError
    from glmlab.knobs import KnobSpace
    from glmlab.measurement import Measurement
    from glmlab.memory import fit
    from glmlab.plans import plan
    from glmlab.plans.beside_measured import predicted_beside_measured
    from glmlab.predictor import predict
    from glmlab.recipe import Recipe
    from glmlab.recipe_book import find_recipe
    from glmlab.rules import check
    from glmlab.session import Session, attach
    from glmlab.study import Study
    from glmlab.widgets import Workbench
    from glmlab.workload import Workload

__version__ = "0.1.0"

_HOME = {
    "Engine": "glmlab.engines",
    "GlmlabError": "glmlab.errors",
    "KnobSpace": "glmlab.knobs",
    "Measurement": "glmlab.measurement",
    "Recipe": "glmlab.recipe",
    "Session": "glmlab.session",
    "Study": "glmlab.study",
    "Workbench": "glmlab.widgets",
    "Workload": "glmlab.workload",
    "attach": "glmlab.session",
    "check": "glmlab.rules",
    "doctor": "glmlab.diagnosis",
    "find_recipe": "glmlab.recipe_book",
    "fit": "glmlab.memory",
    "plan": "glmlab.plans",
    "predict": "glmlab.predictor",
    "predicted_beside_measured": "glmlab.plans.beside_measured",
    "start": "glmlab.engines",
}

__all__ = [
    "Engine",
    "GlmlabError",
    "KnobSpace",
    "Measurement",
    "Recipe",
    "Session",
    "Study",
    "Workbench",
    "Workload",
    "attach",
    "check",
    "doctor",
    "find_recipe",
    "fit",
    "plan",
    "predict",
    "predicted_beside_measured",
    "start",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'glmlab' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
