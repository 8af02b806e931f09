"""Quantization layouts: which parts of a model are NVFP4, FP8 or INT4, and what that takes in bytes.

A number format costs ``bits + (scale_bits + zero_bits) / group`` bits a parameter: NVFP4 has one FP8
scale for every 16 weights, hence 4.5 bits. Scales per tensor (four bytes for a whole matrix) are not
counted. Formats are ``data/formats/NAME.yaml``, layouts ``data/layouts/NAME.yaml``, each with its source.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from glmlab.data_folders import data_folders
from glmlab.errors import RecipeError
from glmlab.fact_file import load_facts, place
from glmlab.models.weight_table import Part
from glmlab.names import did_you_mean

UNQUANTIZED = "bf16"
Share = Annotated[float, Field(gt=0, le=1)]


class NumberFormat(BaseModel):
    """How one quantized weight is stored.

    Attributes
    ----------
    bits : float
        Of one weight.
    scale_bits, zero_bits : float
        Of one scale, and of one zero point.
    group : int, "row" or None
        Weights that share a scale: a number, a whole row of the matrix, or the whole matrix.
    source : str
        Where this is from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    bits: float = Field(gt=0, le=32)
    scale_bits: float = Field(0, ge=0, le=32)
    zero_bits: float = Field(0, ge=0, le=32)
    group: Annotated[int, Field(ge=1)] | Literal["row"] | None = None
    source: str = Field(min_length=1)

    def bytes_per_param(self, row: int) -> float:
        """Bytes of one parameter, scales included.

        Parameters
        ----------
        row : int
            Length of a row of the matrix, for formats with a scale a row.
        """
        group = row if self.group == "row" else self.group
        shared = (self.scale_bits + self.zero_bits) / group if group else 0.0
        return (self.bits + shared) / 8


class Mix(NamedTuple):
    """The formats of one part, each with its share of the part's parameters."""

    formats: tuple[tuple[str, NumberFormat, float], ...]

    def bytes_per_param(self, row: int, plain_bytes: float) -> float:
        """Bytes of one parameter.

        Parameters
        ----------
        row : int
            Length of a row.
        plain_bytes : float
            Bytes of a weight that is not quantized.
        """
        return sum(
            share * (plain_bytes if name == UNQUANTIZED else kind.bytes_per_param(row))
            for name, kind, share in self.formats
        )

    @property
    def is_plain(self) -> bool:
        """Whether nothing of it is quantized."""
        return all(name == UNQUANTIZED for name, _, _ in self.formats)

    @property
    def label(self) -> str:
        """Such as ``nvfp4``, or ``nvfp4 90 %, bf16 10 %``."""
        if len(self.formats) == 1:
            return self.formats[0][0]
        return ", ".join(f"{name} {share:.0%}" for name, _, share in self.formats)


class QuantLayout(NamedTuple):
    """Which parts of a checkpoint are stored how.

    Attributes
    ----------
    name : str
        Of ``data/layouts``, or how a config.json names its method.
    parts : dict
        Part to its formats; parts that are missing are not quantized.
    mtp : Mix or None
        Formats of the MTP layer's matrices; None where they follow the parts.
    methods : tuple of str
        vLLM's names of quantization methods that read it.
    kv_cache : str or None
        KV dtype that the checkpoint asks for where a recipe leaves it open.
    source : str
        Where this is from.
    """

    name: str
    parts: Mapping[Part, Mix]
    mtp: Mix | None
    methods: tuple[str, ...]
    kv_cache: str | None
    source: str

    def mix(self, part: Part) -> Mix:
        """Formats of one part."""
        return self.parts.get(part) or plain()

    def to_json(self) -> dict[str, object]:
        """Parts and their formats, for people and ``--json``."""
        return {
            "name": self.name,
            "parts": {part: mix.label for part, mix in self.parts.items()},
            "others": UNQUANTIZED,
            "mtp": "as the parts" if self.mtp is None else self.mtp.label,
            "source": self.source,
        }


class LayoutFile(BaseModel):
    """Content of ``data/layouts/NAME.yaml``; the attributes are those of :class:`QuantLayout`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    parts: dict[Part, str | dict[str, Share]] = {}
    mtp: str | None = Field(None, description="a format; left out: as the parts")
    methods: tuple[str, ...] = ()
    kv_cache: Literal["fp8", "nvfp4"] | None = None
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _shares_make_a_whole(self) -> Self:
        for part, mix in self.parts.items():
            if isinstance(mix, dict) and abs(sum(mix.values()) - 1) > 1e-6:
                raise ValueError(f"parts.{part}: shares add up to {sum(mix.values()):g}, expected 1")
        return self


def list_layouts() -> tuple[str, ...]:
    """Names of the packaged layouts and of those in ``GLMLAB_DATA``, sorted."""
    return tuple(sorted(_files("layouts")))


def find_layout(name: str) -> QuantLayout:
    """A layout by name.

    Raises
    ------
    RecipeError
        If there is none of that name, or its file is wrong.
    """
    files = _files("layouts")
    if name not in files:
        raise RecipeError(f"layout = {name!r}: no such quantization layout{did_you_mean(name, files)}")
    found = load_facts(files[name], LayoutFile)
    known = _LAYOUTS.get(files[name])
    if known is not None and known[0] is found:
        return known[1]
    layout = QuantLayout(
        name=name,
        parts={part: _mix(given, files[name], "parts", part) for part, given in found.parts.items()},
        mtp=None if found.mtp is None else _mix(found.mtp, files[name], "mtp"),
        methods=found.methods,
        kv_cache=found.kv_cache,
        source=found.source,
    )
    _LAYOUTS[files[name]] = (found, layout)
    return layout


_LAYOUTS: dict[Path, tuple[LayoutFile, QuantLayout]] = {}


def layout_for_method(method: str) -> QuantLayout | None:
    """The layout that one of vLLM's quantization methods stands for where nothing else is known."""
    found = (find_layout(name) for name in list_layouts())
    return next((layout for layout in found if method in layout.methods), None)


def known_methods() -> tuple[str, ...]:
    """Names of vLLM's quantization methods that some layout reads, sorted."""
    return tuple(sorted(method for name in list_layouts() for method in find_layout(name).methods))


def find_format(name: str) -> NumberFormat:
    """A number format by name.

    Raises
    ------
    RecipeError
        If there is none of that name, or its file is wrong.
    """
    files = _files("formats")
    if name not in files:
        raise RecipeError(f"format = {name!r}: no such number format{did_you_mean(name, files)}")
    return load_facts(files[name], NumberFormat)


def plain() -> Mix:
    """Not quantized."""
    return _PLAIN


_PLAIN = Mix(((UNQUANTIZED, NumberFormat(bits=16, source="two bytes"), 1.0),))


def _mix(given: str | Mapping[str, float], file: Path, *steps: str) -> Mix:
    shares = {given: 1.0} if isinstance(given, str) else given
    try:
        return Mix(tuple((name, find_format(name), share) for name, share in shares.items()))
    except RecipeError as error:
        raise RecipeError(f"{place(file, *steps)}: {error}") from None


def _files(kind: str) -> dict[str, Path]:
    return _listed(tuple((folder, folder.stat().st_mtime_ns) for folder in data_folders(kind)))


@lru_cache(maxsize=16)
def _listed(folders: tuple[tuple[Path, int], ...]) -> dict[str, Path]:
    return {file.stem: file for folder, _ in folders for file in sorted(folder.glob("*.yaml"))}
