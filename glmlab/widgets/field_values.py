"""What is typed into the fields of a study, read; refused in one line that names the field."""

from __future__ import annotations

import re
from typing import Any

from glmlab.errors import InputError, StudyError
from glmlab.units import parse_budget


def study_name(text: str) -> str:
    """Said here in words: the study file's own refusal is a regular expression."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", text.strip()):
        raise StudyError(
            f"study = {text!r}: expected a name of up to 100 letters, digits, '.', '_' and '-', the first a"
            " letter or a digit"
        )
    return text.strip()


def whole_numbers(name: str, text: str) -> list[int]:
    """Numbers with commas between them."""
    items = listed_names(text)
    for item in items:
        if not re.fullmatch(r"-?[0-9]+", item):
            raise StudyError(
                f"{name} = {item!r}: expected whole numbers with commas between them, such as 256, 1024"
            )
    return [int(item) for item in items]


def listed_names(text: str) -> list[str]:
    """What stands between commas, be it names or values."""
    return [item.strip() for item in text.split(",") if item.strip()]


def with_contexts(work: dict[str, Any], contexts: str) -> dict[str, Any]:
    """Weights are judged beside the contexts that they weigh."""
    return {**work, "contexts": whole_numbers("contexts", contexts)} if "weights" in work else work


def most_tokens(text: str, contexts: str, batch_sizes: str, **tokens: int) -> dict[str, Any]:
    """A limit is judged beside the points that it cuts, and what they make; nothing typed is none."""
    typed = text.strip().replace(",", "").replace("_", "")
    if not typed:
        return {}
    if not re.fullmatch(r"[0-9]+", typed):
        raise StudyError(f"most_tokens = {text!r}: expected a whole number, or nothing for no limit")
    return {
        "contexts": whole_numbers("contexts", contexts),
        "batch_sizes": whole_numbers("batch_sizes", batch_sizes),
        **tokens,
        "most_tokens": int(typed),
    }


def bounds(text: str) -> dict[str, str]:
    """One a line: metric -> comparison."""
    found_bounds: dict[str, str] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        found = re.fullmatch(r"(\w+)\s*:?\s*([<>]=?.*)", line)
        if not found:
            raise StudyError(f"constraints = {line!r}: expected a line such as kv_tokens >= 200000")
        if found[1] in found_bounds:
            raise StudyError(f"constraints.{found[1]}: is given twice")
        found_bounds[found[1]] = found[2]
    return found_bounds


def budget(trials: str, time: str) -> dict[str, Any]:
    """Trials, a time, or both; either may be empty."""
    found: dict[str, Any] = {}
    if text := trials.strip():
        if not re.fullmatch(r"[0-9]+", text) or int(text) < 1:
            raise StudyError(f"trials = {text!r}: expected a whole number from 1 on, or nothing")
        found["trials"] = int(text)
    if time.strip():
        found["seconds"] = seconds(time)
    if not found:
        raise StudyError("budget: give trials, a time or both")
    return found


def seconds(text: str) -> float:
    """A bare number is seconds; ``90s``, ``10m`` and ``1h30m`` are what they say."""
    text = text.strip()
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text):
        number = float(text)
    else:
        try:
            number = parse_budget(text)["seconds"]
        except InputError:
            raise StudyError(
                f"time = {text!r}: expected seconds, or a time such as 90s, 10m or 1h30m"
            ) from None
    return int(number) if number.is_integer() else number  # as people write it: 600, not 600.0
