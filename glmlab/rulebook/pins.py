"""What a release of an engine pins, from ``data/pins``."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from packaging.version import Version

from glmlab.data_folders import data_folders
from glmlab.errors import RuleError
from glmlab.version_range import PACKAGES, is_version, same_version
from glmlab.yaml_text import load_yaml


def pinned_by(engine: str, version: str) -> Mapping[str, str]:
    """Package -> version that this release of an engine pins; empty where nobody looked.

    Raises
    ------
    RuleError
        For a pin of a user's own that is no version.
    """
    pins = _pins(tuple(str(folder) for folder in data_folders("pins"))).get(engine, {})
    return next((brought for release, brought in pins.items() if same_version(release, version)), {})


def newest_release(engine: str) -> str | None:
    """The newest release of an engine whose pins were looked up; None where nobody looked.

    Raises
    ------
    RuleError
        For a pin of a user's own that is no version.
    """
    releases = _pins(tuple(str(folder) for folder in data_folders("pins"))).get(engine, {})
    return max(releases, key=Version, default=None)


@lru_cache(maxsize=8)
def _pins(_folders: tuple[str, ...]) -> dict[str, dict[str, dict[str, str]]]:
    found: dict[str, dict[str, dict[str, str]]] = {}
    for folder in data_folders("pins"):
        for path in sorted(folder.glob("*.yaml")):
            document = load_yaml(path, RuleError)
            for engine, releases in document.items() if isinstance(document, dict) else ():
                if engine == "source":
                    continue
                for release, brought in releases.items() if isinstance(releases, dict) else ():
                    right = isinstance(brought, dict) and all(
                        name in PACKAGES and is_version(version) for name, version in brought.items()
                    )
                    if not is_version(release) or not right:
                        raise RuleError(f"{path}: {engine}.{release}: expected a version and what it pins")
                    found.setdefault(str(engine), {})[str(release)] = {
                        str(name): str(version) for name, version in brought.items()
                    }
    return found
