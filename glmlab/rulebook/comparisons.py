"""One test of one fact in a rule's condition: ``link: pcie``, ``tensor_parallel: "> 2"``.

======================  ============================================================================
written                 true when the fact
======================  ============================================================================
``pcie``, ``4``         is that
``[fp8, fp8_e4m3]``     is one of these
``"!= pcie"``           is known, and is not that
``"> 2"``, ``"<= 4"``   is a number on that side
``">=0.24,<0.26"``      is a version in that range (``version.*`` and ``gpu.capability``)
``contains SPARSE``     is a word with that in it; case does not matter
``null``, ``"!= null"`` is left to the engine, or is not
``unknown``             is not known here
======================  ============================================================================
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from glmlab.names import did_you_mean
from glmlab.rulebook.facts import UNKNOWN, Fact
from glmlab.version_range import in_range, is_version, range_fault, samples

_COMPARE = re.compile(r"(!=|>=|<=|>|<)\s*(.+)")
_SIDE: dict[str, Callable[[Any, Any], bool]] = {
    ">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le
}  # fmt: skip


@dataclass(frozen=True)
class FactTest:
    """A compiled test.

    Attributes
    ----------
    holds : callable
        Value -> whether; never called with :data:`UNKNOWN` unless ``asks_unknown``.
    samples : tuple
        Values around which the answer changes.
    asks_unknown : bool
        Whether it is the test for not being known.
    """

    holds: Callable[[Any], bool]
    samples: tuple[Any, ...]
    asks_unknown: bool = False

    def __call__(self, value: Any) -> bool | None:
        if value is UNKNOWN:
            return True if self.asks_unknown else None
        return not self.asks_unknown and self.holds(value)


def read_test(written: Any, of: Fact) -> FactTest:
    """Compile what stands beside a fact.

    Raises
    ------
    ValueError
        With what is wrong and what is allowed.
    """
    if isinstance(written, str) and written == "unknown":
        if not of.knowable:
            raise ValueError("'unknown': a recipe's own fields are always known; write null for not set")
        return FactTest(lambda _value: False, (), asks_unknown=True)
    if isinstance(written, list):
        if not written:
            raise ValueError("[]: an empty list can never hold")
        each = [_plain(item, of) for item in written]
        return FactTest(lambda value: value in each, tuple(each))
    if isinstance(written, str) and (compared := _COMPARE.fullmatch(written.strip())):
        return _comparison(compared[1], compared[2].strip(), written, of)
    if isinstance(written, str) and of.kind == "version":
        return _range(f"=={written}" if is_version(written) else written)
    if isinstance(written, str) and written.startswith("contains "):
        if of.kind not in ("word", "any"):
            raise ValueError(f"{written!r}: only words can contain something, this is a {of.kind}")
        part = written.removeprefix("contains ").strip()
        return FactTest(lambda value: isinstance(value, str) and part.lower() in value.lower(), (part,))
    value = _plain(written, of)
    return FactTest(lambda found: bool(found == value), (value,))


def _comparison(sign: str, operand: str, written: str, of: Fact) -> FactTest:
    if of.kind == "version":
        return _range(written)
    if sign == "!=":
        value = (
            None if operand == "null" else _plain(_number(operand) if of.kind == "number" else operand, of)
        )
        return FactTest(lambda found: bool(found != value), (value,))
    if of.kind != "number":
        raise ValueError(f"{written!r}: only numbers and versions can be compared, this is a {of.kind}")
    number, side = _number(operand), _SIDE[sign]
    if not isinstance(number, int | float):
        raise ValueError(f"{written!r}: {operand!r} is no number")
    return FactTest(lambda found: found is not None and side(found, number), (number, number - 1, number + 1))


def _range(wanted: str) -> FactTest:
    fault = range_fault(wanted)
    if fault:
        raise ValueError(fault)
    return FactTest(lambda version: in_range(version, wanted), (wanted,))


def _number(text: str) -> Any:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def _plain(value: Any, of: Fact) -> Any:
    """A value that the fact can have, or a refusal with those that it can."""
    if value is None:
        if not of.optional:
            raise ValueError("null: this is always set")
        return None
    kinds = {
        "flag": bool,
        "number": (int, float),
        "word": str,
        "version": str,
        "any": (bool, int, float, str),
    }
    wanted = kinds[of.kind]
    if not isinstance(value, wanted) or (of.kind == "number" and isinstance(value, bool)):  # type: ignore[arg-type]
        raise ValueError(f"{value!r}: expected a {of.kind}")
    if of.allowed is not None and value not in of.allowed:
        raise ValueError(f"{value!r}: not one of its values{did_you_mean(str(value), of.allowed)}")
    if of.kind == "number" and value < of.least:
        raise ValueError(f"{value!r}: it is {of.least:g} or more")
    return str(value) if isinstance(value, str) else value


def candidates(of: Fact, tests: Iterable[FactTest]) -> list[Any]:
    """Values of a fact that between them show every way in which these tests can come out."""
    named = [value for test in tests for value in test.samples]
    found: list[Any] = []
    if of.kind == "flag":
        found = [True, False]
    elif of.kind == "version":
        found = list(samples(named))
    elif of.kind == "number":
        numbers = sorted({value for value in named if value is not None})
        found = [value for value in numbers if value >= of.least]
        found += [numbers[-1] + 1] if numbers else [max(of.least, 1)]
        if not of.whole:
            found += [(low + high) / 2 for low, high in pairwise(numbers) if low >= of.least]
    elif of.allowed is not None:
        found = list(of.allowed)
    else:
        words = [value for value in named if isinstance(value, str)]
        others = [value for value in named if value is not None and not isinstance(value, str)]
        found = [*words, *others, of.example, " ".join(words)]
    if of.optional:
        found.append(None)
    return [*found, UNKNOWN] if of.knowable else found
