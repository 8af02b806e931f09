"""Which modules of a model a quantizer's lists name: those it leaves out, and those that it is for.

Names to leave out are module names, prefixes, wildcards and ``re:`` expressions. The targets of a
compressed-tensors group are whole module names, ``re:`` expressions or the name of a class of modules, of
which ``Linear`` means every linear layer, experts included.

Source: ``quantization/utils/config_utils.py`` (``is_equal_or_regex_match``) and ``compressed_tensors`` of
vLLM 0.32.0 (``find_matched_target``, ``_add_fused_moe_to_target_scheme_map``).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator

from glmlab.models.shape import ModelShape
from glmlab.models.weight_table import Part, Weight, weight_table

# Never a quantizer's target: looked up or kept exact by every engine (linear layers alone are converted).
NEVER: frozenset[Part] = frozenset({"embedding", "router", "norms"})
_LINEAR = "Linear"
_EXPERTS = "RoutedExperts"
_UP = "up_proj"


def modules(shape: ModelShape) -> Iterator[tuple[str, Weight]]:
    """Full name of every matrix, those of the MTP layer counted under ``mtp``.

    The gate, up and down matrices of a feed-forward come one by one, since lists may name some of them.
    Expert 0 stands for all, as it does in vLLM. The MTP layer's eh_proj is left out: nothing quantizes it.
    """
    table = weight_table(shape)
    for layer in range(shape.num_hidden_layers + shape.num_nextn_predict_layers):
        is_mtp = layer >= shape.num_hidden_layers
        forward = table.dense if layer < shape.first_k_dense_replace else table.moe
        for weight in (*table.attention, *table.indexer, *forward):
            if weight.is_matrix and not (is_mtp and weight.part in NEVER):
                found = weight._replace(part="mtp") if is_mtp else weight
                yield from _single(f"model.layers.{layer}.{weight.module}", found)
    yield from ((weight.module, weight) for weight in table.last if weight.is_matrix)


def _single(name: str, weight: Weight) -> Iterator[tuple[str, Weight]]:
    """The three matrices that the table has as one."""
    if not name.endswith(_UP):
        yield name, weight
        return
    third = weight._replace(params=weight.params // 3)
    for matrix in ("gate_proj", _UP, "down_proj"):
        yield name.removesuffix(_UP) + matrix, third


def left_out(patterns: Iterable[str]) -> Callable[[str], bool]:
    """Whether one of a quantizer's patterns names a module or something that it lies in."""
    exact: set[str] = set()
    expressions: list[re.Pattern[str]] = []
    for pattern in patterns:
        if pattern.startswith("re:"):
            try:
                expressions.append(re.compile(pattern.removeprefix("re:")))
            except re.error:
                continue  # one that the engine could not use, either
        elif any(sign in pattern for sign in "*?["):
            expressions.append(re.compile(fnmatch.translate(pattern)))
        else:
            exact.add(pattern.removesuffix("."))

    def matches(name: str) -> bool:
        steps = name.split(".")
        # every run of steps that could have been named: mlp.gate, self_attn, model.layers.0
        runs = (".".join(steps[a:b]) for a in range(len(steps)) for b in range(a + 1, len(steps) + 1))
        if not exact.isdisjoint(runs):
            return True
        return any(expression.match(name) for expression in expressions)

    return matches


def is_understood(target: str) -> bool:
    """Whether a group's target says here which modules it means."""
    if target.startswith("re:"):
        try:
            re.compile(target.removeprefix("re:"))
        except re.error:
            return False
        return True
    if target in (_LINEAR, _EXPERTS, "lm_head"):
        return True
    return "." in target and not any(sign in target for sign in "*?[")


def is_attention(targets: Iterable[str]) -> bool:
    """Whether a group is about attention alone, which vLLM leaves to the KV cache's format."""
    found = list(targets)
    return len(found) == 1 and not found[0].startswith("re:") and found[0].endswith("Attention")


def target_of(targets: Iterable[str]) -> Callable[[str], bool]:
    """Whether one of a group's targets, all of them understood, means a module by its name."""
    exact: set[str] = set()
    expressions: list[re.Pattern[str]] = []
    for target in targets:
        if target.startswith("re:"):
            expressions.append(re.compile(target.removeprefix("re:")))
        else:
            exact.add(target)

    def means(name: str) -> bool:
        return name in exact or any(expression.match(name) for expression in expressions)

    return means


def class_of(targets: Iterable[str]) -> Callable[[str], bool]:
    """Whether one of a group's targets means a module by its class; vLLM asks for that after the names."""
    named = set(targets)

    def means(name: str) -> bool:
        if name == "lm_head":  # a ParallelLMHead: by name only
            return False
        return _LINEAR in named or (_EXPERTS in named and ".mlp.experts." in name)

    return means
