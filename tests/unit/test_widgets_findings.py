"""Findings stand beside the field that causes them, and a button makes their change."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from glmlab.recipe import Recipe
from glmlab.recipe_book import find_recipe
from glmlab.rules import Finding, check, load_rules
from glmlab.widgets.findings import FindingsPanel, field_of, finding_html, summary
from glmlab.widgets.look import is_shown

RECIPE = Recipe(name="unit", model="glm-5.1-reap-160", tensor_parallel=4, block_size=64)
# These are about the software of the machine, or about the engine as a whole.
NOBODYS = {
    "transformers-too-old",
    "transformers-excluded",
    "cutlass-dsl-4.5.0",
    "sglang-is-not-started",
    "triton-mla-four-splits",
}


def finding(rule_id: str = "made-up", severity="warns", change=None, why="why") -> Finding:
    return Finding(rule_id, severity, why, "the fix", change, "the source")


def of_rule(rule_id: str) -> Finding:
    rule = next(rule for rule in load_rules() if rule.id == rule_id)
    return Finding(rule.id, rule.severity, rule.why, rule.fix, rule.change, rule.source)


@pytest.fixture
def panel():
    return FindingsPanel()


def visible(panel: FindingsPanel):
    return [slot for slot in panel.slots if is_shown(slot)]


def test_each_packaged_rule_has_a_field_unless_it_is_about_the_software():
    homes = {rule.id: field_of(of_rule(rule.id), RECIPE) for rule in load_rules()}
    assert {rule for rule, field in homes.items() if field is None} == NOBODYS
    assert {field for field in homes.values() if field} <= set(Recipe.model_fields)


@pytest.mark.parametrize(
    ("rule_id", "field"),
    [
        ("heads-do-not-divide", "tensor_parallel"),
        ("more-ranks-than-gpus", "tensor_parallel"),
        ("sparse-mla-page-size", "block_size"),
        ("moe-tile-exceeds-shared-memory", "moe_tiles"),
        ("kv-splits-power-of-two", "kv_splits"),
        ("context-beyond-model", "max_model_len"),
        ("mtp-layer-missing", "mtp_tokens"),
        ("nccl-p2p-off", "env"),
        ("tool-parser-of-another-generation", "engine_args"),
        ("stray-num-experts", "model"),
        ("no-tuned-moe-file", "moe_tiles"),
    ],
)
def test_a_finding_stands_beside_what_causes_it(rule_id, field):
    assert field_of(of_rule(rule_id), RECIPE) == field


def test_a_rule_that_is_gone_goes_by_its_change():
    assert field_of(finding(change={"kv_splits": 8}), RECIPE) == "kv_splits"
    assert field_of(finding(), RECIPE) is None


def test_a_finding_says_how_bad_why_what_to_do_and_where_from():
    html = finding_html(finding(change={"kv_splits": None, "env": {"A": "1"}}), "kv_splits")
    for part in (
        "Warning:",
        "<code>kv_splits</code>",
        "why",
        "the fix",
        "kv_splits: null, env: {A: 1}",
        "the source",
    ):
        assert part in html


def test_values_are_escaped():
    html = finding_html(finding(why="<script>", change={"model": "<b>"}))
    assert "<script>" not in html
    assert "<b>}" not in html


def test_the_summary_counts_and_judges():
    assert summary([]) == "No rule has anything to say."
    some = [finding(severity="blocks"), finding(), finding()]
    assert summary(some) == "1 block, 2 warnings: will not run as it is."
    assert summary([finding(severity="notes")]) == "1 note: no rule keeps it from running."


def test_a_button_names_its_change_and_hands_over_the_finding(panel):
    fixed: list[Finding] = []
    panel.on_fix(fixed.append)
    can, cannot = finding(change={"kv_splits": 8}), finding(severity="notes")
    panel.show_findings([can, cannot], RECIPE)
    first, second = visible(panel)
    assert first.button.description == "Apply fix: kv_splits: 8"
    assert "the fix" in first.button.tooltip
    assert not is_shown(second.button)
    first.button.click()
    second.button.click()
    assert fixed == [can, cannot]


def test_a_change_that_cannot_be_made_now_is_locked_with_the_reason(panel):
    panel.show_findings([finding(change={"kv_splits": 8}), finding(change={"block_size": 8})], RECIPE)
    panel.lock(lambda changes: "an engine runs" if "block_size" in changes else "")
    free, locked = visible(panel)
    assert not free.button.disabled
    assert locked.button.disabled
    assert locked.button.tooltip == "an engine runs"


def test_more_findings_than_places_are_still_told(panel):
    many = [finding(why=f"reason {n}", change={"kv_splits": n}) for n in range(12)]
    panel.show_findings(many, RECIPE)
    text = "".join(slot.text for slot in visible(panel)) + panel._others.value
    assert [n for n in range(12) if f"reason {n}<" in text] == list(range(12))
    panel.show_findings(many[:1], RECIPE)
    assert len(visible(panel)) == 1
    assert panel._others.value == ""


def test_a_real_check_is_shown_from_another_thread_without_making_a_widget(panel):
    recipe = find_recipe("glm-5.1-reap-160-vllm-sparse").replace(tensor_parallel=3)
    found = check(recipe, "rtx-pro-6000", 4)
    before = [id(child) for slot in panel.slots for child in (slot, *slot.children)]
    with ThreadPoolExecutor(1) as pool:
        pool.submit(panel.show_findings, found, recipe).result()
    assert [id(child) for slot in panel.slots for child in (slot, *slot.children)] == before
    assert "will not run as it is" in panel._line.value
    assert any("tensor_parallel" in slot.button.description for slot in visible(panel))


def test_why_there_are_none_is_said(panel):
    panel.show_findings([finding()], RECIPE)
    panel.say("The rules cannot be asked: model = 'x': no such model")
    assert visible(panel) == []
    assert "no such model" in panel._line.value
