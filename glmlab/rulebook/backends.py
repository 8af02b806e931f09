"""Backends by name: which vLLM knows, what kind of attention each computes, on what, in which KV formats."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from glmlab.data_folders import data_folders
from glmlab.errors import RuleError
from glmlab.names import did_you_mean
from glmlab.recipe import Recipe
from glmlab.rulebook.predicate import FINE, Found
from glmlab.rulebook.predicate import predicate as _predicate
from glmlab.yaml_text import load_yaml

KINDS = {
    "gqa": "grouped-query attention",
    "mla": "dense MLA",
    "mla+dsa": "sparse MLA",
    "other": "other models or other hardware",
    "any": "what its plugin says",
}
# Where the asked format is refused: half the bytes first, as the formats that are refused have, too.
_INSTEAD = ("fp8", "fp8_e4m3", "auto")
_SPARSE = "FLASHINFER_MLA_SPARSE_SM120"  # has rules of its own


@dataclass(frozen=True)
class AttentionBackend:
    """What one attention backend is for.

    Attributes
    ----------
    kind : str
        One of :data:`KINDS`.
    capability : tuple of int or None
        First numbers of the compute capabilities; None for all, or not looked up.
    kv : tuple of str or None
        Formats of the KV cache; None where it was not looked up.
    """

    kind: str
    capability: tuple[int, ...] | None
    kv: tuple[str, ...] | None

    def runs_on(self, major: int | None) -> bool:
        """Whether a GPU of this capability has it; an unknown GPU may."""
        return major is None or self.capability is None or major in self.capability


@dataclass(frozen=True)
class KnownBackends:
    """All that has a name: attention backends by name, and the names of the others."""

    attention: dict[str, AttentionBackend]
    moe: frozenset[str]
    linear: frozenset[str]


def known_backends() -> KnownBackends:
    """The backends of vLLM, with the user's own in ``backends/`` laid over them.

    Raises
    ------
    RuleError
        For a file that is not such a table.
    """
    return _read(tuple(str(folder) for folder in data_folders("backends")))


@lru_cache(maxsize=8)
def _read(_folders: tuple[str, ...]) -> KnownBackends:
    attention: dict[str, AttentionBackend] = {}
    names: dict[str, set[str]] = {"moe": set(), "linear": set()}
    for folder in data_folders("backends"):
        for path in sorted(folder.glob("*.yaml")):
            document = load_yaml(path, RuleError)
            if not isinstance(document, dict):
                raise RuleError(f"{path}: expected attention, moe and linear")
            for name, entry in _mapping(document, "attention", path).items():
                attention[str(name)] = _entry(entry, f"{path}: attention.{name}")
            for space, found in names.items():
                listed = document.get(space, [])
                if not isinstance(listed, list):
                    raise RuleError(f"{path}: {space} = {listed!r}: expected a list of names")
                found.update(str(each) for each in listed)
    return KnownBackends(attention, frozenset(names["moe"]), frozenset(names["linear"]))


def _mapping(document: dict[str, Any], key: str, path: Path) -> dict[str, Any]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise RuleError(f"{path}: {key} = {value!r}: expected names and what each is for")
    return value


def _entry(entry: Any, where: str) -> AttentionBackend:
    if not isinstance(entry, dict) or entry.get("kind") not in KINDS:
        raise RuleError(f"{where}: expected a kind of {', '.join(KINDS)}")
    capability, kv = entry.get("capability"), entry.get("kv")
    if capability is not None and not (
        isinstance(capability, list) and all(isinstance(each, int) for each in capability)
    ):
        raise RuleError(f"{where}: capability = {capability!r}: expected a list of first numbers, as [9, 10]")
    if kv is not None and not isinstance(kv, list):
        raise RuleError(f"{where}: kv = {kv!r}: expected a list of formats, as [auto, fp8]")
    return AttentionBackend(
        entry["kind"],
        None if capability is None else tuple(capability),
        None if kv is None else tuple(str(each) for each in kv),
    )


def as_vllm_spells(recipe: Recipe) -> dict[str, str | None]:
    """The recipe's backends as vLLM reads them: ``triton_mla`` is TRITON_MLA, ``auto`` is left open.

    AttentionConfig of vLLM 0.32.0 takes capitals or not, KernelConfig hyphens and capitals or not.
    """
    attention = recipe.attention_backend
    if attention is not None:
        attention = None if attention.lower() == "auto" else attention.upper()
    return {
        "attention_backend": attention,
        "moe_backend": _word(recipe.moe_backend),
        "linear_backend": _word(recipe.linear_backend),
    }


def _word(name: str | None) -> str | None:
    return None if name is None else name.lower().replace("-", "_")


def _named(facts: dict[str, Any]) -> AttentionBackend | None:
    """What the recipe names; None where it names nothing, or nothing that is known."""
    if facts["serving_engine"] != "vllm" or facts["attention_backend"] is None:
        return None
    return known_backends().attention.get(facts["attention_backend"])


def _needed(facts: dict[str, Any]) -> str | None:
    """The kind that the model needs; None where its attention is not known."""
    attention: str | None = facts.get("model.attention")
    return "mla" if attention == "mla+dsa" and facts["dense_mla"] else attention


def _major(facts: dict[str, Any]) -> int | None:
    return None if facts["gpu"] is None else facts["gpu"].capability_major


@_predicate(reads=("attention_backend", "serving_engine"), says=("near",))
def unknown_attention_backend(facts: dict[str, Any]) -> Found:
    """A name that is not in vLLM's registry."""
    return _unknown(facts, "attention_backend", known_backends().attention)


@_predicate(reads=("moe_backend", "serving_engine"), says=("near",))
def unknown_moe_backend(facts: dict[str, Any]) -> Found:
    """A name that KernelConfig refuses."""
    return _unknown(facts, "moe_backend", known_backends().moe)


@_predicate(reads=("linear_backend", "serving_engine"), says=("near",))
def unknown_linear_backend(facts: dict[str, Any]) -> Found:
    """A name that KernelConfig refuses."""
    return _unknown(facts, "linear_backend", known_backends().linear)


def _unknown(facts: dict[str, Any], name: str, known: Any) -> Found:
    value = facts[name]
    if facts["serving_engine"] != "vllm" or value is None or value in known:
        return FINE
    return {"near": did_you_mean(value, known, show_all_up_to=0)}


@_predicate(reads=("attention_backend", "dense_mla", "serving_engine"), says=("is_for", "needs"))
def backend_of_another_kind(facts: dict[str, Any]) -> Found:
    """The backend computes another attention than the model has; dense for sparse has a rule of its own."""
    named, needed = _named(facts), _needed(facts)
    if named is None or named.kind == "any":
        return FINE
    if needed is None:
        return None
    if named.kind == needed or (named.kind, needed) == ("mla", "mla+dsa"):
        return FINE
    if named.kind == "other" and facts["gpu"] is None:
        return None  # a CPU has its own
    return {"is_for": KINDS[named.kind], "needs": KINDS[needed]}


@_predicate(reads=("attention_backend", "serving_engine"), says=("capabilities",))
def backend_not_for_capability(facts: dict[str, Any]) -> Found:
    """The backend has no kernels for this GPU."""
    named, major = _named(facts), _major(facts)
    if named is None or named.capability is None:
        return FINE
    if major is None:
        return None
    if named.runs_on(major):
        return FINE
    return {"capabilities": " and ".join(map(str, named.capability))}


@_predicate(
    reads=("attention_backend", "kv_cache_dtype", "dense_mla", "serving_engine"),
    says=("who", "takes", "instead"),
)
def kv_format_not_of_backend(facts: dict[str, Any]) -> Found:
    """The named backend, or every one that could be chosen, refuses the format of the KV cache."""
    if facts["serving_engine"] != "vllm" or facts.get("attention.backend") == _SPARSE:
        return FINE
    if facts["attention_backend"] is not None:
        named = _named(facts)
        takes = [] if named is None or named.kv is None else list(named.kv)
        who = str(facts["attention_backend"])
    else:
        needed, major = _needed(facts), _major(facts)
        if needed is None or major is None:
            return None
        takes = list(dict.fromkeys(_formats(needed, major)))
        who = f"every backend for {KINDS[needed]} on compute capability {major}"
    if not takes or facts["kv_cache_dtype"] in takes:
        return FINE
    instead = next((each for each in _INSTEAD if each in takes), takes[0])
    return {"who": who, "takes": ", ".join(takes), "instead": instead}


def _formats(kind: str, major: int) -> Iterator[str]:
    for backend in known_backends().attention.values():
        if backend.kind == kind and backend.runs_on(major):
            yield from backend.kv or ()
