"""How a checkpoint's own config.json says that it is quantized, read into a layout.

Four dialects, under ``quantization_config``: modelopt, compressed-tensors, fp8, awq and gptq. Which
modules stay unquantized stands in lists of names, prefixes, wildcards and ``re:`` expressions; each is
held against the names of every module of every layer (:mod:`glmlab.models.weight_table`).

Source: ``model_executor/layers/quantization`` of vLLM 0.32.0 (modelopt.py, compressed_tensors, fp8.py,
awq.py, gptq.py) for the keys and for how the lists are matched.
"""

from __future__ import annotations

import fnmatch
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from glmlab.errors import RecipeError
from glmlab.models.quant_layout import Mix, NumberFormat, QuantLayout, find_format, find_layout, plain
from glmlab.models.shape import ModelShape
from glmlab.models.weight_table import Part, Weight, weight_table

_IGNORE_KEYS = ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers")
# Never a quantizer's target: looked up or kept exact by every engine (linear layers alone are converted).
_NEVER: frozenset[Part] = frozenset({"embedding", "router", "norms"})


def layout_of(config: Mapping[str, Any], shape: ModelShape, where: str) -> QuantLayout:
    """The layout that a config.json describes.

    Parameters
    ----------
    config : mapping
        Content of config.json.
    shape : ModelShape
        Its sizes.
    where : str
        Names it in errors.

    Raises
    ------
    RecipeError
        If it is quantized in a way that is not known here.
    """
    given = config.get("quantization_config") or config.get("compression_config")
    if given is None:
        return find_layout("bf16")
    if not isinstance(given, Mapping):
        raise RecipeError(f"{where}: quantization_config = {given!r}: expected keys and values")
    inner = given.get("quantization")
    said = {**given, **inner} if isinstance(inner, Mapping) else dict(given)
    method = str(said.get("quant_method") or said.get("quant_algo") or "")
    kind = _format(method, said, where)
    ignored = _matcher(
        [name for key in _IGNORE_KEYS for name in said.get(key) or () if isinstance(name, str)]
    )
    targets_head = "lm_head" in str(said.get("config_groups", ""))
    parts: dict[Part, Mix] = {}
    shares: dict[Part, list[int]] = defaultdict(lambda: [0, 0])
    for name, weight in _modules(shape):
        if weight.part in _NEVER or (weight.part == "lm_head" and not targets_head):
            continue
        counted = shares[weight.part]
        counted[0] += 0 if ignored(name) else weight.params
        counted[1] += weight.params
    for part, (quantized, whole) in shares.items():
        if part != "mtp" and quantized:
            parts[part] = _blend(kind, quantized / whole)
    mtp_quantized, mtp_whole = shares.get("mtp", [0, 0])
    return QuantLayout(
        name=str(said.get("quant_algo") or said.get("format") or method).lower(),
        parts=parts,
        mtp=_blend(kind, mtp_quantized / mtp_whole) if mtp_whole else None,
        methods=(method,),
        kv_cache=_kv_cache(said),
        source=f"{where}: quantization_config",
    )


def _format(method: str, said: Mapping[str, Any], where: str) -> tuple[str, NumberFormat]:
    """Name and cost of a quantized weight."""
    lower = method.lower()
    if lower.startswith("modelopt") or lower in ("nvfp4", "fp8_pb_wo"):
        algorithm = str(said.get("quant_algo", "")).upper()
        known = {
            "NVFP4": "nvfp4", "FP8": "fp8-tensor", "FP8_PB_WO": "fp8-block",
            "FP8_PER_CHANNEL_PER_TOKEN": "fp8-channel", "MXFP4": "mxfp4",
        }  # fmt: skip
        if algorithm in known:
            return known[algorithm], find_format(known[algorithm])
        raise _unknown(where, f"quant_algo = {said.get('quant_algo')!r}", known)
    if lower == "fp8":
        name = "fp8-block" if said.get("weight_block_size") else "fp8-tensor"
        return _block(name, said.get("weight_block_size"))
    if lower in ("awq", "gptq", "awq_marlin", "gptq_marlin"):
        zero = bool(said.get("zero_point", False))
        return _integer(said.get("bits", said.get("w_bit")), said.get("group_size", 128), zero, where)
    if lower == "compressed-tensors":
        return _compressed(said, where)
    allowed = ("modelopt", "compressed-tensors", "fp8", "awq", "gptq")
    raise _unknown(where, f"quant_method = {method!r}", allowed)


def _compressed(said: Mapping[str, Any], where: str) -> tuple[str, NumberFormat]:
    groups = said.get("config_groups")
    weights = [
        group.get("weights")
        for group in (groups.values() if isinstance(groups, Mapping) else ())
        if isinstance(group, Mapping)
    ]
    if not weights or not isinstance(weights[0], Mapping) or any(each != weights[0] for each in weights):
        raise _unknown(where, "config_groups", ("one group, or several with the same weights",))
    first = weights[0]
    bits, kind, strategy = first.get("num_bits"), first.get("type"), first.get("strategy")
    if kind == "float" and bits == 8:
        return (
            _block("fp8-block", first.get("block_structure"))
            if strategy == "block"
            else _named("fp8-channel" if strategy == "channel" else "fp8-tensor")
        )
    if kind == "float" and bits == 4:
        return _named("nvfp4" if first.get("group_size", 16) == 16 else "mxfp4")
    if kind == "int" and bits == 8 and strategy in ("channel", "tensor"):
        return _named("int8-channel")
    if kind == "int":
        return _integer(bits, first.get("group_size"), not first.get("symmetric", True), where)
    raise _unknown(where, f"weights of {bits!r} bits, type {kind!r}", ("float of 4 or 8", "int of 4 or 8"))


def _named(name: str) -> tuple[str, NumberFormat]:
    return name, find_format(name)


def _block(name: str, block: Any) -> tuple[str, NumberFormat]:
    base = find_format(name)
    if (
        isinstance(block, list)
        and len(block) == 2
        and all(isinstance(side, int) and side > 0 for side in block)
    ):
        return name, base.model_copy(update={"group": block[0] * block[1]})
    return name, base


def _integer(bits: Any, group: Any, zero: bool, where: str) -> tuple[str, NumberFormat]:
    if bits not in (4, 8) or not isinstance(group, int) or isinstance(group, bool) or group == 0:
        raise _unknown(
            where, f"bits = {bits!r}, group_size = {group!r}", ("4 or 8 bits", "a group above 0 or -1")
        )
    name = f"int{bits}-g{group}" if group > 0 else f"int{bits}-channel"
    return name + ("-zero" if zero else ""), NumberFormat(
        bits=bits,
        scale_bits=16,
        zero_bits=bits if zero else 0,
        group=group if group > 0 else "row",
        source=f"{where}: bits and group_size; scales of 16 bits",
    )


def _blend(kind: tuple[str, NumberFormat], share: float) -> Mix:
    if share == 0:
        return plain()
    if share == 1:
        return Mix(((*kind, 1.0),))
    name, cost, _ = plain().formats[0]
    return Mix(((*kind, share), (name, cost, 1 - share)))


def _modules(shape: ModelShape) -> Iterator[tuple[str, Weight]]:
    """Full name of every matrix, those of the MTP layer counted under ``mtp``."""
    table = weight_table(shape)
    for layer in range(shape.num_hidden_layers + shape.num_nextn_predict_layers):
        is_mtp = layer >= shape.num_hidden_layers
        forward = table.dense if layer < shape.first_k_dense_replace else table.moe
        for weight in (*table.attention, *table.indexer, *forward, *(table.mtp if is_mtp else ())):
            if weight.is_matrix and not (is_mtp and weight.part in _NEVER):
                found = weight._replace(part="mtp") if is_mtp else weight
                yield f"model.layers.{layer}.{weight.module}", found
    yield from ((weight.module, weight) for weight in table.last if weight.is_matrix)


def _matcher(patterns: Iterable[str]) -> Callable[[str], bool]:
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


def _kv_cache(said: Mapping[str, Any]) -> str | None:
    """KV dtype that the checkpoint asks for: ``kv_cache_dtype`` of vLLM's ``torch_utils.py`` reads it so."""
    scheme = said.get("kv_cache_scheme") or said.get("kv_cache_quant_algo")
    if isinstance(scheme, Mapping):
        return (
            {8: "fp8", 4: "nvfp4"}.get(scheme.get("num_bits", 0)) if scheme.get("type") == "float" else None
        )
    return {"fp8": "fp8", "nvfp4": "nvfp4"}.get(str(scheme).lower())


def _unknown(where: str, what: str, allowed: Iterable[str]) -> RecipeError:
    return RecipeError(
        f"{where}: quantization_config: {what}: a layout that glmlab does not know, so bytes cannot be"
        f" computed; known: {', '.join(allowed)}; name a layout in the recipe's quantization instead"
    )
