"""The condition of a rule: a mapping of facts to tests, with ``any``, ``all``, ``not`` and ``holds``.

All entries of a mapping must hold. ``any`` takes a list of conditions of which one must, ``all`` a list of
which all must, ``not`` one that must not; ``holds`` names arithmetic of
:mod:`glmlab.rulebook.predicates`.
A condition is true, false, or, where a fact is not known, neither (``None``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml.comments import CommentedMap

from glmlab.names import did_you_mean
from glmlab.rulebook.comparisons import FactTest, read_test
from glmlab.rulebook.facts import FACTS, OPEN, Facts, fact, value_of
from glmlab.rulebook.predicates import PREDICATES, Predicate
from glmlab.yaml_text import kind_of

Said = dict[str, Any]
Judge = Callable[[Facts, Said], bool | None]
_WORDS = ("any", "all", "not", "holds")


class ConditionError(ValueError):
    """A condition that cannot be; ``line`` counts from 1, or is None."""

    def __init__(self, message: str, line: int | None) -> None:
        super().__init__(message)
        self.line = line


@dataclass(frozen=True)
class CasePart:
    """A test of one fact, or a named predicate, that must come out as ``wanted``."""

    name: str
    test: FactTest | Predicate
    wanted: bool = True


@dataclass(frozen=True)
class Condition:
    """A compiled condition.

    Attributes
    ----------
    judge : callable
        Facts and a dictionary for what predicates say -> true, false or None.
    cases : tuple
        The condition as a choice of cases, each a list of literals that must all hold.
    facts, predicates : frozenset of str
        What it asks.
    """

    judge: Judge = field(repr=False)
    cases: tuple[tuple[CasePart, ...], ...] = field(repr=False)
    facts: frozenset[str]
    predicates: frozenset[str]


_MOST_CASES = 256


def read_condition(written: Any, line: int | None = None) -> Condition:
    """Compile a condition as it was read from YAML.

    Raises
    ------
    ConditionError
        With the line of what is wrong.
    """
    if not isinstance(written, Mapping):
        raise ConditionError(f"expected facts and what they must be, found {kind_of(written)}", line)
    if not written:
        raise ConditionError("empty: name at least one fact", line)
    parts = list(_parts(written, line))
    cases: list[tuple[CasePart, ...]] = [()]
    for part in parts:
        cases = [(*mine, *theirs) for mine in cases for theirs in part.cases]
        if len(cases) > _MOST_CASES:
            raise ConditionError(f"more than {_MOST_CASES} cases: make it two rules", line)
    # Arithmetic last: most rules are done with after the first cheap test.
    ordered = sorted(parts, key=lambda part: bool(part.predicates))
    return Condition(
        judge=_all([part.judge for part in ordered]),
        cases=tuple(cases),
        facts=frozenset().union(*(part.facts for part in parts)),
        predicates=frozenset().union(*(part.predicates for part in parts)),
    )


def _parts(written: Mapping[str, Any], line: int | None) -> Iterator[Condition]:
    for key, value in written.items():
        here = line_of(written, key) or line
        if key in ("any", "all"):
            if not isinstance(value, list) or not value:
                raise ConditionError(f"{key}: expected a list of conditions, found {kind_of(value)}", here)
            inner = [read_condition(item, here) for item in value]
            yield _any(inner) if key == "any" else _conjunction(inner)
        elif key == "not":
            yield _not(read_condition(value, here), here)
        elif key == "holds":
            yield _holds(value, here)
        else:
            yield _leaf(key, value, here)


def _leaf(name: Any, value: Any, line: int | None) -> Condition:
    of = fact(str(name))
    if of is None:
        known = [*FACTS, *_WORDS, *(f"{space}.NAME" for space in OPEN)]
        raise ConditionError(f"{name}: no such fact{did_you_mean(str(name), known)}", line)
    try:
        test = read_test(value, of)
    except ValueError as error:
        raise ConditionError(f"{name} = {error}", line) from None
    key = str(name)
    if "." in key and key.partition(".")[0] in OPEN:
        judge: Judge = lambda facts, _said: test(value_of(facts, key))  # noqa: E731
    else:
        judge = _plain_leaf(key, test)
    return Condition(judge, ((CasePart(key, test),),), frozenset({key}), frozenset())


def _plain_leaf(key: str, test: FactTest) -> Judge:
    """The same as ``test(value_of(...))``, without what costs most in a search."""
    holds, asks = test.holds, test.asks_unknown

    def judge(facts: Facts, _said: Said) -> bool | None:
        try:
            value = facts[key]
        except KeyError:
            return True if asks else None
        return not asks and holds(value)

    return judge


def _holds(name: Any, line: int | None) -> Condition:
    predicate = PREDICATES.get(name) if isinstance(name, str) else None
    if predicate is None:
        raise ConditionError(
            f"holds = {name!r}: no such arithmetic{did_you_mean(str(name), PREDICATES)}", line
        )

    def judge(facts: Facts, said: Said) -> bool | None:
        found = predicate.ask(facts)
        if not found:
            return False if found is not None else None
        said.update(found)
        return True

    return Condition(judge, ((CasePart(str(name), predicate),),), frozenset(), frozenset({str(name)}))


def _all(judges: list[Judge]) -> Judge:
    if len(judges) == 1:
        return judges[0]

    def judge(facts: Facts, said: Said) -> bool | None:
        found: bool | None = True
        for each in judges:
            one = each(facts, said)
            if one is False:
                return False
            if one is None:
                found = None
        return found

    return judge


def _conjunction(inner: list[Condition]) -> Condition:
    cases: list[tuple[CasePart, ...]] = [()]
    for part in inner:
        cases = [(*mine, *theirs) for mine in cases for theirs in part.cases][: _MOST_CASES + 1]
    return Condition(
        _all([part.judge for part in inner]),
        tuple(cases),
        frozenset().union(*(part.facts for part in inner)),
        frozenset().union(*(part.predicates for part in inner)),
    )


def _any(inner: list[Condition]) -> Condition:
    judges = [part.judge for part in inner]

    def judge(facts: Facts, said: Said) -> bool | None:
        found: bool | None = False
        for each in judges:
            one = each(facts, said)
            if one:
                return True
            if one is None:
                found = None
        return found

    return Condition(
        judge,
        tuple(case for part in inner for case in part.cases),
        frozenset().union(*(part.facts for part in inner)),
        frozenset().union(*(part.predicates for part in inner)),
    )


def _not(inner: Condition, line: int | None) -> Condition:
    if inner.predicates:
        raise ConditionError("not: arithmetic says what it found, so it cannot be turned round", line)

    def judge(facts: Facts, said: Said) -> bool | None:
        found = inner.judge(facts, said)
        return None if found is None else not found

    cases: list[tuple[CasePart, ...]] = [()]
    for case in inner.cases:  # not (a and b or c) = (not a or not b) and not c
        turned = [CasePart(each.name, each.test, not each.wanted) for each in case]
        cases = [(*mine, each) for mine in cases for each in turned][: _MOST_CASES + 1]
    return Condition(judge, tuple(cases), inner.facts, inner.predicates)


def line_of(document: Any, key: Any) -> int | None:
    """Line of a key in a mapping as it was read, counted from 1."""
    if not isinstance(document, CommentedMap):
        return None
    try:
        return int(document.lc.key(key)[0]) + 1
    except (AttributeError, KeyError, TypeError):
        return None
