"""What a form has to know of each field of a recipe, read from its schema and the table of knobs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from glmlab.errors import RecipeError
from glmlab.knob_table import KNOBS
from glmlab.recipe import Recipe
from glmlab.yaml_text import dump_yaml, parse_yaml

Kind = Literal["flag", "whole", "number", "choice", "text", "list", "mapping"]
FieldReach = Literal["live", "rebuild", "label"]

GROUPS: dict[str, tuple[str, ...]] = {
    "Model and weights": (
        "model", "weights", "dtype", "quantization", "max_model_len", "trust_remote_code",
    ),
    "Attention and KV cache": (
        "attention_backend", "dense_mla", "kv_cache_dtype", "kv_cache_bytes", "gpu_memory_utilization",
        "block_size", "prefix_caching",
    ),
    "Parallelism": (
        "tensor_parallel", "pipeline_parallel", "data_parallel", "expert_parallel", "decode_context_parallel",
        "custom_all_reduce",
    ),
    "Attention kernels": (
        "kv_splits", "kv_split_min_grid", "flash_attn_max_splits", "attn_decode_tile", "attn_decode_warps",
        "attn_decode_stages", "attn_prefill_tile", "attn_prefill_warps", "attn_prefill_stages",
        "cpu_split_kv", "cpu_attn_isa", "cpu_threads",
    ),
    "Matrix kernels and graphs": (
        "moe_backend", "linear_backend", "moe_tiles", "fp8_gemm_tiles", "enforce_eager", "cudagraph_mode",
        "cudagraph_capture_sizes",
    ),
    "Scheduler and speculation": (
        "max_num_seqs", "max_num_batched_tokens", "long_prefill_token_threshold", "mtp_tokens",
    ),
    "Name, versions and everything else": (
        "name", "notes", "serving_engine", "versions", "seed", "engine_args", "env",
    ),
}  # fmt: skip
# What no engine is told: these change nothing that runs.
_LABELS = ("name", "notes", "versions")
_TILES = ("moe_tiles", "fp8_gemm_tiles")
LEFT_OPEN = "the engine's choice"


@dataclass(frozen=True, kw_only=True)
class RecipeField:
    """One field of a recipe, as a form shows it.

    Attributes
    ----------
    kind : str
        What its values are: ``whole`` numbers, a ``list`` of them, a ``mapping`` of keys to values, ...
    optional : bool
        Whether it can be left to the engine.
    needed : bool
        Whether every recipe must have it.
    choices : tuple of str
        All that it can be; empty where that is open.
    low, high : float
        Bounds of numbers, ``high`` None where there is none; ``above`` says that ``low`` is left out.
    help : str
        One line.
    reach : {"live", "rebuild", "label"}
        Whether a running engine takes it, a new one is needed, or no engine is told.
    """

    name: str
    kind: Kind
    optional: bool
    needed: bool
    default: Any
    choices: tuple[str, ...]
    low: float
    high: float | None
    above: bool
    help: str
    reach: FieldReach

    @property
    def range(self) -> str:
        """What it can be, in words; empty where a list of choices shows it."""
        if self.name in _TILES:
            return "tiles, such as 16x64x128 g1 w4 s3"
        if self.kind in ("whole", "number"):
            low = f"above {self.low:g}" if self.above else f"{self.low:g}"
            return f"{low} or more" if self.high is None else f"{low} to {self.high:g}"
        return {
            "list": "whole numbers from 1 on, with commas between",
            "mapping": "lines of key: value",
        }.get(self.kind, "")

    @property
    def default_text(self) -> str:
        """The default in words; empty where there is none."""
        if self.needed:
            return ""
        return LEFT_OPEN if self.default is None else self.written(self.default) or "none"

    def written(self, value: Any) -> str:
        """A value as the user would type it; empty for one that is left to the engine."""
        if value is None or value == {}:
            return ""
        if self.kind == "flag":
            return "true" if value else "false"
        if self.kind == "list":
            return ", ".join(map(str, value))
        if self.kind == "mapping":
            return dump_yaml(value).strip()
        return str(value)

    def read(self, text: str) -> Any:
        """The value that a user typed; nothing typed is the default.

        Raises
        ------
        RecipeError
            If it is of another kind. Whether the recipe takes it is the recipe's to say.
        """
        typed = text.strip()
        if not typed:
            if self.needed:
                raise RecipeError(f"{self.name}: must not be empty")
            return self.default
        if self.kind == "whole":
            return self._number(typed, int)
        if self.kind == "number":
            return self._number(typed, float)
        if self.kind == "list":
            return [self._number(part.strip(), int) for part in typed.split(",") if part.strip()]
        if self.kind == "mapping":
            return self._mapping(typed)
        return typed

    def _number(self, typed: str, kind: type[int | float]) -> Any:
        what = "a whole number" if kind is int else "a number"
        try:
            # As people write large ones, and as this form shows them elsewhere: 131,072.
            return kind(typed if self.kind == "list" else typed.replace(",", ""))
        except ValueError:
            raise RecipeError(f"{self.name} = {typed!r}: expected {what}") from None

    def _mapping(self, typed: str) -> dict[str, Any]:
        found = parse_yaml(typed, self.name, RecipeError)
        if not isinstance(found, dict):
            raise RecipeError(f"{self.name} = {typed!r}: expected {self.range}")
        values = {str(key): value for key, value in found.items()}
        if self.name == "engine_args":
            return values
        # Of versions and variables each value is text, be it written like a number or not.
        return {
            key: value if isinstance(value, str) else _as_typed(typed, key) for key, value in values.items()
        }


def _as_typed(text: str, key: str) -> str:
    """What stands behind a key, letter by letter: YAML would make 0.30 of a version 0.3."""
    for line in text.splitlines():
        name, colon, rest = line.partition(":")
        if colon and name.strip().strip("'\"") == key:
            return rest.partition(" #")[0].strip()
    return ""


@lru_cache(maxsize=1)
def recipe_fields() -> dict[str, RecipeField]:
    """Every field of a recipe by its name, in the order of the form."""
    properties = Recipe.model_json_schema()["properties"]
    order = [name for names in GROUPS.values() for name in names]
    return {name: _field(name, properties[name]) for name in order}


def _field(name: str, schema: dict[str, Any]) -> RecipeField:
    branches = schema.get("anyOf", [schema])
    [form] = [each for each in branches if each.get("type") != "null"]
    known = KNOBS.get(name)
    below, exclusive = form.get("ge", form.get("minimum")), form.get("exclusiveMinimum")
    default = schema.get("default", {} if form["type"] == "object" else None)
    return RecipeField(
        name=name,
        kind=_kind(form),
        optional=len(branches) > 1,
        needed=Recipe.model_fields[name].is_required(),
        default=default,
        choices=tuple(form.get("enum", ())),
        low=exclusive if exclusive is not None else below or 0,
        high=form.get("maximum"),
        above=exclusive is not None,
        help=known.help if known else schema.get("description", ""),
        reach="label" if name in _LABELS else known.reach if known else "rebuild",
    )


def _kind(form: dict[str, Any]) -> Kind:
    if "enum" in form:
        return "choice"
    kinds: dict[str, Kind] = {
        "boolean": "flag",
        "integer": "whole",
        "number": "number",
        "string": "text",
        "array": "list",
        "object": "mapping",
    }
    return kinds[form["type"]]
