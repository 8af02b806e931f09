"""How a checkpoint's own config.json says that it is quantized, read into a layout.

Four dialects, under ``quantization_config``: modelopt, compressed-tensors, fp8, awq and gptq. Which
modules stay unquantized stands in lists of names, prefixes, wildcards and ``re:`` expressions, and which
ones a group of compressed-tensors is for in its targets; each is held against the names of every module of
every layer (:mod:`glmlab.models.module_names`).

Source: ``model_executor/layers/quantization`` of vLLM 0.32.0 (modelopt.py, compressed_tensors, fp8.py,
awq.py, gptq.py) for the keys and for how the lists are matched.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from glmlab.errors import RecipeError
from glmlab.models.module_names import (
    NEVER,
    class_of,
    is_attention,
    is_understood,
    left_out,
    modules,
    target_of,
)
from glmlab.models.quant_layout import Mix, NumberFormat, QuantLayout, find_format, find_layout, plain
from glmlab.models.shape import ModelShape
from glmlab.models.weight_table import Part, Weight

_IGNORE_KEYS = ("ignore", "exclude_modules", "modules_to_not_convert", "ignored_layers")
Kind = tuple[str, NumberFormat]  # name and cost of a quantized weight
KindOf = Callable[[str], Kind | None]


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
    every = tuple(modules(shape))
    kind_of = _kind_of(method, said, every, where)
    ignored = left_out(_ignored(said, where))
    shares: dict[Part, dict[Kind | None, int]] = defaultdict(lambda: defaultdict(int))
    for name, weight in every:
        if weight.part not in NEVER:
            shares[weight.part][None if ignored(name) else kind_of(name)] += weight.params
    mixes = {part: _blend(found) for part, found in shares.items()}
    return QuantLayout(
        name=str(said.get("quant_algo") or said.get("format") or method).lower(),
        parts={part: mix for part, mix in mixes.items() if part != "mtp" and not mix.is_plain},
        mtp=mixes.get("mtp"),
        methods=(method,),
        kv_cache=_kv_cache(said, where),
        source=f"{where}: quantization_config",
    )


def _ignored(said: Mapping[str, Any], where: str) -> Iterator[str]:
    for key in _IGNORE_KEYS:
        names = said.get(key)
        if names is None:
            continue
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise RecipeError(
                f"{where}: quantization_config.{key} = {_shown(names)}: expected a list of module names"
            )
        yield from names


def _kind_of(method: str, said: Mapping[str, Any], every: Sequence[tuple[str, Weight]], where: str) -> KindOf:
    """How each module is quantized that no list leaves out."""
    if method.lower() == "compressed-tensors":
        return _grouped(said, every, where)
    kind = _format(method, said, where)
    return lambda name: None if name == "lm_head" else kind


def _grouped(said: Mapping[str, Any], every: Sequence[tuple[str, Weight]], where: str) -> KindOf:
    """By the groups' targets: names first, then classes, each in the groups' order."""
    groups = said.get("config_groups")
    if not isinstance(groups, Mapping) or not groups:
        raise _unknown(where, "config_groups", ("groups with targets and weights",))
    by_name: list[tuple[Callable[[str], bool], Kind | None]] = []
    by_class: list[tuple[Callable[[str], bool], Kind | None]] = []
    for key, group in groups.items():
        named = f"config_groups.{key}"
        targets = group.get("targets") if isinstance(group, Mapping) else None
        if not isinstance(targets, list) or not targets or not all(isinstance(t, str) for t in targets):
            raise _unknown(
                where, f"{named}.targets = {_shown(targets)}", ("a list of names and expressions",)
            )
        if is_attention(targets):
            continue
        if (odd := next((target for target in targets if not is_understood(target)), None)) is not None:
            allowed = ("Linear", "RoutedExperts", "a whole module name", "re: and an expression")
            raise _unknown(where, f"{named}.targets has {_shown(odd)}", allowed)
        named_so, of_class = target_of(targets), class_of(targets)
        if not any(named_so(name) or of_class(name) for name, _ in every) and "lm_head" not in targets:
            raise _unknown(where, f"{named}.targets = {_shown(targets)}", ("targets that this model has",))
        kind = _compressed(group.get("weights"), where)
        by_name.append((named_so, kind))
        by_class.append((of_class, kind))
    found = (*by_name, *by_class)

    def kind_of(name: str) -> Kind | None:
        return next((kind for means, kind in found if means(name)), None)

    return kind_of


def _format(method: str, said: Mapping[str, Any], where: str) -> Kind:
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
    allowed = ("modelopt", "compressed-tensors", "fp8", "awq", "gptq")
    raise _unknown(where, f"quant_method = {method!r}", allowed)


def _compressed(weights: Any, where: str) -> Kind | None:
    """Of one group; None where it leaves weights as they are and quantizes activations only."""
    if weights is None:
        return None
    if not isinstance(weights, Mapping):
        raise _unknown(where, f"weights = {_shown(weights)}", ("keys and values",))
    bits, kind, strategy = weights.get("num_bits"), weights.get("type"), weights.get("strategy")
    if kind == "float" and bits == 8:
        return (
            _block("fp8-block", weights.get("block_structure"))
            if strategy == "block"
            else _named("fp8-channel" if strategy == "channel" else "fp8-tensor")
        )
    if kind == "float" and bits == 4:
        return _named("nvfp4" if weights.get("group_size", 16) == 16 else "mxfp4")
    if kind == "int" and bits == 8 and strategy in ("channel", "tensor"):
        return _named("int8-channel")
    if kind == "int":
        return _integer(bits, weights.get("group_size"), not weights.get("symmetric", True), where)
    raise _unknown(
        where,
        f"weights of {_shown(bits)} bits, type {_shown(kind)}",
        ("float of 4 or 8", "int of 4 or 8"),
    )


def _named(name: str) -> Kind:
    return name, find_format(name)


def _block(name: str, block: Any) -> Kind:
    base, sides = find_format(name), block_sides(block)
    if sides is None:
        return name, base
    return name, base.model_copy(update={"group": sides[0] * sides[1]})


def block_sides(said: Any) -> tuple[int, int] | None:
    """Rows and columns that share a scale, as a config.json says it; ``None`` where it does not."""
    if isinstance(said, list) and len(said) == 2 and all(isinstance(side, int) and side > 0 for side in said):
        return said[0], said[1]
    return None


def _integer(bits: Any, group: Any, zero: bool, where: str) -> Kind:
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


def _blend(shares: Mapping[Kind | None, int]) -> Mix:
    """The formats of one part by the parameters of each, what is not quantized last."""
    whole = sum(shares.values())
    formats = [(*kind, params / whole) for kind, params in shares.items() if kind is not None]
    if not formats:
        return plain()
    if left := shares.get(None, 0):
        name, cost, _ = plain().formats[0]
        formats.append((name, cost, left / whole))
    return Mix(tuple(formats))


def _kv_cache(said: Mapping[str, Any], where: str) -> str | None:
    """KV dtype that the checkpoint asks for: ``kv_cache_dtype`` of vLLM's ``torch_utils.py`` reads it so."""
    scheme = said.get("kv_cache_scheme") or said.get("kv_cache_quant_algo")
    if not isinstance(scheme, Mapping):
        return {"fp8": "fp8", "nvfp4": "nvfp4"}.get(str(scheme).lower())
    bits = scheme.get("num_bits")
    if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int)):
        raise RecipeError(
            f"{where}: quantization_config.kv_cache_scheme.num_bits = {_shown(bits)}: expected 8 or 4"
        )
    return {8: "fp8", 4: "nvfp4"}.get(bits or 0) if scheme.get("type") == "float" else None


def _shown(value: Any) -> str:
    """A value in an error line, cut where it is long."""
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"


def _unknown(where: str, what: str, allowed: Iterable[str]) -> RecipeError:
    return RecipeError(
        f"{where}: quantization_config: {what}: a layout that glmlab does not know, so bytes cannot be"
        f" computed; known: {', '.join(allowed)}; name a layout in the recipe's quantization instead"
    )
