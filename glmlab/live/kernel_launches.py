"""Triton kernels whose launches are altered, seen, and tried out beforehand.

A kernel is a module global that its launcher looks up at call time, so it can be replaced by a
:class:`WatchedKernel`. That one object does three things: it changes constants of a launch, it
remembers what each launch had (a launch that is captured into a CUDA graph passes here too), and it
compiles a variant for the launches seen so far, without launching it, so that a variant which
cannot run is refused before anything of the engine is touched.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Constants = dict[str, Any]


class WatchedKernel:
    """Stands in for a Triton ``JITFunction`` in its module.

    Parameters
    ----------
    kernel : triton.runtime.JITFunction
        The kernel.
    decide : callable
        Keyword arguments of a launch -> those to change. Called for each launch.
    kind : callable
        Keyword arguments of a launch -> the kind of launch it is; the first of each kind is kept for
        :meth:`compile`.
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
        self._seen: dict[str, tuple[tuple[Any, ...], Constants]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.glmlab_wraps, name)

    def __getitem__(self, grid: Any) -> Callable[..., Any]:
        launch = self.glmlab_wraps[grid]

        def watched(*args: Any, **kwargs: Any) -> Any:
            kind = self._kind(kwargs)
            if kind not in self._seen:
                self._seen[kind] = (
                    tuple(map(_without_storage, args)),
                    {name: _without_storage(value) for name, value in kwargs.items()},
                )
            return launch(*args, **{**kwargs, **self._decide(kwargs)})

        return watched

    def forget(self) -> None:
        """Forget launches: the next engine of this process may have other sizes and types."""
        self._seen.clear()

    def compile(self, kind: str, constants: Constants) -> Any:
        """Compile the kernel as a launch of this kind with other constants would.

        Parameters
        ----------
        kind : str
            As the launch was called; nothing happens before the first of its kind.
        constants : dict
            Constants and launch options to change.

        Returns
        -------
        triton CompiledKernel or None
            Kept in Triton's caches, so the launch itself will not compile again.
        """
        if kind not in self._seen:
            return None
        args, kwargs = self._seen[kind]
        return self.glmlab_wraps.warmup(*args, grid=(1,), **{**kwargs, **constants})


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


def _without_storage(value: Any) -> Any:
    """A tensor's type alone: keeping the tensor would keep its memory."""
    if not hasattr(value, "data_ptr"):
        return value
    from triton.runtime.jit import MockTensor

    return MockTensor(value.dtype)


def refuse_what_cannot_run(what: str, compile_it: Callable[[], Any], limits: Mapping[str, int]) -> None:
    """Compile, and hold the result against the device's limits.

    Parameters
    ----------
    what : str
        The setting, for the message.
    compile_it : callable
        Gives a compiled kernel or ``None``.
    limits : mapping
        As :func:`device_limits` gives them.

    Raises
    ------
    ValueError
        In one line, if it does not compile or could not be launched.
    """
    try:
        kernel = compile_it()
    except Exception as error:  # Triton raises many kinds, MLIR's PassManager plain RuntimeErrors
        raise ValueError(f"{what}: the kernel does not compile: {_said(error)}") from error
    if kernel is None:
        return
    needs = int(kernel.metadata.shared)
    allowed = limits["shared_memory_bytes"]
    if needs > allowed:
        raise ValueError(
            f"{what}: the kernel needs {needs:,} bytes of shared memory, a block of this GPU has"
            f" {allowed:,}; take a smaller tile or fewer stages"
        )


def _said(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[-1] if lines else 'no message'}"


def device_limits(device: Any) -> dict[str, int]:
    """What one thread block of a CUDA device may take.

    Returns
    -------
    dict
        ``shared_memory_bytes`` (the opt-in limit: 101,376 on SM120, 232,448 on Hopper).
    """
    import torch

    properties = torch.cuda.get_device_properties(device)
    return {"shared_memory_bytes": int(properties.shared_memory_per_block_optin)}
