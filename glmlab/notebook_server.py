"""JupyterLab at glmlab's notebooks, for this machine alone."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from glmlab.errors import InputError, InstallError

COPIES = "glmlab-notebooks"
_PACKAGE = Path(__file__).parent
# What would let other machines in; the traits' older names too.
_OPENS = re.compile(r"--(?:ip|\w*App\.(?:ip|allow_remote_access|allow_origin\w*))(?:=|$)")


@dataclass(frozen=True)
class Notebooks:
    """A folder with the notebooks, to be worked in.

    Attributes
    ----------
    folder : Path
        Absolute.
    copied : tuple of str
        What was put there just now.
    kept : tuple of str
        What is there already and is another text than the packaged one: the user's, or an older one's.
    """

    folder: Path
    copied: tuple[str, ...] = field(default=())
    kept: tuple[str, ...] = field(default=())


def notebooks(here: Path | None = None) -> Notebooks:
    """The notebooks of this checkout; of an installed package, copies of them.

    Parameters
    ----------
    here : Path, optional
        Where the folder ``glmlab-notebooks`` with the copies is; the current folder by default.

    Raises
    ------
    InputError
        If the copies cannot be written.
    """
    packaged = _PACKAGE / "notebooks"
    if packaged.is_dir():
        return copy_notebooks(packaged, (here or Path.cwd()) / COPIES)
    checkout = _PACKAGE.parent / "notebooks"
    if checkout.is_dir():
        return Notebooks(checkout)
    raise InstallError(f"notebooks: neither in {_PACKAGE} nor beside it; install glmlab again")


def copy_notebooks(source: Path, target: Path) -> Notebooks:
    """Copy what is missing; what is there is never written over."""
    copied, kept = [], []
    try:
        target.mkdir(exist_ok=True)
        for file in sorted(source.glob("*.ipynb")):
            place = target / file.name
            if not place.exists():
                work = place.with_name(f".{file.name}.part")
                shutil.copyfile(file, work)
                work.replace(place)
                copied.append(file.name)
            elif place.read_bytes() != file.read_bytes():
                kept.append(file.name)
    except OSError as error:
        raise InputError(f"{target}: the notebooks cannot be put there ({error.strerror or error})") from None
    return Notebooks(target.resolve(), tuple(copied), tuple(kept))


def check_arguments(extra: Sequence[str]) -> None:
    """Refuse what JupyterLab cannot be given, or cannot be had at all.

    Raises
    ------
    InputError
        For an argument that would let other machines in.
    InstallError
        If JupyterLab is not installed.
    """
    for argument in extra:
        if _OPENS.match(argument):
            raise InputError(
                f"{argument}: glmlab lab answers to this machine only; from another, forward the port:"
                " ssh -L 8888:127.0.0.1:8888 HOST"
            )
    if find_spec("jupyterlab") is None:
        raise InstallError("jupyterlab: not installed; pip install 'glmlab[lab,dashboard]' to have it")


def lab_command(folder: Path, extra: Sequence[str] = ()) -> list[str]:
    """What starts JupyterLab on a folder, on 127.0.0.1; ``extra`` are further arguments for it."""
    # In a container everybody is root, and JupyterLab then wants to be told that this is meant.
    root = ["--allow-root"] if os.geteuid() == 0 and "--allow-root" not in extra else []
    return [sys.executable, "-m", "jupyterlab", *root, *extra, "--ip=127.0.0.1", str(folder)]


def become_lab(command: Sequence[str]) -> NoReturn:
    """Turn this process into JupyterLab, so that Ctrl-C and its exit code are JupyterLab's own."""
    sys.stdout.flush()
    os.execv(command[0], list(command))  # noqa: S606 (a list, no shell)


def to_json(found: Notebooks, command: Sequence[str]) -> dict[str, Any]:
    """Where the notebooks are, and what is started."""
    return {
        "folder": str(found.folder),
        "copied": list(found.copied),
        "kept": list(found.kept),
        "command": list(command),
    }
