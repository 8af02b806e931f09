"""Models by name: the packaged ones, folders with a config.json, rank twins, names on the hub."""

from __future__ import annotations

import json
import math
import os
import re
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from glmlab.data_folders import data_folders
from glmlab.errors import RecipeError
from glmlab.model_shape import Attention, ModelShape
from glmlab.names import did_you_mean
from glmlab.rank_twin import TwinName, description, twin_config

_TINY = "tiny"
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
_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


class Model(BaseModel):
    """A model and, where its config.json is at hand, its sizes.

    Attributes
    ----------
    name : str
        As it was asked for.
    path : Path or None
        The folder of its config.json, absolute; None for a name on the hub and for a rank twin, whose
        config.json is computed.
    config : dict or None
        Content of config.json; None where it is not known on this machine. Every size then raises
        :class:`RecipeError`.
    note : str
        What a user should know of it, empty for most.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    path: Path | None = None
    config: dict[str, Any] | None = Field(None, repr=False)
    note: str = ""

    _shape: ModelShape | None = PrivateAttr(None)

    @model_validator(mode="after")
    def _read_sizes(self) -> Self:
        """Now rather than on first use, so that a model that exists can be computed."""
        if self.config is not None:
            where = str(self.path / "config.json") if self.path else f"model {self.name}"
            self._shape = ModelShape.parse(self.config, where)
        return self

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
    def attention(self) -> Attention:
        """Kind of attention."""
        return self.shape.attention

    @property
    def layers(self) -> int:
        """Hidden layers, the MTP layer not counted."""
        return self.shape.num_hidden_layers

    @property
    def total_params(self) -> int:
        """All parameters but the MTP layer's; formula in :mod:`glmlab.model_shape`."""
        return self.shape.total_params

    @property
    def active_params(self) -> int:
        """Parameters that one token passes through; formula in :mod:`glmlab.model_shape`."""
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
        if tensor_parallel not in self.tensor_parallel_choices:
            allowed = ", ".join(map(str, self.tensor_parallel_choices))
            raise RecipeError(
                f"tensor_parallel = {tensor_parallel}: {self.name} has {self.heads} query heads and"
                f" {self.kv_heads} KV heads, which spread over {allowed} ranks"
            )

    @property
    def tensor_parallel_choices(self) -> tuple[int, ...]:
        """Numbers of ranks that the query heads divide over and the KV heads divide or repeat over."""
        return tuple(
            ranks
            for ranks in range(1, self.heads + 1)
            if self.heads % ranks == 0 and (self.kv_heads % ranks == 0 or ranks % self.kv_heads == 0)
        )

    def to_json(self) -> dict[str, Any]:
        """What ``glmlab models NAME --json`` prints; sizes are null where they are not known."""
        sizes = dict.fromkeys(_SIZES) if self.config is None else {key: getattr(self, key) for key in _SIZES}
        return {
            "name": self.name,
            "path": None if self.path is None else str(self.path),
            **sizes,
            "note": "config.json is not on this machine: sizes are not known"
            if self.config is None
            else self.note,
            "disagreements": [],
        }


def list_models() -> tuple[str, ...]:
    """Names of the packaged models and of those in ``GLMLAB_DATA``, sorted."""
    return tuple(sorted(_packaged()))


def find_model(name_or_path: str | os.PathLike[str]) -> Model:
    """Look a model up.

    Parameters
    ----------
    name_or_path : str or path
        In this order: a name of :func:`list_models`; a folder with a config.json; a rank twin such
        as ``glm-4.7@tp4-l4`` (:mod:`glmlab.rank_twin`); a hub name such as ``zai-org/GLM-4.7``,
        which comes back without a config: nothing is downloaded.

    Raises
    ------
    RecipeError
        If there is nothing of that name, its config.json is not that of a GLM, or it is a twin
        that cannot be.
    """
    name = os.fspath(name_or_path)
    folder = _packaged().get(name) or Path(name).expanduser()
    if name and folder.exists():  # an empty name would be the current folder
        return Model(name=name, path=folder.resolve(), config=_read_config(folder))
    if (asked := TwinName.parse(name)) is not None:
        return _twin(name, asked)
    if _HUB_NAME.fullmatch(name) and not name.startswith(f"{_TINY}/"):
        return Model(name=name)
    raise RecipeError(f"model = {name!r}: no such model or folder{did_you_mean(name, list_models())}")


def _twin(name: str, asked: TwinName) -> Model:
    base = find_model(asked.base)
    if base.config is None:
        near = did_you_mean(asked.base.rpartition("/")[2].lower(), list_models())
        raise RecipeError(
            f"model = {asked.base!r}: a rank twin is computed from config.json, which is not on this"
            f" machine; give the folder of a downloaded checkpoint, or a packaged model{near}"
        )
    config = twin_config(base.config, asked.tp, asked.layers, asked.base)
    return Model(name=name, config=config, note=description(asked, base.config))


def _packaged() -> dict[str, Path]:
    """Folders by name: full-size models under their own, miniatures with ``tiny/`` before it."""
    return {
        prefix + config.parent.name: config.parent
        for kind, prefix in (("models", ""), (_TINY, f"{_TINY}/"))
        for folder in data_folders(kind)
        for config in folder.glob("*/config.json")
    }


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not folder.is_dir():
        raise RecipeError(f"{folder}: is a file; give the folder that holds config.json")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"{folder}: this folder holds no config.json, so it is no model") from None
    except json.JSONDecodeError as error:
        raise RecipeError(f"{path}: not valid JSON, {error}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: cannot be read ({error})") from None
    if not isinstance(config, dict):
        raise RecipeError(f"{path}: expected a JSON object, found {type(config).__name__}")
    return config
