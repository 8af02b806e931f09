"""Nearest names, for errors that help."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], *, show_all_up_to: int = 24) -> str:
    """End of an error line: the nearest known names, or all of them where none is near."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    if near:
        return f"; did you mean {' or '.join(near)}?"
    if len(names) <= show_all_up_to:
        return f"; known: {', '.join(names)}"
    return ""
