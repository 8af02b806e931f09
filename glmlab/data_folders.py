"""Where facts are read from: the packaged data, with the user's own folder laid over it."""

from __future__ import annotations

import os
from pathlib import Path

from glmlab.errors import RecipeError

DATA_VARIABLE = "GLMLAB_DATA"
PACKAGED_DATA = Path(__file__).parent / "data"


def data_folders(kind: str) -> tuple[Path, ...]:
    """Folders that hold one kind of fact; a later one wins over an earlier one, name by name.

    Parameters
    ----------
    kind : str
        Name of the subfolder, e.g. ``"recipes"``.

    Raises
    ------
    RecipeError
        If ``GLMLAB_DATA`` names a folder that is not there.
    """
    folders = [PACKAGED_DATA / kind]
    own = os.environ.get(DATA_VARIABLE, "")
    if own:
        root = Path(own).expanduser()
        if not root.is_dir():
            raise RecipeError(f"{DATA_VARIABLE} = {own!r}: no such folder; correct the variable or unset it")
        folders.append(root / kind)
    return tuple(folder for folder in folders if folder.is_dir())
