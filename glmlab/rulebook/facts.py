"""What a rule can ask about: fields of the recipe, and facts of its model, GPU and packages.

Fields of the recipe go by their own name. ``env.NAME`` and ``engine_args.name`` look into these two; all
other facts have a dot, too: ``model.attention``, ``gpu.link``, ``version.vllm``. A fact that is not known
here (no GPU was named, a model's config.json is not at hand, a package is not installed) makes a condition
neither true nor false, so a rule speaks up only of what is certain.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

from glmlab.catalog import Model, find_model
from glmlab.footprint.attention import attention_backend
from glmlab.models.shape import DsaShape
from glmlab.recipe import Recipe
from glmlab.rulebook.backends import as_vllm_spells
from glmlab.rulebook.expert_weights import KINDS, ExpertWeights, expert_weights
from glmlab.version_range import PACKAGES

if TYPE_CHECKING:
    from glmlab.gpus import Gpu

Facts = dict[str, Any]


class Unknown:
    """Stands for a fact that is not known here."""

    def __repr__(self) -> str:
        return "unknown"


UNKNOWN: Final = Unknown()

OPEN = ("env", "engine_args")  # fields whose keys are facts of their own


@dataclass(frozen=True)
class Fact:
    """What a fact can be.

    Attributes
    ----------
    kind : {"flag", "number", "word", "version", "any"}
        How its value is compared.
    allowed : tuple of str or None
        Words that it can be; None for any.
    least : float
        Smallest number that it can be.
    optional : bool
        Whether it may be unset (``null``): a choice left to the engine.
    knowable : bool
        Whether it may be unknown; a recipe's own fields never are.
    example : str
        Stands for every word that no test names; the Recipe takes it.
    whole : bool
        Whether a number is a whole one.
    """

    kind: Literal["flag", "number", "word", "version", "any"]
    allowed: tuple[str, ...] | None = None
    least: float = 0
    optional: bool = False
    knowable: bool = True
    example: str = "something-else"
    whole: bool = True


_VARIABLE = Fact("word", optional=True, knowable=False)
_ARGUMENT = Fact("any", optional=True, knowable=False)
_GENERATION = re.compile(r"glm-?(\d+(?:\.\d+)?)(-flash)?", re.IGNORECASE)


def _of_recipe() -> dict[str, Fact]:
    """Fields that can be asked about: all but names, texts and lists."""
    found: dict[str, Fact] = {}
    for name, schema in Recipe.model_json_schema()["properties"].items():
        branches = [each for each in schema.get("anyOf", [schema]) if each.get("type") != "null"]
        optional = len(branches) < len(schema.get("anyOf", [schema]))
        form = branches[0]
        kinds: dict[str, Literal["flag", "number", "word"]] = {
            "boolean": "flag", "integer": "number", "number": "number", "string": "word"
        }  # fmt: skip
        kind = kinds.get(form.get("type", ""))
        if kind is None or name in ("name", "notes"):
            continue
        allowed = tuple(form["enum"]) if "enum" in form else None
        example = "default" if name.endswith("_tiles") else Fact.example
        # pydantic passes "ge" on as it is where another validator comes first.
        least, whole = form.get("minimum", form.get("ge", 0)), form["type"] == "integer"
        found[name] = Fact(kind, allowed, least, optional, knowable=False, example=example, whole=whole)
    return found


FACTS: dict[str, Fact] = {
    **_of_recipe(),
    "ranks": Fact("number", least=1, knowable=False),
    "attention.backend": Fact("word"),
    "model.generation": Fact("word"),
    "model.type": Fact("word", ("glm4_moe", "glm4_moe_lite", "glm_moe_dsa")),
    "model.attention": Fact("word", ("gqa", "mla", "mla+dsa")),
    "model.weights": Fact("word", KINDS),
    "model.experts": Fact("number", least=1),
    "model.layers": Fact("number", least=1),
    "model.mtp_layers": Fact("number"),
    "model.index_topk": Fact("number", least=1),
    "gpu.name": Fact("word"),
    "gpu.capability": Fact("version"),
    "gpu.link": Fact("word", ("pcie", "nvlink")),
    "gpu.count": Fact("number", least=1),
    "gpu.memory_gb": Fact("number", least=1, whole=False),
    "gpu.sms": Fact("number", least=1),
    **{f"version.{package}": Fact("version") for package in PACKAGES},
}


def fact(name: str) -> Fact | None:
    """What a fact can be, or ``None`` where there is none of that name."""
    space, dot, rest = name.partition(".")
    if dot and rest and space in OPEN:
        return _VARIABLE if space == "env" else _ARGUMENT
    return FACTS.get(name)


def value_of(facts: Mapping[str, Any], name: str) -> Any:
    """The value of a fact; :data:`UNKNOWN` where it is not known."""
    space, _, rest = name.partition(".")
    if space not in OPEN or not rest:
        return facts.get(name, UNKNOWN)
    found: Any = facts[space]
    for key in rest.split(".") if space == "engine_args" else [rest]:
        if not isinstance(found, Mapping):
            return None
        found = found.get(key)
    return found


def facts_of(recipe: Recipe, gpu: Gpu | None, count: int, versions: Mapping[str, str]) -> Facts:
    """All facts of a recipe on a machine.

    Parameters
    ----------
    recipe : Recipe
        What is judged.
    gpu : Gpu or None
        The GPU it is to run on; None leaves all that depends on it unknown.
    count : int
        How many of them there are.
    versions : mapping
        Package -> version, those that count.
    """
    facts: Facts = dict(recipe.__dict__)
    if recipe.serving_engine == "vllm":
        facts |= as_vllm_spells(recipe)
    facts["ranks"] = recipe.ranks
    known = _of_model(find_model(recipe.model))
    facts.update(known.facts)
    facts["shape"], facts["config"] = known.shape, known.config
    weights = known.weights(recipe)
    facts["fp8_block"] = weights.block
    if weights.kind is not None:
        facts["model.weights"] = weights.kind
    facts["gpu"] = gpu
    if gpu is not None:
        facts["gpu.name"] = gpu.name
        facts["gpu.capability"] = gpu.capability
        facts["gpu.link"] = gpu.link
        facts["gpu.count"] = count
        facts["gpu.memory_gb"] = gpu.memory_bytes / 1e9
        facts["gpu.sms"] = gpu.sms
        chosen = attention_backend(recipe, facts.get("model.attention"), gpu.capability_major)
        if chosen is not None:
            facts["attention.backend"] = chosen
    elif facts["attention_backend"] is not None and recipe.serving_engine == "vllm":
        facts["attention.backend"] = facts["attention_backend"]
    for package, version in versions.items():
        facts[f"version.{package}"] = version
    return facts


def _generation(name: str) -> re.Match[str] | None:
    """Read from the right: a folder's own name goes first, and one in the hub's cache is a hash."""
    parts = [part for part in name.split("/") if part]
    return next((found for part in reversed(parts) if (found := _GENERATION.search(part))), None)


class _ModelFacts:
    """Facts of one model, taken once: a search asks for few models, thousands of times."""

    def __init__(self, model: Model) -> None:
        self.model, self.config = model, model.config
        self.shape = None if model.config is None else model.shape
        self.facts: Facts = {}
        self._weights: dict[str | None, ExpertWeights] = {}
        if found := _generation(model.name):
            # "-flash" names another architecture since 5.3; before, the generation says enough.
            flash = "-flash" if found[2] and float(found[1]) >= 5 else ""
            self.facts["model.generation"] = found[1] + flash
        if self.shape is None:
            return
        self.facts |= {
            "model.type": self.shape.model_type,
            "model.attention": self.shape.attention,
            "model.experts": self.shape.n_routed_experts,
            "model.layers": self.shape.num_hidden_layers,
            "model.mtp_layers": self.shape.num_nextn_predict_layers,
        }
        if isinstance(self.shape, DsaShape):
            self.facts["model.index_topk"] = self.shape.index_topk

    def weights(self, recipe: Recipe) -> ExpertWeights:
        """Format of the experts as this recipe loads them."""
        asked = recipe.quantization
        if asked not in self._weights:
            self._weights[asked] = expert_weights(recipe, self.model)
        return self._weights[asked]


_MODELS: dict[str, _ModelFacts] = {}


def _of_model(model: Model) -> _ModelFacts:
    """From memory where the catalog gave the same model before; it gives another when a file changed."""
    found = _MODELS.get(model.name)
    if found is None or found.model is not model:
        found = _MODELS[model.name] = _ModelFacts(model)
    return found
