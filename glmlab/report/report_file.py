"""The file: written whole or not at all, and never over something that is no report."""

from __future__ import annotations

import secrets
import shutil
from pathlib import Path

from glmlab.errors import ExportError
from glmlab.report.material import Material
from glmlab.report.page import GENERATOR, page
from glmlab.storage import StudyStore

_MOST_BYTES = 5_000_000
_MOST_ROWS = (150, 40, 10)  # of a chart's table: fewer where the page would be too large
_HEAD_BYTES = 4096  # the generator is named in here


def write_report(store: StudyStore, path: str | Path) -> Path:
    """Write a study as one HTML file that loads nothing, under 5 MB.

    Parameters
    ----------
    store : StudyStore
        The study; finished, running or failed.
    path : str or Path
        A new file, or an earlier report, which is replaced.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    ExportError
        If there is another file of this name, or it cannot be written; nothing is then left
        half-written.
    """
    target = Path(path)
    check_target(target)
    material = Material.read(store)
    for most_rows in _MOST_ROWS:
        content = page(material, most_rows).encode("utf-8")
        if len(content) < _MOST_BYTES:
            break
    else:
        raise ExportError(
            f"{target}: the report of study {store.name!r} would have {len(content) / 1e6:.1f} MB, at most"
            f" {_MOST_BYTES / 1e6:.0f} are allowed; `glmlab export` writes everything"
        )
    _write(target, content)
    return target


def check_target(target: Path) -> None:
    """Refuse a place where no report can go, before anything is worked out.

    Raises
    ------
    ExportError
        With what is there.
    """
    folder = target.resolve().parent
    if not folder.is_dir():
        raise ExportError(f"{target}: the folder {folder} does not exist; make it first")
    if target.is_dir():
        raise ExportError(f"{target}: is a folder; name a file, e.g. {target / 'report.html'}")
    if target.exists() and not is_report(target):
        raise ExportError(f"{target}: exists and is no glmlab report; name another file")


def is_report(path: Path) -> bool:
    """Whether a file was written by :func:`write_report`."""
    try:
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except OSError as error:
        raise ExportError(f"{path}: cannot be read ({error.strerror})") from None
    return f'<meta name="generator" content="{GENERATOR} '.encode() in head


def _write(target: Path, content: bytes) -> None:
    """Into a neighbour first, which then takes the name: a reader sees the old file or the new one."""
    place = target.resolve()
    work = place.with_name(f".{place.name}-{secrets.token_hex(4)}")
    try:
        try:
            with work.open("xb") as file:  # readable to whom the user's umask says
                file.write(content)
            if place.exists():
                shutil.copymode(place, work)
            work.replace(place)
        except BaseException:
            work.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ExportError(f"{target}: cannot be written ({error.strerror or error})") from None
