"""Arithmetic that rules refer to by name (``holds:``), what a table of facts cannot say; and its register.

A predicate gets all facts and gives what it found, under names that the rule's texts and change may use;
an empty mapping where all is well; ``None`` where a number that it needs is not known.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Found = Mapping[str, Any] | None
FINE: Mapping[str, Any] = {}


@dataclass(frozen=True)
class Predicate:
    """Named arithmetic.

    Attributes
    ----------
    ask : callable
        Facts -> what it found.
    reads : frozenset of str
        Fields of the recipe that it looks at: a change of one of them may end the complaint.
    says : tuple of str
        Names that it fills in where it holds.
    """

    ask: Callable[[dict[str, Any]], Found]
    reads: frozenset[str]
    says: tuple[str, ...]
    doc: str


PREDICATES: dict[str, Predicate] = {}


def predicate(
    *, reads: tuple[str, ...], says: tuple[str, ...] = ()
) -> Callable[[Callable[[dict[str, Any]], Found]], Callable[[dict[str, Any]], Found]]:
    """Register a function of all facts, under its name with hyphens."""

    def register(ask: Callable[[dict[str, Any]], Found]) -> Callable[[dict[str, Any]], Found]:
        name = ask.__name__.strip("_").replace("_", "-")
        PREDICATES[name] = Predicate(ask, frozenset({"model", *reads}), says, ask.__doc__ or "")
        return ask

    return register
