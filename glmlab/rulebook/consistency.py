"""Whether a rule makes sense: its condition can hold, and its change ends what it complains of.

A condition is a choice of cases. For each a witness is looked for: values of its facts under which it holds,
which the Recipe must accept. The rule's change is then made to the witness, and the condition judged again.
Arithmetic is taken to hold before, and to go on holding unless the change is of a field that it reads.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from glmlab.errors import RecipeError
from glmlab.recipe import Recipe
from glmlab.rulebook.comparisons import FactTest, candidates
from glmlab.rulebook.condition import CasePart, Condition
from glmlab.rulebook.facts import OPEN, UNKNOWN, Facts, fact, value_of
from glmlab.rulebook.predicates import PREDICATES, Predicate

_MODEL = "unknown/model"
# Which attention a type of model has: the two cannot be chosen apart.
_ATTENTION = {"glm4_moe": "gqa", "glm4_moe_lite": "mla", "glm_moe_dsa": "mla+dsa"}
# What follows from fields of the recipe, and from which.
_DERIVED = {
    "attention.backend": frozenset({"attention_backend", "kv_cache_dtype", "dense_mla", "serving_engine"}),
    "ranks": frozenset({"tensor_parallel", "pipeline_parallel", "data_parallel"}),
    "model.weights": frozenset({"quantization"}),
}


def fault_of_condition(condition: Condition) -> str | None:
    """Why a condition can never hold, or ``None``."""
    faults = [_witness(case) for case in condition.cases]
    if all(isinstance(each, str) for each in faults):
        return f"can never hold: {faults[0]}"
    return None


def fault_of_change(condition: Condition, change: Mapping[str, Any]) -> str | None:
    """Why a change is no way out, or ``None``.

    Parameters
    ----------
    condition : Condition
        What the rule complains of.
    change : mapping
        Field -> value; text that begins with ``$`` is what arithmetic says, and not known before.
    """
    for case in condition.cases:
        witness = _witness(case)
        if isinstance(witness, str):
            continue  # this case never happens
        fault = _fault_in_case(case, witness, change)
        if fault:
            return fault
    return None


def undoes(one: Condition, its: Mapping[str, Any], other: Condition, theirs: Mapping[str, Any]) -> bool:
    """Whether two rules are certain to go on undoing each other's change, once they can meet.

    One's change is made, then the other's: what one complained of is there again, and after its change, what
    the other did. Changes that come to rest, though one takes back what another did, are none.

    Parameters
    ----------
    one, other : Condition
        What each complains of.
    its, theirs : mapping
        Their changes.
    """
    first, then = _flat(its), _flat(theirs)
    if not any(name in first and first[name] != value for name, value in then.items()):
        return False
    if any(_computed(value) for value in (*first.values(), *then.values())):
        return False
    return any(_comes_back(mine, first, yours, then) for mine in one.cases for yours in other.cases)


def _flat(change: Mapping[str, Any]) -> dict[str, Any]:
    """A change by the names that conditions use."""
    found: dict[str, Any] = {}
    for name, value in change.items():
        if name in OPEN:
            found |= {f"{name}.{key}": item for key, item in value.items()}
        else:
            found[name] = value
    return found


def _comes_back(
    mine: tuple[CasePart, ...], first: dict[str, Any], yours: tuple[CasePart, ...], then: dict[str, Any]
) -> bool:
    changed = {name.partition(".")[0] for name in (*first, *then)}
    untouched: list[CasePart] = []
    for part, is_mine in [*((each, True) for each in mine), *((each, False) for each in yours)]:
        if isinstance(part.test, Predicate):
            if part.test.reads & changed:
                return False  # not certain
            continue
        if _DERIVED.get(part.name, frozenset()) & changed:
            return False
        # Mine is asked after both changes; yours between them, and once more after mine was made again.
        after = {**first, **then} if is_mine else {**then, **first}
        if part.name in after and not _passes(part, after[part.name]):
            return False
        if part.name not in first:
            untouched.append(part)
    return not isinstance(_witness(tuple(untouched)), str) and not isinstance(_witness(mine), str)


def _passes(part: CasePart, value: Any) -> bool:
    return part.test(value) is part.wanted if isinstance(part.test, FactTest) else True


def _fault_in_case(case: tuple[CasePart, ...], witness: Facts, change: Mapping[str, Any]) -> str | None:
    given = {name: value for name, value in change.items() if not _computed(value)}
    base = _recipe(witness)
    if isinstance(base, str):
        return base
    try:
        changed = merged(base, given)
    except RecipeError as error:
        return f"the Recipe refuses it ({error})"
    if all(_still_holds(each, changed, change) for each in case):
        return "the rule would say the same again"
    return None


def _still_holds(literal: CasePart, changed: Recipe, change: Mapping[str, Any]) -> bool:
    """Whether a part of the condition is certain to hold after the change."""
    if isinstance(literal.test, Predicate):
        return not literal.test.reads & set(change)
    space, _, key = literal.name.partition(".")
    if space in OPEN and key:
        value = value_of({space: getattr(changed, space)}, literal.name)
        if space in change and any(_computed(item) for item in change[space].values()):
            return False
    elif literal.name in change:
        if _computed(change[literal.name]):
            return False
        value = getattr(changed, literal.name)
    elif _DERIVED.get(literal.name, frozenset()) & set(change):
        backend = changed.attention_backend
        if literal.name != "attention.backend" or backend is None:
            return False
        value = backend.upper()
    else:
        return True
    return literal.test(value) is literal.wanted


def _computed(value: Any) -> bool:
    return isinstance(value, str) and value.startswith("$")


def merged(recipe: Recipe, change: Mapping[str, Any]) -> Recipe:
    """A recipe with a change made: fields are set, keys of ``env`` and ``engine_args`` one by one.

    A key that is set to ``None`` goes.

    Raises
    ------
    RecipeError
        If the Recipe refuses it.
    """
    fields = dict(change)
    for space in OPEN:
        if space in fields:
            both = {**getattr(recipe, space), **fields[space]}
            fields[space] = {key: value for key, value in both.items() if value is not None}
    return recipe.replace(**fields)


def _witness(case: tuple[CasePart, ...]) -> Facts | str:
    """Values under which a case holds, or why there are none."""
    by_fact: dict[str, list[CasePart]] = {}
    for literal in case:
        if isinstance(literal.test, FactTest):
            by_fact.setdefault(literal.name, []).append(literal)
    witness: Facts = {}
    for name, literals in by_fact.items():
        of = fact(name)
        assert of is not None
        tests = [each.test for each in literals if isinstance(each.test, FactTest)]
        for value in candidates(of, tests):
            if all(test(value) is each.wanted for test, each in zip(tests, literals, strict=True)):
                witness[name] = value
                break
        else:
            return f"no value of {name} passes all that is asked of it"
    if witness.get("attention.backend", UNKNOWN) is not UNKNOWN and not all(
        _passes(each, "vllm") for each in by_fact.get("serving_engine", [])
    ):
        return "attention.backend is known for vllm only"
    types, attentions = by_fact.get("model.type", []), by_fact.get("model.attention", [])
    if types and attentions:
        for kind, attention in _ATTENTION.items():
            if all(_passes(each, kind) for each in types) and all(_passes(e, attention) for e in attentions):
                witness |= {"model.type": kind, "model.attention": attention}
                break
        else:
            return "no model.type that passes has a model.attention that does"
    recipe = _recipe(witness)
    return recipe if isinstance(recipe, str) else witness


def _recipe(witness: Facts) -> Recipe | str:
    """A recipe with the witness's fields, or why there is none."""
    fields: dict[str, Any] = {"name": "witness", "model": _MODEL}
    for name, value in witness.items():
        space, _, key = name.partition(".")
        if space in OPEN and key:
            if value is not None:
                _put(fields.setdefault(space, {}), key.split(".") if space == "engine_args" else [key], value)
        elif name in Recipe.model_fields and value is not UNKNOWN:
            fields[name] = value
    try:
        return Recipe.parse(fields)
    except RecipeError as error:
        return f"a recipe that it describes is refused ({error})"


def _put(into: dict[str, Any], path: list[str], value: Any) -> None:
    for step in path[:-1]:
        into = into.setdefault(step, {})
    into[path[-1]] = value


def predicates_say(condition: Condition) -> frozenset[str]:
    """Names that the condition's arithmetic fills in, for texts and changes."""
    return frozenset(name for each in condition.predicates for name in PREDICATES[each].says)
