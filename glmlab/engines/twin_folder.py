"""A rank twin's config.json on disk, since vLLM reads models from folders."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path

from platformdirs import user_cache_path

from glmlab.catalog import Model
from glmlab.errors import RecipeError


def twin_folder(model: Model) -> Path:
    """Folder with the config.json of a model that is computed; written where it is missing.

    The folder is named after the content: a twin of a model that changed gets another one, and
    nothing is rewritten under a running engine. A file that holds something else, being cut short
    or edited, is replaced.

    Parameters
    ----------
    model : Model
        With a config and without a path.

    Raises
    ------
    RecipeError
        If the user's cache folder cannot be written.
    """
    text = json.dumps(model.config, indent=2, sort_keys=True) + "\n"
    readable = re.sub(r"[^\w.-]+", "-", Path(model.name).name)
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    folder = user_cache_path("glmlab") / "twins" / f"{readable}-{digest}"
    try:
        if not _holds(folder / "config.json", text):
            _write(folder, text)
    except OSError as error:
        raise RecipeError(
            f"model = {model.name!r}: its config.json cannot be written to {folder}"
            f" ({error.strerror or error}); set XDG_CACHE_HOME to a folder that can be"
        ) from None
    return folder


def _holds(path: Path, text: str) -> bool:
    try:
        return path.read_bytes() == text.encode()
    except FileNotFoundError:
        return False


def _write(folder: Path, text: str) -> None:
    """Put the file there whole: engines of several processes may be starting at once."""
    folder.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".config-", dir=folder)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(folder / "config.json")
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
