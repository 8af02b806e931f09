"""One kind of GPU: its sizes and rates, each with its source."""

from __future__ import annotations

from html import escape
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

FORMATS = ("bf16", "fp8", "fp4")
_BY_FORMAT = "dense_tflops"
_UNITS = {"_bytes": "bytes", "_gb_s": "GB/s", "_w": "W", "_tflops": "TFLOP/s"}

# Bounds that catch a wrong unit (96 where bytes are meant), not a wrong digit.
_Memory = Annotated[int, Field(ge=10**9, le=10**13)]
_Cache = Annotated[int, Field(ge=10**4, le=10**10)]
_Rate = Annotated[float, Field(gt=0, le=1e6)]


class Disagreement(BaseModel):
    """What another source says of a value, and why it is not the one used.

    Attributes
    ----------
    field : str
        The value that it is about, under the name that it has in :class:`Gpu`.
    used, says : float, str or None
        The value that glmlab computes with, and the other one.
    note : str
        Why it is not used.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    field: str
    used: float | str | None
    says: float | str
    source: str = Field(min_length=1)
    note: str = ""

    def __str__(self) -> str:
        note = f" ({self.note})" if self.note else ""
        return f"{self.field} = {_number(self.used)}: {self.source} says {_number(self.says)}{note}"


class Gpu(BaseModel):
    """One kind of GPU. Bandwidths and memory in GB are decimal: 1 GB is 1e9 bytes.

    Attributes
    ----------
    name : str
        As it is asked for, such as ``"rtx-pro-6000"``.
    title : str
        As its maker calls it.
    device_names : tuple of str
        What drivers call it; exactly these, since a laptop's or an NVL's name only begins alike.
    capability : str
        CUDA compute capability, such as ``"12.0"``.
    memory_bytes : int
        All of it, as the driver counts.
    usable_memory_bytes : int
        What CUDA lets processes see in total; ``gpu_memory_utilization`` is a fraction of this.
    bandwidth_gb_s : float
        Of the memory, nominal.
    loaded_bandwidth_gb_s : float or None
        At the memory clock under compute load, which some cards lower; None where nobody measured.
    dense_tflops : dict
        ``bf16``, ``fp8``, ``fp4`` -> dense TFLOP/s with FP32 accumulation, None where it has no such unit.
    shared_memory_per_block_bytes : int
        The most that a kernel may opt in to.
    pcie_lanes : int
        Of the card's own connector.
    nvlink_gb_s : float or None
        Of one GPU, both directions together, as the maker counts; None on PCIe.
    peer_access : str
        What to expect of copies from card to card.
    power_w : float
        Board power at its highest setting.
    sources : dict
        Field -> where its value is from; ``dense_tflops.fp8`` for one number format.
    disagreements : list of Disagreement
        What other sources say of a value, and why that is not used.
    """

    # Strict: text that looks like a number, or yes for 1, is a mistake in a file.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    name: str
    title: str = Field(min_length=1)
    device_names: tuple[str, ...]
    sms: Annotated[int, Field(ge=1, le=1024)]
    capability: str = Field(pattern=r"^[0-9]+\.[0-9]$")
    memory_bytes: _Memory
    usable_memory_bytes: _Memory
    bandwidth_gb_s: _Rate
    loaded_bandwidth_gb_s: _Rate | None
    dense_tflops: dict[str, _Rate | None]
    shared_memory_per_block_bytes: _Cache
    l2_bytes: _Cache
    link: Literal["pcie", "nvlink"]
    pcie_generation: Annotated[int, Field(ge=1, le=10)]
    pcie_lanes: Literal[1, 2, 4, 8, 16, 32]
    nvlink_gb_s: _Rate | None
    peer_access: str
    power_w: Annotated[float, Field(gt=0, le=1e5)]
    sources: dict[str, str]
    disagreements: list[Disagreement]

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if set(self.dense_tflops) != set(FORMATS):
            found = ", ".join(self.dense_tflops) or "nothing"
            raise ValueError(f"dense_tflops: expected {', '.join(FORMATS)}, found {found}")
        _not_more(self, "usable_memory_bytes", "memory_bytes")
        _not_more(self, "loaded_bandwidth_gb_s", "bandwidth_gb_s")
        if (self.link == "nvlink") != (self.nvlink_gb_s is not None):
            raise ValueError(
                f"nvlink_gb_s = {self.nvlink_gb_s}: with link = {self.link} expected"
                f" {'a number' if self.link == 'nvlink' else 'null'}"
            )
        return self

    @property
    def architecture(self) -> str:
        """Name of its instruction set, such as ``"sm120"``."""
        return "sm" + self.capability.replace(".", "")

    @property
    def capability_major(self) -> int:
        """Generation by which kernels are chosen: the 12 of a capability of 12.0."""
        return int(self.capability.split(".")[0])

    @property
    def memory_gb(self) -> float:
        """All of its memory in GB of 1e9 bytes: a card sold as 96 GB has 102.6 of them."""
        return self.memory_bytes / 1e9

    def to_json(self) -> dict[str, Any]:
        """What ``glmlab gpus NAME --json`` prints."""
        body = self.model_dump(mode="json")
        derived = {"architecture": self.architecture, "memory_gb": round(self.memory_gb, 3)}
        return {"name": self.name, "title": self.title, **derived, **body}

    def rows(self) -> list[tuple[str, str, str]]:
        """Every value as people read it: its name, the value, where it is from."""
        values: dict[str, Any] = {}
        for key, value in self.model_dump(exclude={"name", "title", "sources", "disagreements"}).items():
            values |= (
                {f"{key}.{each}": value[each] for each in FORMATS} if key == _BY_FORMAT else {key: value}
            )
        return [(_label(key), _number(value), self.sources.get(key, "")) for key, value in values.items()]

    def _repr_html_(self) -> str:
        rows = "".join(
            "<tr>" + "".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row) + "</tr>"
            for row in self.rows()
        )
        others = "".join(f"<li>{escape(str(each))}</li>" for each in self.disagreements)
        return (
            f"<p><b>{escape(self.name)}</b>: {escape(self.title)}, {self.architecture}</p>"
            f"<table>{rows}</table>" + (f"<p>Where sources disagree:</p><ul>{others}</ul>" if others else "")
        )


def _not_more(gpu: Gpu, lesser: str, greater: str) -> None:
    value, bound = getattr(gpu, lesser), getattr(gpu, greater)
    if (value or 0) > bound:
        raise ValueError(f"{lesser} = {_number(value)}: more than {greater} = {_number(bound)}")


def _label(key: str) -> str:
    """A field's name as people read it, its unit in brackets."""
    key, _, part = key.partition(".")
    for suffix, unit in _UNITS.items():
        if key.endswith(suffix):
            key = f"{key.removesuffix(suffix)} ({unit})"
    return f"{key.replace('_', ' ')}{part and ', ' + part}"


def _number(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return "; ".join(value)
    if isinstance(value, float):
        return f"{value:,.10g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
