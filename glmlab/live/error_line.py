"""An error in one line: compilers say a lot before what counts, which comes last."""

from __future__ import annotations


def error_line(error: BaseException) -> str:
    """Kind of an error, and the last line of what it says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"
