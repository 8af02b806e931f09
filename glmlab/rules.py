"""Compatibility rules: what a recipe will run into on a machine, before anything is started."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glmlab.errors import InputError
from glmlab.knobs import word
from glmlab.names import did_you_mean
from glmlab.recipe import Recipe
from glmlab.rulebook.consistency import merged
from glmlab.rulebook.facts import facts_of
from glmlab.rulebook.pins import pinned_by
from glmlab.rulebook.rule_file import SEVERITIES, Rule, Severity, filled, load_rules
from glmlab.units import counted
from glmlab.version_range import PACKAGES, installed_packages, is_version, same_version

if TYPE_CHECKING:
    from glmlab.gpus import Gpu

__all__ = [
    "Finding",
    "Findings",
    "Rule",
    "Versions",
    "apply_fix",
    "change_text",
    "check",
    "load_rules",
    "versions_in_force",
]

# The package that an engine is, and whose companions are installed with it.
_ENGINES = ("vllm", "sglang")


@dataclass(frozen=True)
class Finding:
    """What one rule says of a recipe.

    Attributes
    ----------
    severity : {"blocks", "warns", "notes"}
        ``blocks``: it will not run. ``warns``: it may fail, be wrong or be slow. ``notes``: worth knowing.
    why, fix : str
        One line each.
    change : dict or None
        What :func:`apply_fix` changes, where the fix is a change to the recipe.
    """

    id: str
    severity: Severity
    why: str
    fix: str
    change: Mapping[str, Any] | None = field(hash=False)
    source: str

    def to_json(self) -> dict[str, Any]:
        """What ``glmlab check --json`` prints of it."""
        return {
            "id": self.id,
            "severity": self.severity,
            "why": self.why,
            "fix": self.fix,
            "change": None if self.change is None else dict(self.change),
            "source": self.source,
        }


class Versions(dict[str, str]):
    """Package -> version.

    Attributes
    ----------
    pinned : frozenset of str
        Those that nobody named and nothing installed shows, but that the engine's release pins.
    """

    def __init__(self, known: Mapping[str, str], pinned: Mapping[str, str] | None = None) -> None:
        super().__init__({**(pinned or {}), **known})
        self.pinned = frozenset(pinned or {}) - frozenset(known)

    def __str__(self) -> str:
        return ", ".join(f"{name} {version}{self._note(name)}" for name, version in self.items())

    def _note(self, name: str) -> str:
        return " (pinned)" if name in self.pinned else ""


class Findings(list[Finding]):
    """A list of findings, what blocks first, that a notebook shows as a table."""

    @property
    def blocked(self) -> bool:
        """Whether one of them keeps the recipe from running."""
        return any(finding.severity == "blocks" for finding in self)

    def _repr_html_(self) -> str:
        if not self:
            return "<p>No rule has anything to say.</p>"
        rows = []
        for each in self:
            colour = {"blocks": "#c62828", "warns": "#b26a00", "notes": "#616161"}[each.severity]
            change = f"<br><code>{escape(change_text(each.change))}</code>" if each.change else ""
            cells = (
                f'<b style="color:{colour}">{each.severity}</b>',
                f"<code>{escape(each.id)}</code>",
                escape(each.why),
                escape(each.fix) + change,
                f"<small>{escape(each.source)}</small>",
            )
            rows.append("<tr>" + "".join(f'<td style="text-align:left">{c}</td>' for c in cells) + "</tr>")
        heads = "".join(f"<th>{head}</th>" for head in ("", "rule", "why", "fix", "source"))
        return f"<table><tr>{heads}</tr>{''.join(rows)}</table>"


def check(
    recipe: Recipe | str | Path | Mapping[str, Any],
    gpu: Gpu | str | None = None,
    count: int | None = None,
    versions: Mapping[str, str] | None = None,
) -> Findings:
    """What the rules say of a recipe.

    Parameters
    ----------
    recipe : Recipe, str, Path or mapping
        What is judged, the name of one, a file, or its keys and values; nothing is started.
    gpu : Gpu or str, optional
        What it is to run on, or its name. Without one, rules that need a GPU are silent.
    count : int, optional
        How many of them; as many as the recipe has ranks by default.
    versions : mapping, optional
        Package -> version. They go before the recipe's own ``versions``, and these before what is installed.

    Raises
    ------
    InputError
        For a count, a package or a version that cannot be; for a model that is not there; for a rule file
        that is wrong.
    """
    from glmlab.gpus import find_gpu
    from glmlab.recipe_book import find_recipe

    recipe = recipe if isinstance(recipe, Recipe) else find_recipe(recipe)
    gpu = find_gpu(gpu) if isinstance(gpu, str) else gpu
    if count is None:
        count = recipe.ranks
    number: object = count
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InputError(f"count = {count!r}: expected a number of GPUs, 1 or more")
    facts = facts_of(recipe, gpu, count, versions_in_force(recipe, versions))
    found = Findings()
    for rule in load_rules():
        said: dict[str, Any] = {}
        if rule.condition.judge(facts, said) is True:
            found.append(_finding(rule, facts, said))
    found.sort(key=lambda finding: SEVERITIES.index(finding.severity))
    return found


def apply_fix(recipe: Recipe, finding: Finding) -> Recipe:
    """The recipe with a finding's change made.

    Fields are set; keys of ``env`` and ``engine_args`` one by one, and go where the change says None.

    Raises
    ------
    InputError
        If the finding has no change that could be made.
    RecipeError
        If the change contradicts another field of the recipe.
    """
    if finding.change is None:
        raise InputError(f"finding {finding.id}: no change of the recipe mends it; {finding.fix}")
    return merged(recipe, finding.change)


def versions_in_force(recipe: Recipe, versions: Mapping[str, str] | None = None) -> Versions:
    """Package -> version that rules go by.

    What is said of one version of the engine says nothing of another. So the recipe's other packages count
    only beside the engine that it names, and what is installed, which counts after these, beside an engine of
    the very version that is installed. A package of which nobody says anything is the one that the engine's
    release pins, where that was looked up (``data/pins``).

    Raises
    ------
    InputError
        For an unknown package, or what is no version.
    """
    given = versions or {}
    _checked(recipe.versions, f"recipe {recipe.name}: versions")
    _checked(given, "versions")
    engine = recipe.serving_engine
    own = recipe.versions
    if engine in given and engine in own and not same_version(given[engine], own[engine]):
        own = {}
    asked = {**own, **given}
    here = installed_packages()
    if engine in here and same_version(asked.get(engine, here[engine]), here[engine]):
        others = {package: version for package, version in here.items() if package not in _ENGINES}
        return Versions({**others, engine: here[engine], **asked})
    return Versions(asked, pinned_by(engine, asked[engine]) if engine in asked else None)


def _checked(versions: Mapping[str, str], where: str) -> None:
    for package, version in versions.items():
        if package not in PACKAGES:
            raise InputError(
                f"{where}.{package}: no package that rules know{did_you_mean(package, PACKAGES)}"
            )
        if not is_version(version):
            raise InputError(f"{where}.{package} = {version!r}: not a version, such as '0.32.0'")


def _finding(rule: Rule, facts: dict[str, Any], said: Mapping[str, Any]) -> Finding:
    change = None if rule.change is None else {k: _computed(v, said) for k, v in rule.change.items()}
    why, fix = filled(rule.why, facts, said), filled(rule.fix, facts, said)
    return Finding(rule.id, rule.severity, why, fix, change, rule.source)


def _computed(value: Any, said: Mapping[str, Any]) -> Any:
    if isinstance(value, Mapping):
        return {key: _computed(item, said) for key, item in value.items()}
    if isinstance(value, str) and value.startswith("$"):
        return said[value[1:]]
    return value


def summed_up(findings: Sequence[Finding]) -> str:
    """How many of which kind, and what that means for the recipe, in one line."""
    words = {"blocks": "block", "warns": "warning", "notes": "note"}
    counts = {severity: sum(each.severity == severity for each in findings) for severity in SEVERITIES}
    said = ", ".join(counted(number, words[kind]) for kind, number in counts.items() if number)
    verdict = "will not run as it is" if counts["blocks"] else "no rule keeps it from running"
    return f"{said or 'nothing to say'}: {verdict}"


def change_text(change: Mapping[str, Any]) -> str:
    """A change as a recipe file would have it."""
    return ", ".join(f"{key}: {_word(value)}" for key, value in change.items())


def _word(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + change_text(value) + "}"
    return "null" if value is None else word(value)
