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
from glmlab.rulebook.arithmetic import PREDICATES, Predicate
from glmlab.rulebook.comparisons import FactTest, candidates
from glmlab.rulebook.condition import CasePart, Condition
from glmlab.rulebook.facts import OPEN, UNKNOWN, Facts, fact, value_of

_MODEL = "unknown/model"
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
