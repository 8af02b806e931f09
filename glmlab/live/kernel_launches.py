"""Triton kernels whose launches are altered, seen, and tried out beforehand.

A kernel is a module global that its launcher looks up at call time, so it can be replaced by a
:class:`WatchedKernel`. That one object does three things: it changes constants of a launch, it
remembers what each launch had (a launch that is captured into a CUDA graph passes here too), and it
can compile another value for the launches seen so far, without launching it
(:mod:`glmlab.live.compile_ahead`).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

from glmlab.live.compile_ahead import Attempt

Constants = dict[str, Any]

_MOST_VARIANTS = 64  # of one kind; an engine has a handful, and keeping more would only cost memory


class WatchedKernel:
    """Stands in for a Triton ``JITFunction`` in its module.

    Parameters
    ----------
    kernel : triton.runtime.JITFunction
        The kernel.
    decide : callable
        Keyword arguments of a launch -> those to change. Called for each launch.
    kind : callable
        Keyword arguments of a launch -> the kind of launch it is. Of each kind, launches that Triton
        compiles apart are kept for :meth:`attempts`.
    """

    def __init__(
        self,
        kernel: Any,
        *,
        decide: Callable[[Mapping[str, Any]], Constants],
        kind: Callable[[Mapping[str, Any]], str],
    ) -> None:
        self.glmlab_wraps = kernel
        self._decide = decide
        self._kind = kind
        self._seen: dict[str, dict[tuple[Any, ...], Constants]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.glmlab_wraps, name)

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        launch = self.glmlab_wraps[grid]

        def watched(*args: Any, **kwargs: Any) -> Any:
            variants = self._seen.setdefault(self._kind(kwargs), {})
            compiled_for = (*map(_compiled_for, args), *map(_compiled_for, kwargs.values()))
            if compiled_for not in variants and len(variants) < _MOST_VARIANTS:
                named = {**dict(zip(self.glmlab_wraps.arg_names, args, strict=False)), **kwargs}
                variants[compiled_for] = {name: _without_storage(value) for name, value in named.items()}
            return launch(*args, **{**kwargs, **self._decide(kwargs)})

        return watched

    def forget(self) -> None:
        """Forget launches: the next engine of this process may have other sizes and types."""
        self._seen.clear()

    def attempts(self, what: str, kind: str, constants: Constants) -> list[Attempt]:
        """To compile the kernel as the launches of a kind seen so far would with other constants.

        Parameters
        ----------
        what : str
            The setting, for messages.
        kind : str
            As the launches were called; there is nothing to compile before the first of its kind.
        constants : dict
            Arguments and launch options to change, by name.
        """
        launches: dict[tuple[Any, ...], Constants] = {}
        for seen in self._seen.get(kind, {}).values():
            launch = {**seen, **constants}
            # Two that differed in what changes now are one.
            launches.setdefault(tuple(map(_compiled_for, launch.values())), launch)
        return [
            Attempt(what, functools.partial(self.glmlab_wraps.warmup, grid=(1,), **launch))
            for launch in launches.values()
        ]


class Used:
    """Values that launches had since the latest change, by knob; one that is not alone is no proof."""

    def __init__(self) -> None:
        self._had: dict[str, set[Any]] = {}

    def saw(self, name: str, value: Any) -> None:
        """Take one launch into account."""
        self._had.setdefault(name, set()).add(value)

    def clear(self) -> None:
        """Forget: what was launched before a change proves nothing of it."""
        self._had.clear()

    def found(self) -> dict[str, Any]:
        """Knob -> the one value of all launches, or text that tells several."""
        return {
            name: next(iter(values)) if len(values) == 1 else f"mixed: {sorted(values, key=str)}"
            for name, values in self._had.items()
        }


def _compiled_for(value: Any) -> Any:
    """What Triton tells apart of one argument: 1, multiples of 16 and other numbers; types."""
    kind = type(value)
    if kind is int:
        return 1 if value == 1 else "16n" if value % 16 == 0 else "n"
    return value if kind in (bool, str) else kind


def _without_storage(value: Any) -> Any:
    """A tensor's type alone: keeping the tensor would keep its memory."""
    if not hasattr(value, "data_ptr"):
        return value
    from triton.runtime.jit import MockTensor

    return MockTensor(value.dtype)
