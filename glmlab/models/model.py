"""Model: the sizes of one model, how its weights are stored, and what is known of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from glmlab.errors import RecipeError
from glmlab.models.checkpoint_bytes import checkpoint_bytes
from glmlab.models.facts import NO_FACTS, ModelFacts
from glmlab.models.quant_config import layout_of
from glmlab.models.quant_layout import QuantLayout, find_layout
from glmlab.models.shape import Attention, ModelShape

_SIZES = (
    "total_params",
    "active_params",
    "mtp_params",
    "layers",
    "attention",
    "heads",
    "kv_heads",
    "vocab_size",
    "max_model_len",
)


class Model(BaseModel):
    """A model and, where its config.json is at hand, its sizes.

    Attributes
    ----------
    name : str
        As it was asked for.
    path : Path or None
        The folder of its config.json, absolute; None for a name on the hub, and where config.json is
        computed: for a rank twin, and for a prune that is data over its base.
    config : dict or None
        Content of config.json; None where it is not known on this machine. Every size then raises
        :class:`RecipeError`.
    note : str
        What a user should know of it, empty for most.
    facts : ModelFacts
        What is known beside its sizes, each with its source.
    on_hub : bool
        Whether it was asked for by its name on the hub, where an engine is to load it from.
    where : str
        Origin of the sizes, for errors and provenance; made up where empty.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    path: Path | None = None
    config: dict[str, Any] | None = Field(None, repr=False)
    note: str = ""
    facts: ModelFacts = Field(NO_FACTS, repr=False)
    on_hub: bool = False
    where: str = Field("", repr=False)

    _shape: ModelShape | None = PrivateAttr(None)
    _layout: QuantLayout | RecipeError | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _read_sizes(self) -> Self:
        """Now rather than on first use, so that a model that exists can be computed."""
        if self.config is not None:
            self._shape = ModelShape.parse(self.config, self._origin)
        return self

    @property
    def _origin(self) -> str:
        return self.where or (str(self.path / "config.json") if self.path else f"model {self.name}")

    @property
    def shape(self) -> ModelShape:
        """All sizes, under config.json's own names.

        Raises
        ------
        RecipeError
            If config.json is not known on this machine.
        """
        if self._shape is None:
            raise RecipeError(
                f"model {self.name}: its config.json is not on this machine, so its sizes cannot be"
                " computed; give the folder of a downloaded checkpoint instead"
            )
        return self._shape

    @property
    def layout(self) -> QuantLayout:
        """How its weights are stored: what the catalog says, else config.json's quantization_config.

        Raises
        ------
        RecipeError
            If config.json is not known, or describes a layout that is not.
        """
        if self._layout is None:
            try:
                shape, named = self.shape, self.facts.layout
                self._layout = (
                    layout_of(self.config or {}, shape, self._origin) if named is None else find_layout(named)
                )
            except RecipeError as error:
                self._layout = error
        if isinstance(self._layout, RecipeError):
            raise self._layout
        return self._layout

    @property
    def layout_or_none(self) -> QuantLayout | None:
        """As :attr:`layout`, None where config.json describes one that is not known.

        Raises
        ------
        RecipeError
            If a layout that the facts name cannot be read.
        """
        try:
            return self.layout
        except RecipeError:
            if self.facts.layout is not None and self.config is not None:
                raise
            return None

    @property
    def disk_bytes(self) -> int:
        """Bytes of the whole checkpoint, computed from its layout; the MTP layer included.

        Raises
        ------
        RecipeError
            As for :attr:`layout`.
        """
        stored = self.facts.mtp_weights or "layer"
        return sum(checkpoint_bytes(self.shape, self.layout, stored).values())

    @property
    def attention(self) -> Attention:
        """Kind of attention."""
        return self.shape.attention

    @property
    def layers(self) -> int:
        """Hidden layers, the MTP layer not counted."""
        return self.shape.num_hidden_layers

    @property
    def total_params(self) -> int:
        """All parameters but the MTP layer's; formula in :mod:`glmlab.models.shape`."""
        return self.shape.total_params

    @property
    def active_params(self) -> int:
        """Parameters that one token passes through; formula in :mod:`glmlab.models.shape`."""
        return self.shape.active_params

    @property
    def mtp_params(self) -> int:
        """Parameters of the MTP layer, 0 without one."""
        return self.shape.mtp_params

    @property
    def heads(self) -> int:
        """Query heads of a layer."""
        return self.shape.num_attention_heads

    @property
    def kv_heads(self) -> int:
        """KV heads of a layer; 1 for MLA, which keeps one latent for all heads."""
        return self.shape.kv_heads

    @property
    def vocab_size(self) -> int:
        """Token ids."""
        return self.shape.vocab_size

    @property
    def max_model_len(self) -> int:
        """Longest sequence that it was made for, in tokens."""
        return self.shape.max_position_embeddings

    def kv_bytes_per_token(self, kv_dtype_bytes: float, tensor_parallel: int = 1) -> int:
        """Bytes of KV cache that one token takes on one rank, all layers together.

        GQA spreads its KV heads over the ranks and copies them where there are more ranks than
        heads; MLA keeps its latent whole on every rank. What a packed layout adds (scales,
        padding) and the cache of a DSA indexer (:meth:`indexer_bytes_per_token`) come on top.

        Parameters
        ----------
        kv_dtype_bytes : float
            Bytes of one number: 2 for bfloat16, 1 for FP8, 0.5 for NVFP4.
        tensor_parallel : int
            Ranks that share each layer.

        Raises
        ------
        RecipeError
            If the heads cannot be spread over so many ranks, or the sizes are not known.
        """
        if not kv_dtype_bytes > 0:
            raise RecipeError(f"kv_dtype_bytes = {kv_dtype_bytes}: must be above 0, such as 2 for bfloat16")
        self.check_tensor_parallel(tensor_parallel)
        held = max(1, self.kv_heads // tensor_parallel) / self.kv_heads
        return math.ceil(self.layers * self.shape.kv_values_per_layer * held * kv_dtype_bytes)

    def indexer_bytes_per_token(self) -> int:
        """Bytes of key cache that one token takes in the DSA indexers, the same on every rank."""
        return self.shape.indexer_layers * self.shape.indexer_bytes_per_layer

    def check_tensor_parallel(self, tensor_parallel: int) -> None:
        """Refuse a number of ranks that the heads cannot be spread over.

        Raises
        ------
        RecipeError
            With the numbers that can be.
        """
        if not self.shape.spreads_over(tensor_parallel):
            allowed = ", ".join(map(str, self.tensor_parallel_choices))
            raise RecipeError(
                f"tensor_parallel = {tensor_parallel}: {self.name} has {self.heads} query heads and"
                f" {self.kv_heads} KV heads, which spread over {allowed} ranks"
            )

    @property
    def tensor_parallel_choices(self) -> tuple[int, ...]:
        """Numbers of ranks that the query heads divide over and the KV heads divide or repeat over."""
        shape = self.shape
        return tuple(ranks for ranks in range(1, self.heads + 1) if shape.spreads_over(ranks))

    def disagreements(self) -> list[dict[str, Any]]:
        """Where seed, model card and config.json differ, and which of them glmlab goes by."""
        return [
            {
                "what": each.what,
                "seed": each.seed,
                "card": each.card,
                "config": each.config if each.key is None else self._size(each.key),
                "used": each.used if each.key is None else self._size(each.key),
                "source": each.source,
                "reference": each.reference,
            }
            for each in self.facts.disagreements
        ]

    def _size(self, key: str) -> Any:
        """A size by the name that a fact gives it: of config.json, or of :data:`COMPUTED_KEYS`."""
        computed = {
            "total_params_b": lambda: self.total_params / 1e9,
            "active_params_b": lambda: self.active_params / 1e9,
            "total_with_mtp_b": lambda: (self.total_params + self.mtp_params) / 1e9,
            "disk_gb": lambda: self.disk_bytes / 1e9,
        }
        return round(computed[key](), 1) if key in computed else (self.config or {}).get(key)

    def _repr_html_(self) -> str:
        """For notebooks: sizes, layout, and where sources disagree."""
        from html import escape

        def row(*cells: Any, tag: str = "td") -> str:
            written = (f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in cells)
            style = " style='text-align:left'"
            return "<tr>" + "".join(f"<{tag}{style}>{escape(text)}</{tag}>" for text in written) + "</tr>"

        body = self.to_json()
        facts = ("title", *_SIZES, "disk_bytes", "note")
        rows = [row(key.replace("_", " "), body[key]) for key in facts if body[key] not in (None, "")]
        html = f"<b>{escape(self.name)}</b><table>{''.join(rows)}</table>"
        if body["disagreements"]:
            keys = ("what", "seed", "card", "config", "used", "source")
            lines = [
                row(*("" if each[key] is None else each[key] for key in keys))
                for each in body["disagreements"]
            ]
            html += f"<table>{row(*keys, tag='th')}{''.join(lines)}</table>"
        return html

    def to_json(self) -> dict[str, Any]:
        """What ``glmlab models NAME --json`` prints; sizes are null where they are not known."""
        unknown = self.config is None
        sizes = dict.fromkeys(_SIZES) if unknown else {key: getattr(self, key) for key in _SIZES}
        note = "config.json is not on this machine: sizes are not known" if unknown else self.note
        layout, disk_bytes = None, None
        if self.layout_or_none is not None:
            layout, disk_bytes = self.layout_or_none.to_json(), self.disk_bytes
        elif isinstance(self._layout, RecipeError):
            note = note or str(self._layout)
        facts = self.facts
        return {
            "name": self.name,
            "title": facts.title,
            "path": None if self.path is None else str(self.path),
            **sizes,
            "layout": layout,
            "disk_bytes": disk_bytes,
            "base": facts.base,
            "hub": list(facts.hub),
            "advertised": None if facts.advertised is None else facts.advertised.model_dump(),
            "measured": [each.model_dump(mode="json") for each in facts.measured],
            "note": note,
            "notes": list(facts.notes),
            "source": facts.source,
            "disagreements": self.disagreements(),
        }
