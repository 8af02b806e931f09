"""How long an all-reduce takes: tables by link, method and ranks, each with its source.

``data/calibration/all_reduce/*.yaml``; a user's own under ``GLMLAB_DATA`` go before them, file by file.
Between two sizes of a table time is taken as linear in the bytes, beyond the last as going on like its last
stretch.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from glmlab.data_folders import data_folders
from glmlab.decode.constants import Case
from glmlab.fact_file import load_facts

Link = Literal["pcie", "nvlink"]
Method = Literal["nccl", "one-shot", "custom"]
_Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class AllReduceTable(BaseModel):
    """What one method takes on one kind of link.

    Attributes
    ----------
    us : dict
        Bytes of the message -> microseconds.
    best, worst : float
        What these are multiplied with for the ends of what they may be.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    link: Link
    method: Method
    ranks: Annotated[int, Field(ge=2)]
    us: Annotated[dict[int, _Positive], Field(min_length=2)]
    best: Annotated[float, Field(gt=0, le=1)]
    worst: Annotated[float, Field(ge=1, allow_inf_nan=False)]
    source: str = Field(min_length=1)

    @model_validator(mode="after")
    def _sizes_ascend(self) -> Self:
        if list(self.us) != sorted(self.us):
            raise ValueError("us: expected the sizes in ascending order")
        return self

    def microseconds(self, size: float, case: Case) -> float:
        """Of one all-reduce of so many bytes."""
        # A smaller message cannot take longer: what a table says otherwise is noise.
        points = list(zip(self.us, accumulate(self.us.values(), max), strict=True))
        return between_sizes(points, size) * {"best": self.best, "value": 1.0, "worst": self.worst}[case]


def between_sizes(points: Sequence[tuple[int, float]], size: float) -> float:
    """Microseconds at a size, of two points or more that ascend: lines between them, the last going on."""
    (low, at_low), (high, at_high) = points[0], points[1]
    for (low, at_low), (high, at_high) in pairwise(points):  # noqa: B007 - the last pair goes on
        if size <= high:
            break
    return at_low + (at_high - at_low) / (high - low) * max(0.0, size - low)


def all_reduce_tables() -> tuple[AllReduceTable, ...]:
    """The tables in force.

    Raises
    ------
    RecipeError
        If a user's file is wrong, with its line.
    """
    files: dict[str, Path] = {}
    for folder in data_folders("calibration/all_reduce"):
        files |= {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    return tuple(load_facts(file, AllReduceTable) for file in files.values())


def all_reduce_us(
    tables: Sequence[AllReduceTable], methods: Sequence[Method], ranks: int, size: float, case: Case
) -> float:
    """Microseconds of one all-reduce by the fastest of some methods, each as for the nearest known ranks.

    Parameters
    ----------
    tables : sequence of AllReduceTable
        Those of one link.
    methods : sequence of str
        What the engine may use; one of them at least has a table.
    ranks : int
        How many take part; a single one has nothing to do.
    size : float
        Bytes of the message.
    case : {"best", "value", "worst"}
        Which end of what is known.
    """
    if ranks == 1:
        return 0.0
    times = []
    for method in methods:
        of_method = sorted((t for t in tables if t.method == method), key=lambda table: table.ranks)
        if not of_method:
            continue
        # More ranks take longer: the next larger table, or beyond all of them the largest, by a ring's steps.
        table = next((each for each in of_method if each.ranks >= ranks), of_method[-1])
        steps = max(1.0, (ranks - 1) / (table.ranks - 1))
        times.append(table.microseconds(size, case) * steps)
    return min(times)
