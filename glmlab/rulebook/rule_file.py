"""Rules from ``data/rules/*.yaml``, with the user's own laid over them, each proved to make sense.

A file is a list of rules:

    - id: custom-all-reduce-beyond-two-pcie
      severity: warns                 # blocks, warns or notes
      when:                           # see glmlab.rulebook.condition
        custom_all_reduce: true
        gpu.link: pcie
        tensor_parallel: "> 2"
      why: one line; {tensor_parallel} and other facts are filled in
      fix: one line
      change: {custom_all_reduce: false}      # optional: to the Recipe, with which the rule is content
      source: where this is known from

A rule of a user's own with the id of a packaged one takes its place; ``- {id: ..., off: why}`` silences it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal, get_args

from ruamel.yaml.comments import CommentedMap, CommentedSeq

from glmlab.data_folders import DATA_VARIABLE, PACKAGED_DATA, data_folders
from glmlab.errors import RuleError
from glmlab.names import did_you_mean
from glmlab.recipe import Recipe
from glmlab.rulebook.condition import Condition, ConditionError, line_of, read_condition
from glmlab.rulebook.consistency import fault_of_change, fault_of_condition, predicates_say, undoes
from glmlab.rulebook.facts import OPEN, UNKNOWN, Facts, fact, value_of
from glmlab.yaml_text import kind_of, load_yaml

Severity = Literal["blocks", "warns", "notes"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)
_KEYS = ("id", "severity", "when", "why", "fix", "change", "source", "off")
_PACKAGED = PACKAGED_DATA / "rules"
_ID = re.compile(r"[a-z0-9][a-z0-9.-]*")
_PLACE = re.compile(r"\{([a-z][A-Za-z0-9_.]*)\}")


@dataclass(frozen=True)
class Rule:
    """One compatibility rule.

    Attributes
    ----------
    id : str
        Names it in findings and overlays.
    why, fix : str
        One line each; facts in braces are filled in.
    change : dict or None
        Change to the Recipe that ends the complaint, where one exists.
    source : str
        Where this is known from.
    place : str
        File and line.
    """

    id: str
    severity: Severity
    condition: Condition
    why: str
    fix: str
    change: Mapping[str, Any] | None
    source: str
    place: str

    def to_json(self) -> dict[str, Any]:
        """What ``glmlab rules --json`` prints of it."""
        return {
            "id": self.id,
            "severity": self.severity,
            "asks": sorted(self.condition.facts | self.condition.predicates),
            "why": self.why,
            "fix": self.fix,
            "change": None if self.change is None else dict(self.change),
            "source": self.source,
        }


def filled(text: str, facts: Facts, said: Mapping[str, Any]) -> str:
    """A rule's text with facts, and what arithmetic said, in place of the names in braces."""

    def word(found: re.Match[str]) -> str:
        name = found[1]
        value = said[name] if name in said else value_of(facts, name)
        if name == "gpu.name" and facts.get("gpu") is not None:
            value = facts["gpu"].title
        return "the engine's choice" if value is None else repr(value) if value is UNKNOWN else str(value)

    return _PLACE.sub(word, text)


def load_rules() -> tuple[Rule, ...]:
    """All rules that are in force, in the order of their files; a user's own are read again when changed.

    Raises
    ------
    RuleError
        For a rule that is wrong or contradicts itself, with its file and line.
    """
    files = _packaged()
    if os.environ.get(DATA_VARIABLE):
        files += tuple(
            each for folder in data_folders("rules") if folder != _PACKAGED for each in _in(folder)
        )
    return _loaded(files)


@lru_cache(maxsize=1)
def _packaged() -> tuple[tuple[Path, int], ...]:
    return _in(_PACKAGED)


def _in(folder: Path) -> tuple[tuple[Path, int], ...]:
    """Rule files of a folder, each with a number that changes when it does."""
    files = (file for file in sorted(folder.iterdir()) if file.suffix in (".yaml", ".yml"))
    return tuple((file, file.stat().st_mtime_ns) for file in files)


@lru_cache(maxsize=8)
def _loaded(files: tuple[tuple[Path, int], ...]) -> tuple[Rule, ...]:
    rules: dict[str, Rule] = {}
    for folder in dict.fromkeys(file.parent for file, _ in files):
        own: dict[str, str] = {}  # id -> place, within one folder
        for file, stamp in files:
            if file.parent != folder:
                continue
            for rule, place in _in_file(file, stamp):
                name = rule if isinstance(rule, str) else rule.id
                if name in own:
                    raise RuleError(
                        f"{place}: id = {name!r}: {own[name]} has the same; give one another name"
                    )
                own[name] = place
                if not isinstance(rule, str):
                    rules[name] = rule
                elif rules.pop(name, None) is None:
                    raise RuleError(
                        f"{place}: id = {name!r}: no such rule to switch off{did_you_mean(name, rules)}"
                    )
    found = tuple(rules.values())
    _no_two_undo_each_other(found)
    return found


def _no_two_undo_each_other(rules: tuple[Rule, ...]) -> None:
    for one in rules:
        for other in rules:
            if one is other or one.change is None or other.change is None:
                continue
            if undoes(one.condition, one.change, other.condition, other.change):
                # The packaged rules are held against each other by the tests: a user's own is to blame.
                mine, yours = (other, one) if str(_PACKAGED) in one.place else (one, other)
                raise RuleError(
                    f"{mine.place}: rule {mine.id}: change: rule {yours.id} ({yours.place}) and this one undo"
                    " each other's; drop the change of one of them, or its rule"
                )


@lru_cache(maxsize=128)
def _in_file(file: Path, _stamp: int) -> tuple[tuple[Rule | str, str], ...]:
    """Each rule of a file, or the id of one to switch off, with its place."""
    return tuple((_read(written, place), place) for written, place in _entries(file))


def _entries(file: Path) -> list[tuple[Mapping[str, Any], str]]:
    document = load_yaml(file, RuleError)
    if not isinstance(document, CommentedSeq):
        raise RuleError(f"{file} line 1: expected a list of rules, found {kind_of(document)}")
    entries = []
    for index, written in enumerate(document):
        place = f"{file} line {document.lc.item(index)[0] + 1}"
        if not isinstance(written, Mapping):
            raise RuleError(f"{place}: expected a rule, found {kind_of(written)}")
        entries.append((written, place))
    return entries


def _read(written: Mapping[str, Any], place: str) -> Rule | str:
    """A rule, or the id of one to switch off."""
    entry = _Entry(written, place)
    name = entry.name()
    if "off" in written:
        entry.text("off")
        if set(written) != {"id", "off"}:
            raise entry.wrong("off", "off: stands alone beside the id of a rule that it switches off")
        return name
    severity = written.get("severity")
    if severity not in SEVERITIES:
        raise entry.wrong("severity", f"severity = {severity!r}: expected {', '.join(SEVERITIES)}")
    condition = entry.condition()
    says = predicates_say(condition)
    why, fix = entry.text("why", says), entry.text("fix", says)
    change = written.get("change")
    if change is not None:
        fault = _fault_in_form(change, says) or fault_of_change(condition, change)
        if fault:
            raise entry.wrong("change", f"change: {fault}")
    return Rule(name, severity, condition, why, fix, _plain(change), entry.text("source"), place)


class _Entry:
    """One entry of a rule file, whose faults are told with their line."""

    def __init__(self, written: Mapping[str, Any], place: str) -> None:
        self.written, self.place = written, place

    def wrong(self, key: str, message: str, line: int | None = None) -> RuleError:
        """An error at a key of the entry, or at the line that is given."""
        line = line or line_of(self.written, key)
        file, given = self.place.rpartition(" line ")[0], self.written.get("id")
        named = f"rule {given}: " if isinstance(given, str) and key != "id" else ""
        return RuleError(f"{f'{file} line {line}' if line else self.place}: {named}{message}")

    def name(self) -> str:
        """The id, in an entry without unknown keys."""
        for key in self.written:
            if key not in _KEYS:
                raise self.wrong(str(key), f"{key}: unknown key{did_you_mean(str(key), _KEYS)}")
        name = self.written.get("id")
        if not isinstance(name, str) or not _ID.fullmatch(name):
            raise self.wrong("id", f"id = {name!r}: expected small letters, digits, dots and hyphens")
        return str(name)

    def condition(self) -> Condition:
        """The compiled ``when``, which can hold."""
        try:
            condition = read_condition(self.written.get("when"), line_of(self.written, "when"))
        except ConditionError as error:
            raise self.wrong("when", f"when: {error}", error.line) from None
        fault = fault_of_condition(condition)
        if fault:
            raise self.wrong("when", f"when: {fault}")
        return condition

    def text(self, key: str, says: frozenset[str] = frozenset()) -> str:
        """A line of text, whose names in braces can be filled in."""
        value = self.written.get(key)
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, f"{key} = {value!r}: expected a line of text")
        if _cut_off(self.written, key):
            raise self.wrong(key, f"{key}: what follows ' #' is a comment to YAML; put the text in quotes")
        for name in _PLACE.findall(value):
            if name not in says and fact(name) is None:
                message = f"{key}: {{{name}}} is no fact, and no arithmetic of this rule says it"
                raise self.wrong(key, message)
        return " ".join(value.split())


def _cut_off(written: Mapping[str, Any], key: str) -> bool:
    """Whether a comment stands on the line of a text: ``vLLM #43477`` without quotes loses its number."""
    if not isinstance(written, CommentedMap):
        return False
    token = (written.ca.items.get(key) or [None] * 3)[2]
    return token is not None and token.value.startswith("#")


def _fault_in_form(change: Any, says: frozenset[str]) -> str | None:
    if not isinstance(change, Mapping) or not change:
        return f"expected fields of a recipe and values, found {kind_of(change)}"
    for name, value in change.items():
        if name not in Recipe.model_fields or name in ("name", "model"):
            return f"{name}: no field that a fix may change{did_you_mean(str(name), Recipe.model_fields)}"
        if name in OPEN and not isinstance(value, Mapping):
            return f"{name} = {value!r}: expected keys and values"
        for each in value.values() if name in OPEN else [value]:
            if isinstance(each, str) and each.startswith("$") and each[1:] not in says:
                return f"{name} = {each!r}: no arithmetic of this rule says {each[1:]!r}"
    return None


def _plain(value: Any) -> Any:
    """Without what the YAML reader hung on it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return str(value) if isinstance(value, str) else value
