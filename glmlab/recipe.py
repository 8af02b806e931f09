"""Recipe: one complete, validated configuration of an engine."""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    model_validator,
)
from ruamel.yaml.comments import CommentedMap

from glmlab.errors import InputError, RecipeError
from glmlab.names import did_you_mean
from glmlab.tiles import canonical_tiles
from glmlab.yaml_text import dump_yaml, kind_of, load_yaml

KvDtype = Literal[
    "auto", "bfloat16", "fp8", "fp8_e4m3", "fp8_e5m2", "fp8_ds_mla", "nvfp4", "int8_per_token_head"
]


def _whole_number(value: Any) -> Any:
    """Refuse ``true`` and ``2.0`` where a count is meant; pydantic would take both."""
    if isinstance(value, bool) or (isinstance(value, float) and not isinstance(value, int)):
        raise ValueError("expected a whole number")
    return value


def _true_or_false(value: Any) -> Any:
    """Refuse ``1`` and ``"yes"`` where true or false is meant; pydantic would take both."""
    if not isinstance(value, bool) and value is not None:
        raise ValueError("expected true or false")
    return value


Count = Annotated[int, BeforeValidator(_whole_number), Field(ge=1)]
CountOrZero = Annotated[int, BeforeValidator(_whole_number), Field(ge=0)]
Flag = Annotated[bool, BeforeValidator(_true_or_false)]
Tiles = Annotated[str, AfterValidator(canonical_tiles)]


class Recipe(BaseModel):
    """One complete configuration: model, weights, KV cache, parallelism, backends, live knobs.

    A field that is ``None`` is left to vLLM; the running engine reports what it chose.
    Recipes are immutable: :meth:`replace` gives a changed copy. Comments of the YAML file
    that a recipe was read from survive :meth:`replace` and :meth:`to_yaml`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    # identity
    name: str = Field(
        min_length=1,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$",
        description="what it is called in studies and logs",
    )
    notes: str = Field("", description="for people")
    serving_engine: Literal["vllm", "sglang"] = Field(
        "vllm", description="what serves it; glmlab itself starts vLLM only"
    )
    versions: dict[str, str] = Field(
        default_factory=dict,
        description="package -> version that it is meant for, such as vllm, sglang, flashinfer; rules read"
        " it where nothing is installed",
    )
    # model and weights
    model: str = Field(
        min_length=1, description="a packaged model's name, a folder, a rank twin, or a hub name"
    )
    weights: Literal["auto", "dummy", "random"] = Field(
        "auto",
        description="auto: the checkpoint's; dummy: vLLM's (all near zero); random: scaled as a"
        " trained model's, so that routing and attention do real work",
    )
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        "auto", description="number format of the weights that are not quantized, and of activations"
    )
    quantization: str | None = Field(
        None, description="vLLM's name of a method; the checkpoint's own if unset"
    )
    max_model_len: Count | None = Field(None, description="tokens of one sequence at most, prompt and output")
    trust_remote_code: Flag = Field(
        default=False, description="run Python code that comes with the checkpoint"
    )
    # KV cache
    kv_cache_dtype: KvDtype = "auto"
    kv_cache_bytes: Count | None = Field(None, description="fixed KV pool, in bytes per worker")
    gpu_memory_utilization: float | None = Field(
        None, gt=0, le=1, description="share of each GPU's memory that the engine may fill"
    )
    block_size: Count | None = None
    prefix_caching: Flag = True
    # parallelism
    tensor_parallel: Count = 1
    pipeline_parallel: Count = 1
    expert_parallel: Flag = False
    data_parallel: Count = Field(1, description="replicas of the model, each with requests of its own")
    decode_context_parallel: Count = Field(1, description="ranks that share the KV of one sequence")
    custom_all_reduce: Flag | None = Field(None, description="false: NCCL only")
    # attention and speculation
    dense_mla: Flag = Field(default=False, description="run a DSA model's attention dense, as plain MLA")
    mtp_tokens: CountOrZero = Field(0, description="tokens that the model's MTP layer drafts a step")
    # backends and kernels
    attention_backend: str | None = None
    moe_backend: str | None = None
    linear_backend: str | None = None
    enforce_eager: Flag = False
    cudagraph_mode: Literal["NONE", "PIECEWISE", "FULL", "FULL_DECODE_ONLY", "FULL_AND_PIECEWISE"] | None = (
        None
    )
    cudagraph_capture_sizes: tuple[Count, ...] | None = Field(
        None, description="batch sizes that CUDA graphs are captured for"
    )
    cpu_threads: Count | None = Field(None, description="OpenMP threads of each CPU worker")
    cpu_split_kv: Flag | None = None
    cpu_attn_isa: str | None = None
    kv_splits: CountOrZero | None = Field(None, description="0: vLLM's own choice")
    kv_split_min_grid: Count | None = None
    flash_attn_max_splits: Count | None = None
    attn_decode_tile: Count | None = None
    attn_decode_warps: Count | None = None
    attn_decode_stages: Count | None = None
    attn_prefill_tile: Count | None = None
    attn_prefill_warps: Count | None = None
    attn_prefill_stages: Count | None = None
    moe_tiles: Tiles | None = None
    fp8_gemm_tiles: Tiles | None = None
    # scheduler
    max_num_seqs: Count = 16
    max_num_batched_tokens: Count | None = None
    long_prefill_token_threshold: CountOrZero = 0
    # everything else
    seed: CountOrZero = Field(0, description="of the engine's random numbers, and of random weights")
    engine_args: dict[str, Any] = Field(
        default_factory=dict, description="further vLLM EngineArgs, checked by vLLM's own names"
    )
    env: dict[str, str] = Field(default_factory=dict, description="environment of the engine")

    _document: Any = PrivateAttr(None)

    _labels: ClassVar[frozenset[str]] = frozenset({"name", "notes"})

    @model_validator(mode="after")
    def _no_contradictions(self) -> Self:
        if self.max_num_batched_tokens is not None and self.max_num_batched_tokens < self.max_num_seqs:
            raise ValueError(
                f"max_num_batched_tokens = {self.max_num_batched_tokens} is below max_num_seqs ="
                f" {self.max_num_seqs}: a decode step needs one token per sequence; raise the first or"
                " lower the second"
            )
        if self.kv_cache_bytes is not None and self.gpu_memory_utilization is not None:
            raise ValueError(
                "kv_cache_bytes and gpu_memory_utilization both size the KV pool: keep one of them"
            )
        if self.enforce_eager and self.cudagraph_mode not in (None, "NONE"):
            raise ValueError(
                f"enforce_eager = true contradicts cudagraph_mode = {self.cudagraph_mode!r}: drop one of them"
            )
        clash = sorted(set(self.engine_args) & OWN_ENGINE_ARGS)
        if clash:
            raise ValueError(
                f"engine_args.{clash[0]}: has a recipe field of its own, set {_FIELD_OF[clash[0]]!r} instead"
            )
        if self.mtp_tokens and "speculative_config" in self.engine_args:
            raise ValueError(
                f"mtp_tokens = {self.mtp_tokens}: engine_args.speculative_config says how to speculate"
                " already; drop one of them"
            )
        return self

    # ------------------------------------------------------------------ reading
    @classmethod
    def parse(cls, data: Any, where: str = "recipe") -> Recipe:
        """Validate a mapping, as read from YAML.

        Raises
        ------
        RecipeError
            With one line that names each wrong key, its value and what is allowed.
        """
        if not isinstance(data, dict):
            raise RecipeError(f"{where}: expected keys and values, found {kind_of(data)}")
        try:
            recipe = cls.model_validate(data)
        except ValidationError as error:
            raise _told(error, data, where, cls.model_fields) from None
        recipe._document = data
        return recipe

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe file.

        Raises
        ------
        RecipeError
            If the file is missing, is not YAML, or is not a recipe.
        """
        return cls.parse(load_yaml(Path(path), RecipeError), where=str(path))

    # ------------------------------------------------------------------ changing
    def replace(self, **changes: Any) -> Recipe:
        """Return a copy with some fields changed, validated anew.

        Raises
        ------
        RecipeError
            For an unknown field, a wrong value or a contradiction.
        """
        merged = {**self.model_dump(exclude_unset=True), **changes}
        changed = type(self).parse(merged, where=f"recipe {self.name}")
        changed._document = self._document
        return changed

    def rank_twin(self, tp: int, layers: int | None = None) -> Recipe:
        """The recipe that runs on one GPU what one of ``tp`` tensor-parallel ranks runs.

        Its ``notes`` say what of a result carries over to the deployment and what does not.

        Parameters
        ----------
        tp : int
            Ranks of the deployment.
        layers : int, optional
            Layers of the twin; all of the model's by default.

        Raises
        ------
        RecipeError
            If the model's config.json is not known, or the model cannot be spread so.
        """
        from glmlab.ranks.twin import rank_twin

        return rank_twin(self, tp, layers)

    def diff(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """Fields in which two recipes differ, each with (this value, the other's)."""
        mine, theirs = self.model_dump(), other.model_dump()
        return {key: (mine[key], theirs[key]) for key in mine if mine[key] != theirs[key]}

    @property
    def ranks(self) -> int:
        """Ranks of the whole plan, all stages of all replicas; on GPUs each needs one.

        Expert and decode context parallelism add none: they use ranks that are there.
        """
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel

    @property
    def fingerprint(self) -> str:
        """Twelve hex digits that change if and only if the configuration does.

        Names, notes and fields left at their default do not count, so that a field that a later
        version adds leaves the fingerprints of old recipes as they were.
        """
        body = {
            key: value
            for key, value in self.model_dump(mode="json", exclude_defaults=True).items()
            if key not in self._labels
        }
        text = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    # ------------------------------------------------------------------ writing
    def to_yaml(self) -> str:
        """The recipe as YAML, with the comments and order of the file it came from."""
        values = self.model_dump(mode="json", exclude_defaults=True)
        return dump_yaml(values, like=self._document)

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_yaml` to a file."""
        Path(path).write_text(self.to_yaml(), encoding="utf-8")

    def __eq__(self, other: object) -> bool:
        """Equal fields; what a recipe was read from does not count."""
        return isinstance(other, Recipe) and self.model_dump() == other.model_dump()

    def __hash__(self) -> int:
        return hash((self.name, self.fingerprint))

    def __repr__(self) -> str:
        shown = {**self.model_dump(exclude_defaults=True)}
        return f"Recipe({', '.join(f'{key}={value!r}' for key, value in shown.items())})"

    def _repr_html_(self) -> str:
        from html import escape

        buffer = io.StringIO()
        buffer.write(f"<pre>{escape(self.to_yaml())}</pre>")
        return buffer.getvalue()


def _told(error: ValidationError, data: dict[Any, Any], where: str, known: Iterable[str]) -> InputError:
    """The one line; of a file with the lines of its faults in their order, and names near to unknown keys."""
    if not isinstance(data, CommentedMap):
        return RecipeError.from_validation(error, where)
    items = error.errors(include_url=False)
    lines = list(dict.fromkeys(str(line) for item in items if (line := _line(data, item["loc"]))))
    place = f"{where} line{'s' if len(lines) > 1 else ''} {', '.join(lines)}" if lines else where
    message = str(RecipeError.from_validation(error, place))
    for item in items:
        if item["type"] == "extra_forbidden":
            key = str(item["loc"][-1])
            found = re.search(rf"(?<=[ .]){re.escape(key)}(?: = .*?)?: unknown key", message)
            end = found.end() if found else len(message)
            message = message[:end] + did_you_mean(key, known) + message[end:]
    return RecipeError(message)


def _line(data: CommentedMap, path: tuple[int | str, ...]) -> int | None:
    """Line of the innermost key of a path, counted from 1."""
    found: int | None = None
    inner: Any = data
    for step in path:
        if not isinstance(inner, CommentedMap) or step not in inner:
            break
        found = int(inner.lc.key(step)[0]) + 1
        inner = inner[step]
    return found


# vLLM argument -> the recipe field that owns it.
OWN_FIELD: dict[str, str] = {
    "model": "model",
    "load_format": "weights",
    "dtype": "dtype",
    "quantization": "quantization",
    "max_model_len": "max_model_len",
    "trust_remote_code": "trust_remote_code",
    "kv_cache_dtype": "kv_cache_dtype",
    "kv_cache_memory_bytes": "kv_cache_bytes",
    "gpu_memory_utilization": "gpu_memory_utilization",
    "block_size": "block_size",
    "enable_prefix_caching": "prefix_caching",
    "tensor_parallel_size": "tensor_parallel",
    "pipeline_parallel_size": "pipeline_parallel",
    "enable_expert_parallel": "expert_parallel",
    "data_parallel_size": "data_parallel",
    "decode_context_parallel_size": "decode_context_parallel",
    "attention_backend": "attention_backend",
    "moe_backend": "moe_backend",
    "linear_backend": "linear_backend",
    "enforce_eager": "enforce_eager",
    "cudagraph_capture_sizes": "cudagraph_capture_sizes",
    "max_num_seqs": "max_num_seqs",
    "max_num_batched_tokens": "max_num_batched_tokens",
    "long_prefill_token_threshold": "long_prefill_token_threshold",
    "seed": "seed",
}
# Written the other way round, so that it is not copied.
_FIELD_OF = OWN_FIELD | {"disable_custom_all_reduce": "custom_all_reduce"}
OWN_ENGINE_ARGS = frozenset(_FIELD_OF)
