"""What a seam is: a few live knobs of one worker that live in the same private part of vLLM."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol


class Seam(Protocol):
    """Knobs of one part of vLLM, in one worker.

    A seam looks for its part when it is made. Where the part is missing or of another shape, its
    probe says so for each of its knobs and nothing else is ever called.
    """

    KNOBS: ClassVar[tuple[str, ...]]

    def __init__(self, worker: Any) -> None: ...

    def probe(self) -> dict[str, dict[str, Any]]:
        """Knob -> fields of a KnobStatus; every knob of :attr:`KNOBS` is there."""

    def values(self) -> dict[str, Any]:
        """Knobs that can be live -> value in force, read where the kernels are launched from."""

    def used(self) -> dict[str, Any]:
        """Knobs -> value that the latest launch really had since the knob was last set.

        A launch that is captured into a CUDA graph counts: the graph repeats it.
        """

    def notes(self, batches: Sequence[int]) -> list[str]:
        """What a reader of numbers for these batch sizes must know, such as a knob without effect."""

    def is_captured(self, name: str) -> bool:
        """Whether CUDA graphs of this engine hold launches that the knob decides."""

    def check(self, changes: Mapping[str, Any]) -> None:
        """Look at all changes of this seam together, before anything is touched.

        Raises
        ------
        ValueError
            In one line, for what this engine cannot take, be it that a kernel does not compile.
        """

    def set(self, name: str, value: Any) -> bool:
        """Change one knob of an idle engine; returns whether earlier KV can still be read.

        Where :meth:`is_captured`, the caller has dropped the graphs and will capture them again.
        """
