"""Advice: one change to a recipe or a machine, computed through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from glmlab.errors import GlmlabError
from glmlab.footprint.part import GB, amount
from glmlab.memory import Fit, fit


@dataclass(frozen=True)
class Advice:
    """One change, computed through.

    Attributes
    ----------
    what : str
        The change, what it gives and what it costs, in one line.
    changes : dict
        Fields of the recipe to replace; empty where the machine has to change.
    gpus : int
        How many GPUs it is for.
    fits : bool
        Whether this alone makes the recipe fit.
    gain_bytes : float
        By how much less a GPU is short of memory; for a recipe that fits, by how much its KV pool grows.
    kv_tokens : int
        Tokens of KV in total, then.
    longest_context : int
        Tokens of the longest single sequence, then.
    """

    what: str
    changes: dict[str, Any]
    gpus: int
    fits: bool
    gain_bytes: float
    kv_tokens: int
    longest_context: int

    def to_json(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "changes": self.changes,
            "gpus": self.gpus,
            "fits": self.fits,
            "gain_gb": round(self.gain_bytes / GB, 3),
            "kv_tokens": self.kv_tokens,
            "longest_context": self.longest_context,
        }


def attempt(found: Fit, changes: dict[str, Any], gpus: int) -> Fit | None:
    """The changed recipe's fit; None where it cannot be.

    Parameters
    ----------
    found : Fit
        Of the recipe as it is.
    changes : dict
        Fields of the recipe to replace.
    gpus : int
        On how many GPUs; on those that are there where these are more.
    """
    try:
        return fit(found.recipe.replace(**changes), found.gpu, max(gpus, found.count))
    except GlmlabError:
        return None


def advice_of(found: Fit, other: Fit, changes: dict[str, Any], what: str) -> Advice:
    """A line of advice.

    Parameters
    ----------
    found, other : Fit
        Of the recipe as it is, and of the changed one.
    changes : dict
        What was changed.
    what : str
        The same in words; what it gives is added.
    """
    if found.fits:
        gain = other.pool.size - found.pool.size
        more = other.kv_tokens - found.kv_tokens
        result = f"{more:+,} tokens of KV ({other.kv_tokens:,} in all)"
    elif other.fits:
        gain = found.short_bytes - other.short_bytes
        close = " (too close to be sure)" if other.is_close else ""
        result = f"fits{close}, {other.kv_tokens:,} tokens of KV, longest context {other.longest_context:,}"
    else:
        gain = found.short_bytes - other.short_bytes
        result = f"{amount(gain)} less, still {amount(other.short_bytes)} a GPU short"
    return Advice(
        what=f"{what}: {result}",
        changes=changes,
        gpus=max(found.count, other.ranks),
        fits=other.fits,
        gain_bytes=gain,
        kv_tokens=other.kv_tokens,
        longest_context=other.longest_context,
    )


def said(changes: dict[str, Any]) -> str:
    """Changes to numbers, in words.

    Parameters
    ----------
    changes : dict
        Fields of a recipe, and their numbers.
    """
    return " and ".join(f"{field} {value:,}" for field, value in changes.items())
