"""The constants of the predictor: each a value and the two ends of what it may be, with its source.

They are data, ``data/calibration/decode.yaml``; a file of that name under ``GLMLAB_DATA`` takes its place.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from glmlab.data_folders import data_folders
from glmlab.fact_file import load_facts

Case = Literal["best", "value", "worst"]
CASES: tuple[Case, ...] = ("best", "value", "worst")

_Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
_FILE = "decode.yaml"


class _Facts(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Constant(_Facts):
    """One constant.

    Attributes
    ----------
    value : float
        What predictions are made with; the unit is in the constant's name.
    best, worst : float
        The ends of what it may be: with ``best`` a step is shortest.
    source : str
        Where it is from.
    """

    value: _Number
    best: _Number
    worst: _Number
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _value_between(self) -> Self:
        low, high = sorted((self.best, self.worst))
        if not low <= self.value <= high:
            raise ValueError(
                f"value = {self.value:g}: lies outside of best = {self.best:g} and worst = {self.worst:g}"
            )
        return self

    def at(self, case: Case) -> float:
        """The number in one case."""
        found: float = getattr(self, case)
        return found


class AttentionKernel(_Facts):
    """How long one kernel of decode attention takes; the formula is in :mod:`glmlab.decode.attention`.

    Attributes
    ----------
    fixed_us : Constant
        Of one layer, whatever it reads.
    split_us, split_sequence_us : Constant
        For each split, and for each split of each sequence: empty programs, and joining the parts.
    program_gb_s : Constant or None
        KV that one program reads in a second; None where the kernel fills the GPU by itself.
    multiprocessor_gb_s : Constant or None
        KV that one multiprocessor takes in at most; None where the memory is what limits it.
    bandwidth_share : Constant
        Share of the memory's bandwidth that all of them get at most.
    """

    fixed_us: Constant
    split_us: Constant
    split_sequence_us: Constant
    program_gb_s: Constant | None
    multiprocessor_gb_s: Constant | None
    bandwidth_share: Constant


class LinkConstants(_Facts):
    """One constant for each kind of link."""

    pcie: Constant
    nvlink: Constant

    def of(self, link: Literal["pcie", "nvlink"]) -> Constant:
        """That of one link."""
        return self.nvlink if link == "nvlink" else self.pcie


class MatrixConstants(_Facts):
    """One constant for products that Triton computes, one for those of other backends."""

    triton: Constant
    others: Constant

    def of(self, linear_backend: str | None) -> Constant:
        """That of one ``linear_backend``."""
        return self.triton if linear_backend == "triton" else self.others


class Constants(_Facts):
    """All of them; what each means is said in the file."""

    dense_bandwidth_share: Constant
    expert_bandwidth_share: Constant
    expert_layer_us: Constant
    quantized_matrix_us: MatrixConstants
    layer_us: dict[Literal["gqa", "mla", "mla+dsa"], Constant]
    host_step_ms: Constant
    pipeline_host_ms: Constant
    hop_us: LinkConstants
    link_gb_s: LinkConstants
    join_exponent: Constant
    probed_all_reduce_share: Constant
    attention: dict[str, AttentionKernel]

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        for kind in ("gqa", "mla", "mla+dsa"):
            if kind not in self.layer_us:
                raise ValueError(f"layer_us.{kind}: missing")
        if "others" not in self.attention:
            raise ValueError("attention.others: missing; it stands for every kernel that is not listed")
        return self

    def kernel(self, backend: str) -> AttentionKernel:
        """Of an attention backend, by vLLM's name for it."""
        return self.attention.get(backend, self.attention["others"])


def constants() -> Constants:
    """Those in force: the packaged ones, or a user's own file.

    Raises
    ------
    RecipeError
        If a user's file is wrong, with its line.
    """
    files = [folder / _FILE for folder in data_folders("calibration") if (folder / _FILE).is_file()]
    return load_facts(files[-1], Constants)
