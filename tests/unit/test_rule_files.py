"""Rule files: a user's own laid over the packaged ones; what contradicts itself is refused with its line."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from glmlab.errors import RuleError
from glmlab.gpus import find_gpu
from glmlab.recipe import Recipe
from glmlab.rules import check, load_rules

RECIPE = Recipe.parse({"name": "r", "model": "glm-4.7", "tensor_parallel": 2})
GOOD = """
# a rule of my own
- id: mine
  severity: warns
  when: {tensor_parallel: "> 1"}
  why: tensor_parallel = {tensor_parallel}, one is enough
  fix: one
  change: {tensor_parallel: 1}
  source: me
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Put a file into a folder of own rules."""
    (tmp_path / "rules").mkdir()
    monkeypatch.setenv("GLMLAB_DATA", str(tmp_path))
    monkeypatch.setattr("glmlab.rules.installed_packages", dict)

    def put(text: str, name: str = "own.yaml") -> Path:
        path: Path = tmp_path / "rules" / name
        path.write_text(text, encoding="utf-8")
        return path

    return put


def ids(recipe: Recipe = RECIPE) -> set[str]:
    return {finding.id for finding in check(recipe)}


def test_a_rule_of_ones_own_is_heard(write):
    write(GOOD)
    (finding,) = check(RECIPE)[:1]
    assert (finding.id, finding.severity, finding.source) == ("mine", "warns", "me")
    assert finding.why == "tensor_parallel = 2, one is enough"
    assert finding.change == {"tensor_parallel": 1}
    assert "mine" not in ids(RECIPE.replace(tensor_parallel=1))


def test_a_changed_file_is_read_again(write):
    path = write(GOOD)
    assert "mine" in ids()
    path.write_text(GOOD.replace("> 1", "> 2"), encoding="utf-8")
    os.utime(path, ns=(1, time.time_ns()))
    assert "mine" not in ids()


def test_a_rule_with_a_packaged_id_takes_its_place(write):
    write(GOOD.replace("mine", "parsers-glm47"))
    (finding,) = [each for each in check(RECIPE) if each.id == "parsers-glm47"]
    assert finding.severity == "warns"
    assert len([rule for rule in load_rules() if rule.id == "parsers-glm47"]) == 1


def test_a_packaged_rule_can_be_switched_off(write):
    assert "parsers-glm47" in ids()
    write("- {id: parsers-glm47, off: my server has its parsers}\n")
    assert "parsers-glm47" not in ids()


@pytest.mark.parametrize(
    ("old", "new", "line", "said"),
    [
        ("severity: warns", "severity: errors", 4, "severity = 'errors': expected blocks, warns, notes"),
        ("severity: warns", "severty: warns", 4, "severty: unknown key; did you mean severity"),
        ("id: mine", "id: My Rule", 3, "id = 'My Rule': expected small letters"),
        (
            "why: tensor_parallel = {tensor_parallel}, one is enough",
            "why: ''",
            6,
            "why = '': expected a line of text",
        ),
        ("{tensor_parallel}", "{tensor_paralel}", 6, "{tensor_paralel} is no fact"),
        ("source: me", "source: vLLM #43477", 9, "what follows ' #' is a comment to YAML"),
        ("source: me", "note: me", 9, "note: unknown key"),
        # conditions
        ('{tensor_parallel: "> 1"}', "{}", 5, "when: empty"),
        ('{tensor_parallel: "> 1"}', "[1]", 5, "when: expected facts and what they must be, found a list"),
        (
            '{tensor_parallel: "> 1"}',
            '{tensor_paralel: "> 1"}',
            5,
            "tensor_paralel: no such fact; did you mean tensor_p",
        ),
        (
            '{tensor_parallel: "> 1"}',
            "{model.attention: mha}",
            5,
            "model.attention = 'mha': not one of its values; ",
        ),
        (
            '{tensor_parallel: "> 1"}',
            "{kv_cache_dtype: fp4}",
            5,
            "kv_cache_dtype = 'fp4': not one of its values",
        ),
        (
            '{tensor_parallel: "> 1"}',
            "{tensor_parallel: two}",
            5,
            "tensor_parallel = 'two': expected a number",
        ),
        ('{tensor_parallel: "> 1"}', '{gpu.link: "> 1"}', 5, "only numbers and versions can be compared"),
        ('{tensor_parallel: "> 1"}', '{version.vllm: "0.x"}', 5, "'0.x': expected a range of versions"),
        ('{tensor_parallel: "> 1"}', "{tensor_parallel: unknown}", 5, "fields are always known"),
        ('{tensor_parallel: "> 1"}', "{tensor_parallel: null}", 5, "null: this is always set"),
        ('{tensor_parallel: "> 1"}', "{holds: magic}", 5, "holds = 'magic': no such arithmetic"),
        ('{tensor_parallel: "> 1"}', "{any: {tensor_parallel: 2}}", 5, "any: expected a list of conditions"),
        ('{tensor_parallel: "> 1"}', "{not: {holds: stray-num-experts}}", 5, "it cannot be turned round"),
        # what can never hold
        ('{tensor_parallel: "> 1"}', '{tensor_parallel: "< 1"}', 5, "no value of tensor_parallel passes"),
        (
            '{tensor_parallel: "> 1"}',
            '{all: [{tensor_parallel: "> 4"}, {tensor_parallel: "< 3"}]}',
            5,
            "can never hold: no value of tensor_parallel passes",
        ),
        (
            '{tensor_parallel: "> 1"}',
            '{tensor_parallel: "> 1", all: [{version.vllm: ">=0.24"}, {version.vllm: "<0.24"}]}',
            5,
            "can never hold: no value of version.vllm passes",
        ),
        (
            '{tensor_parallel: "> 1"}',
            '{tensor_parallel: "> 1", version.vllm: ">=0.24,<0.24"}',
            5,
            "can never hold: no value of version.vllm passes",
        ),
        (
            '{tensor_parallel: "> 1"}',
            "{gpu.link: pcie, not: {gpu.link: pcie}}",
            5,
            "can never hold: no value of gpu.link passes",
        ),
        (
            '{tensor_parallel: "> 1"}',
            "{model.type: glm4_moe, model.attention: [mla, mla+dsa]}",
            5,
            "can never hold: no model.type that passes has a model.attention that does",
        ),
        (
            '{tensor_parallel: "> 1"}',
            "{attention.backend: TRITON_ATTN, serving_engine: sglang}",
            5,
            "can never hold: attention.backend is known for vllm only",
        ),
        (
            '{tensor_parallel: "> 1"}',
            "{enforce_eager: true, cudagraph_mode: FULL}",
            5,
            "can never hold: a recipe that it describes is refused",
        ),
        # changes
        (
            "{tensor_parallel: 1}",
            "{tensor_paralel: 1}",
            8,
            "tensor_paralel: no field that a fix may change; did you",
        ),
        ("{tensor_parallel: 1}", "{name: other}", 8, "name: no field that a fix may change"),
        ("{tensor_parallel: 1}", "{tensor_parallel: 0}", 8, "the Recipe refuses it"),
        ("{tensor_parallel: 1}", "{tensor_parallel: two}", 8, "the Recipe refuses it"),
        ("{tensor_parallel: 1}", "{tensor_parallel: 4}", 8, "the rule would say the same again"),
        ("{tensor_parallel: 1}", "{seed: 3}", 8, "the rule would say the same again"),
        (
            "{tensor_parallel: 1}",
            "{tensor_parallel: $nearest}",
            8,
            "no arithmetic of this rule says 'nearest'",
        ),
        ("{tensor_parallel: 1}", "{env: 3}", 8, "env = 3: expected keys and values"),
        ("{tensor_parallel: 1}", "[]", 8, "expected fields of a recipe and values, found a list"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_with_its_line(write, old, new, line, said):
    assert GOOD.count(old) >= 1
    text = GOOD.replace(old, new, 1) if old != "{tensor_parallel}" else GOOD.replace(old, new)
    path = write(text)
    with pytest.raises(RuleError) as refused:
        check(RECIPE)
    message = str(refused.value)
    assert message.startswith(f"{path} line {line}: ")
    assert said in message
    assert "\n" not in message


def test_a_change_must_end_every_case_of_the_rule(write):
    rule = GOOD.replace(
        '{tensor_parallel: "> 1"}', '{any: [{tensor_parallel: "> 1"}, {pipeline_parallel: "> 1"}]}'
    )
    write(rule)
    with pytest.raises(RuleError, match="the rule would say the same again"):
        load_rules()
    write(rule.replace("{tensor_parallel: 1}", "{tensor_parallel: 1, pipeline_parallel: 1}"))
    assert "mine" in {each.id for each in load_rules()}


def test_a_rule_that_undoes_another_is_refused(write):
    undo = """
- id: dense-is-bad
  severity: warns
  when: {model.attention: mla+dsa, dense_mla: true}
  why: w
  fix: f
  change: {dense_mla: false}
  source: me, of dense attention
"""
    path = write(undo)
    with pytest.raises(RuleError) as refused:
        load_rules()
    message = str(refused.value)
    assert message.startswith(f"{path} line 2: rule dense-is-bad: change: rule sparse-mla-")
    assert message.endswith("undo each other's; drop the change of one of them, or its rule")
    assert "\n" not in message
    # With another condition on what the packaged rules ask, they never meet.
    write(undo.replace("dense_mla: true}", 'dense_mla: true, version.vllm: ">=0.32", gpu.capability: "<12"}'))
    assert "dense-is-bad" in {each.id for each in load_rules()}


def test_changes_that_come_to_rest_are_no_contradiction(write):
    rule = """
- {id: a, severity: warns, when: {seed: 1}, why: w, fix: f, change: {seed: 2}, source: me}
- {id: b, severity: warns, when: {seed: 2}, why: w, fix: f, change: {seed: 3}, source: me}
"""
    write(rule)
    assert {"a", "b"} <= {each.id for each in load_rules()}
    write(rule.replace("{seed: 3}", "{seed: 1}"))
    os.utime(Path(os.environ["GLMLAB_DATA"]) / "rules" / "own.yaml", ns=(1, time.time_ns() + 10**9))
    with pytest.raises(RuleError, match="rule a: change: rule b"):
        load_rules()


def test_a_change_of_env_is_made_key_by_key(write):
    rule = GOOD.replace('{tensor_parallel: "> 1"}', '{env.A: "1", tensor_parallel: 2}')
    write(rule.replace("change: {tensor_parallel: 1}", 'change: {env: {B: "2"}}'))
    with pytest.raises(RuleError, match="the rule would say the same again"):
        load_rules()
    write(rule.replace("change: {tensor_parallel: 1}", "change: {env: {A: null}}"))
    assert "mine" in ids(RECIPE.replace(env={"A": "1"}))


def test_an_id_twice_is_refused_with_both_places(write):
    path = write(GOOD + GOOD.lstrip().replace("# a rule of my own\n", ""))
    with pytest.raises(RuleError) as refused:
        load_rules()
    assert str(refused.value).startswith(f"{path} line 10: id = 'mine': {path} line 3 has the same")


def test_an_id_twice_in_two_files_is_refused(write):
    first, second = write(GOOD, "a.yaml"), write(GOOD, "b.yaml")
    with pytest.raises(RuleError) as refused:
        load_rules()
    assert str(refused.value).startswith(f"{second} line 3: id = 'mine': {first} line 3 has the same")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("id: mine\n", "line 1: expected a list of rules, found"),
        ("- mine\n", "line 1: expected a rule, found text"),
        ("- id: mine\n  when: [\n", "line 3, column 1: not valid YAML"),
        ("- {id: no-such-rule, off: because}\n", "no such rule to switch off"),
        ("- {id: parsers-glm47, off: because, why: x}\n", "off: stands alone"),
    ],
)
def test_a_file_that_cannot_be_is_refused(write, text, said):
    path = write(text)
    with pytest.raises(RuleError) as refused:
        load_rules()
    assert str(refused.value).startswith(str(path))
    assert said in str(refused.value)


def test_the_language_says_what_it_means(write):
    gpu = find_gpu("rtx-pro-6000")

    def speaks(when: str, **fields: object) -> bool:
        write(GOOD.replace('{tensor_parallel: "> 1"}', when).replace("  change: {tensor_parallel: 1}\n", ""))
        os.utime(Path(os.environ["GLMLAB_DATA"]) / "rules" / "own.yaml", ns=(1, next(stamps)))
        recipe = RECIPE.replace(**fields)
        return "mine" in {each.id for each in check(recipe, gpu, 2, {"vllm": "0.32.0+cpu"})}

    stamps = iter(range(10**15, 10**16, 10**9))
    assert speaks("{kv_splits: null}")
    assert not speaks("{kv_splits: null}", kv_splits=4)
    assert speaks('{kv_splits: "!= null"}', kv_splits=4)
    assert not speaks('{kv_splits: "> 0"}')
    assert speaks("{tensor_parallel: [1, 2]}")
    assert speaks("{attention_backend: contains triton}", attention_backend="TRITON_ATTN")
    assert not speaks("{attention_backend: contains triton}")
    assert speaks('{gpu.capability: ">=12,<13", gpu.link: pcie, gpu.count: 2}')
    assert speaks('{version.vllm: ">=0.32"}')
    assert speaks("{version.vllm: 0.32.0}")
    assert speaks("{version.sglang: unknown}")
    assert not speaks("{version.vllm: unknown}")
    # Neither true nor false, so not true when turned round, either.
    assert not speaks('{version.sglang: ">=0.1"}')
    assert not speaks('{not: {version.sglang: ">=0.1"}}')
    assert speaks('{any: [{version.sglang: ">=0.1"}, {tensor_parallel: 2}]}')
    assert speaks("{not: {env.A: x}}")
    assert not speaks("{not: {env.A: x}}", env={"A": "x"})
    assert speaks("{engine_args.compilation_config.mode: 3}", engine_args={"compilation_config": {"mode": 3}})
