"""Numbers for people: bytes, durations, rates, and the budgets that people type."""

from __future__ import annotations

import re

from glmlab.errors import InputError

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def format_bytes(count: float) -> str:
    """Bytes in decimal units, as storage and GPU vendors count: 1 GB is 1e9 bytes."""
    for unit, size in (("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)):
        # Rounded first: 999,999 bytes are 1 MB, not 1e+03 kB.
        if abs(rounded := float(f"{count / size:.3g}")) < 1000 and abs(count) >= 999.5:
            return f"{rounded:.3g} {unit}"
    return f"{count:.0f} B" if abs(count) < 1000 else f"{count / 1e12:.0f} TB"


def format_ms(ms: float) -> str:
    """Milliseconds with three significant digits, never in exponent form."""
    if ms >= 100:
        return f"{ms:.0f} ms"
    return f"{ms:.3g} ms" if ms >= 0.001 else f"{ms * 1e3:.2g} µs"


def format_duration(seconds: float) -> str:
    """Seconds as ``850 ms``, ``3.2 s``, ``2 min 05 s`` or ``1 h 02 min``."""
    if round(seconds * 1e3) < 1000:
        return f"{seconds * 1e3:.0f} ms"
    if round(seconds, 1) < 60:
        return f"{seconds:.1f} s"
    # Rounded before it is parted: 119.6 s are 2 min 00 s, not 1 min 60 s.
    if (whole := round(seconds)) < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60:02d} min"


def counted(number: int, noun: str, plural: str = "") -> str:
    """``1 token``, ``2,048 tokens``; ``plural`` where it is another than with an s."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def parse_budget(text: str) -> dict[str, float]:
    """Read a budget as people type it: ``50`` is trials, ``10m`` or ``1h30m`` is time.

    Returns
    -------
    dict
        ``{"trials": n}`` or ``{"seconds": s}``.

    Raises
    ------
    InputError
        If the text is neither.
    """
    text = text.strip().lower()
    if re.fullmatch(r"[0-9]+", text) and int(text) > 0:
        return {"trials": int(text)}
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?)([smhd])", text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        seconds = sum(float(number) * _SECONDS[unit] for number, unit in parts)
        if seconds > 0:
            return {"seconds": seconds}
    raise InputError(
        f"budget = {text!r}: expected a number of trials such as 50, or a time such as 90s, 10m or 1h30m"
    )
