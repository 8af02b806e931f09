"""Dashboard: optuna-dashboard on glmlab's studies, with what glmlab has to say about them."""

from glmlab.errors import InstallError

try:
    import optuna_dashboard as _  # noqa: F401
except ModuleNotFoundError as error:  # pragma: no cover - needs an installation without the extra
    raise InstallError(
        "optuna-dashboard: not installed; pip install 'glmlab[lab,dashboard]' to have it"
    ) from error

from glmlab.dashboard.dressing import Dressed, artifact_folder, dress
from glmlab.dashboard.server import Dashboard, serve

__all__ = ["Dashboard", "Dressed", "artifact_folder", "dress", "serve"]
