"""Tuned tile files of the fused-MoE kernel that ship inside vLLM, by name."""

from __future__ import annotations

from functools import lru_cache

from glmlab.data_folders import data_folders
from glmlab.errors import RuleError
from glmlab.yaml_text import load_yaml


def tuned_file(name: str) -> bool:
    """Whether vLLM, or the user's own list in ``moe_files/``, has a file of this name."""
    return name in _known(tuple(str(folder) for folder in data_folders("moe_files")))


@lru_cache(maxsize=8)
def _known(_folders: tuple[str, ...]) -> frozenset[str]:
    names: set[str] = set()
    for folder in data_folders("moe_files"):
        for path in sorted(folder.glob("*.yaml")):
            document = load_yaml(path, RuleError)
            listed = document.get("files") if isinstance(document, dict) else None
            if not isinstance(listed, list) or not all(isinstance(each, str) for each in listed):
                raise RuleError(f"{path}: files: expected a list of file names")
            names.update(listed)
    return frozenset(names)
