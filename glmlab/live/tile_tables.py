"""Tile tables in front of vLLM's own lookup, and the tiles that launches really had.

vLLM keeps tiles by token count. A launcher asks a lookup for them, a module global that is found at
call time, and takes the entry whose count is nearest (``try_get_optimal_moe_config`` and
``w8a8_triton_block_scaled_mm``, read in vLLM 0.26 and 0.32). So a wrapped lookup decides every
launch, vLLM's own rule included, and the kernel, watched, tells what the launch had.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import astuple
from typing import Any

from glmlab.live.forced import force, forced, release
from glmlab.live.kernel_launches import WatchedKernel
from glmlab.tiles import DEFAULT, TileTable

Constants = tuple[int, int, int, int, int, int]  # block M, N, K, group, warps, stages

TRITON_WARPS, TRITON_STAGES = 4, 3  # Triton's own where a launch names none (CUDAOptions)


class NamedKernel(WatchedKernel):
    """A watched kernel whose launchers pass tensors and sizes by position."""

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        launch = super().__getitem__(grid)
        names = self.glmlab_wraps.arg_names

        def named(*args: Any, **kwargs: Any) -> Any:
            return launch(**dict(zip(names, args, strict=False)), **kwargs)

        return named


class TileKnob:
    """One knob of tiles, in this process.

    Parameters
    ----------
    name : str
        Of the knob.
    more : int
        Further keys of each entry that the launcher wants.
    """

    def __init__(self, name: str, **more: int) -> None:
        self.name = name
        self._more = more
        self._launched: set[tuple[int, Constants]] = set()
        self._entries: tuple[str, dict[int, dict[str, int]]] | None = None

    # ------------------------------------------------------------------ what is asked for
    @property
    def value(self) -> str:
        """The knob's value: ``default``, or the text of a table."""
        return str(forced(self.name) or DEFAULT)

    @property
    def table(self) -> TileTable | None:
        """The table asked for; ``None`` leaves the choice to vLLM."""
        return None if self.value == DEFAULT else TileTable.parse(self.value)

    def ask(self, value: str) -> None:
        """Put a table, or vLLM's own choice, in force; what was launched before is forgotten."""
        self._launched.clear()
        if value == DEFAULT:
            release(self.name)
        else:
            force(self.name, str(TileTable.parse(value)))

    # ------------------------------------------------------------------ the lookup
    def wrap_lookup(self, module: Any, name: str, reader: str) -> str:
        """Put the table in front of a cached lookup; say why not where that would have no effect.

        Parameters
        ----------
        module : module
            That holds the lookup.
        name : str
            Of the lookup.
        reader : str
            The function of that module that must read it, as a global.
        """
        original = getattr(module, name, None)
        if original is None:
            return f"this vLLM has no {name}"
        if hasattr(original, "glmlab_wraps"):
            return ""
        read_by = getattr(module, reader, None)
        if name not in getattr(getattr(read_by, "__code__", None), "co_names", ()):
            return f"this vLLM's {reader} does not read {name}"

        @functools.wraps(original)
        def lookup(*args: Any, **kwargs: Any) -> Any:
            asked = self.entries()
            return original(*args, **kwargs) if asked is None else asked

        lookup.glmlab_wraps = original  # type: ignore[attr-defined]
        for method in ("cache_clear", "cache_info", "cache_parameters"):  # vLLM's tools call them
            if hasattr(original, method):
                setattr(lookup, method, getattr(original, method))
        setattr(module, name, lookup)
        return ""

    def entries(self) -> dict[int, dict[str, int]] | None:
        """What the lookup answers; the same object each time, as vLLM's cached one does."""
        value = self.value
        if value == DEFAULT:
            return None
        if self._entries is None or self._entries[0] != value:
            self._entries = (value, TileTable.parse(value).to_vllm(**self._more))
        return self._entries[1]

    def in_force(self, answer: Any) -> str:
        """The knob's value, judged by what the lookup just answered."""
        if self.table is None:
            return DEFAULT
        return self.value if answer is self.entries() else f"not in force: the lookup gave {answer}"

    # ------------------------------------------------------------------ the launches
    def watch(
        self,
        module: Any,
        name: str,
        *,
        tokens: Callable[[Mapping[str, Any]], int],
        kind: Callable[[Mapping[str, Any]], str],
    ) -> str:
        """See every launch of a kernel; say why not where it cannot be seen.

        Parameters
        ----------
        module : module
            That holds the kernel and launches it.
        name : str
            Of the kernel.
        tokens, kind : callable
            Arguments of a launch by name -> its token count, and its kind for
            :meth:`WatchedKernel.compile`.
        """
        kernel = getattr(module, name, None)
        if isinstance(kernel, NamedKernel):
            return ""
        if not hasattr(kernel, "arg_names"):
            return f"this vLLM has no Triton kernel {name}" if kernel is None else "vLLM runs without Triton"

        def decide(launch: Mapping[str, Any]) -> dict[str, Any]:
            self._launched.add((tokens(launch), constants(launch)))
            return {}

        setattr(module, name, NamedKernel(kernel, decide=decide, kind=kind))
        return ""

    def forget(self) -> None:
        """Forget launches, as for a new engine of this process."""
        self._launched.clear()

    def used(self) -> str | None:
        """The knob's value if every launch agrees with it, else the tile that one had.

        ``None`` before the first launch.
        """
        if not self._launched:
            return None
        table = self.table
        if table is None:
            return DEFAULT
        for tokens, had in sorted(self._launched):
            if had != astuple(table.nearest(tokens)):
                m, n, k, group, warps, stages = had
                return f"{m}x{n}x{k} g{group} w{warps} s{stages} at {tokens} tokens"
        return self.value


def constants(launch: Mapping[str, Any]) -> Constants:
    """The tile of a launch, whichever of vLLM's two spellings the kernel has."""
    prefix = "BLOCK_SIZE_" if "BLOCK_SIZE_M" in launch else "BLOCK_"
    return (
        int(launch[f"{prefix}M"]),
        int(launch[f"{prefix}N"]),
        int(launch[f"{prefix}K"]),
        int(launch.get("GROUP_SIZE_M", 1)),
        int(launch.get("num_warps") or TRITON_WARPS),
        int(launch.get("num_stages") or TRITON_STAGES),
    )
