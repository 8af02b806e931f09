"""Findings of the rules, with buttons that make their change."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import ipywidgets as W

from glmlab.recipe import Recipe
from glmlab.rulebook.predicates import PREDICATES
from glmlab.rules import Finding, Rule, change_text, load_rules, summed_up
from glmlab.widgets.action_slot import ActionSlot
from glmlab.widgets.style import framed, html, stylesheet

_WORD = {"blocks": "Blocks", "warns": "Warning", "notes": "Note"}
_SHOWN = 8  # with a button each; the others follow as text
Locked = Callable[[Mapping[str, Any]], str]

# What most rules ask to know whom they are about, and what nobody changes for their sake.
_SELDOM_THE_CAUSE = ("serving_engine", "model", "weights")


def never_locked(changes: Mapping[str, Any]) -> str:
    """What holds while no engine runs: every change can be made."""
    del changes
    return ""


def finding_html(finding: Finding, field: str | None = None) -> str:
    """One finding: how bad, why, what to do, where that is known from.

    Parameters
    ----------
    finding : Finding
        What a rule says.
    field : str, optional
        The field that it is about, where that is not clear from the place.
    """
    where = f"<code>{escape(field)}</code>: " if field else ""
    change = f" <code>{escape(change_text(finding.change))}</code>" if finding.change else ""
    why = f"<b>{_WORD[finding.severity]}:</b> {where}{escape(finding.why)}"
    fix = f"<b>Fix:</b> {escape(finding.fix)}{change}"
    return (
        f'<div class="glmlab-card glmlab-{escape(finding.severity)}">{why}<br>{fix}'
        f'<details><summary class="glmlab-dim">rule {escape(finding.id)}, source</summary>'
        f'<span class="glmlab-dim">{escape(finding.source)}</span></details></div>'
    )


def summary(findings: Sequence[Finding]) -> str:
    """How many of which kind, and what that means, in one line."""
    return f"{summed_up(findings)}." if findings else "No rule has anything to say."


def field_of(finding: Finding, recipe: Recipe) -> str | None:
    """The field of a recipe beside which a finding belongs: the one that causes it, as far as the rule says.

    That is a field that the rule asks about and its change sets; else one that it asks about and its fix
    names; else one that it asks about and that the recipe sets; else one that its change sets; else one that
    it asks about.

    Parameters
    ----------
    finding : Finding
        What a rule says.
    recipe : Recipe
        Of what.

    Returns
    -------
    str or None
        None where it is about the machine or its software.
    """
    asked = _asked(finding.id)
    changed = [name for name in finding.change or {} if name in Recipe.model_fields]
    telling = [name for name in asked if name not in _SELDOM_THE_CAUSE]
    differs = recipe.model_dump(exclude_defaults=True)
    ordered = (
        [name for name in telling if name in changed],
        [name for name in telling if re.search(rf"\b{name}\b", finding.fix)],
        [name for name in telling if name in differs],
        changed,
        telling,
        [name for name in asked if name == "model"],
    )
    return next((names[0] for names in ordered if names), None)


def _asked(rule_id: str) -> list[str]:
    """Fields that a rule asks about, in the recipe's order."""
    rule: Rule | None = next((each for each in load_rules() if each.id == rule_id), None)
    if rule is None:
        return []
    reads = (PREDICATES[name].reads for name in rule.condition.predicates)
    asked = {name.partition(".")[0] for name in rule.condition.facts}.union(*reads)
    return [name for name in Recipe.model_fields if name in asked]


class FindingsPanel(W.VBox):
    """All findings of a recipe, what blocks first; each with a change has a button that makes it."""

    def __init__(self) -> None:
        self._on_fix: list[Callable[[Finding], None]] = []
        self.findings: tuple[Finding, ...] = ()
        self._recipe: Recipe | None = None
        self._locked: Locked = never_locked
        self._line = html()
        self.slots = [ActionSlot[Finding]("Apply fix", "wrench", self._fix_clicked) for _ in range(_SHOWN)]
        self._others = html()
        super().__init__([stylesheet(), self._line, *self.slots, self._others])

    def on_fix(self, callback: Callable[[Finding], None]) -> None:
        """Call back with the finding whose change the user wants."""
        self._on_fix.append(callback)

    def show_findings(self, findings: Sequence[Finding], recipe: Recipe) -> None:
        """Show these in place of those before. Can be called from any thread: no widget is made.

        Parameters
        ----------
        findings : sequence of Finding
            What :func:`glmlab.check` found.
        recipe : Recipe
            Of which recipe.
        """
        self.findings, self._recipe = tuple(findings), recipe
        self._line.value = framed(f'<div role="status">Rules: {escape(summary(findings))}</div>')
        for slot in self.slots[len(findings) :]:
            slot.empty()
        for slot, each in zip(self.slots, findings, strict=False):
            change = change_text(each.change) if each.change else ""
            card, tooltip = finding_html(each, field_of(each, recipe)), f"{each.fix} (rule {each.id})"
            slot.fill(each, card, change, tooltip, self._locked(each.change or {}))
        rest = [finding_html(each, field_of(each, recipe)) for each in findings[_SHOWN:]]
        heading = f"<p>{len(rest)} more, which can be mended in the settings:</p>" if rest else ""
        self._others.value = framed(heading + "".join(rest))

    def lock(self, locked: Locked) -> None:
        """Say which changes cannot be made now.

        Parameters
        ----------
        locked : callable
            Changes -> why not; empty where they can be made.
        """
        self._locked = locked
        if self._recipe is not None and self.findings:
            self.show_findings(self.findings, self._recipe)

    def say(self, line: str) -> None:
        """Show why there are no findings."""
        self.findings = ()
        self._line.value = framed(f'<div class="glmlab-card glmlab-error" role="status">{escape(line)}</div>')
        for slot in self.slots:
            slot.empty()
        self._others.value = ""

    def _fix_clicked(self, finding: Finding) -> None:
        for callback in self._on_fix:
            callback(finding)
