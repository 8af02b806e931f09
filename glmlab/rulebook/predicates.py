"""All arithmetic that rules can name, from every file that registers some."""

from __future__ import annotations

from glmlab.rulebook import arithmetic, backends, division, shared_memory
from glmlab.rulebook.predicate import PREDICATES, Predicate

__all__ = ["PREDICATES", "Predicate"]

_REGISTERING = (arithmetic, backends, division, shared_memory)
