"""Drop CUDA graphs of a running engine and capture them again, KV untouched.

Where vLLM keeps its graphs (read in 0.26 and 0.32):

========  ==============================================  ========================================
runner    full graphs                                     piecewise graphs
========  ==============================================  ========================================
V1        ``CUDAGraphWrapper`` around the model           ``CUDAGraphWrapper`` around each piece
V2        ``CudaGraphManager.graphs``                     the same, or the breakable wrapper
========  ==============================================  ========================================

A piecewise graph leaves attention out, so a change of attention alone drops the full graphs only.
vLLM itself drops and captures again in a live worker when elastic expert parallelism resizes; this
follows its steps (v1/worker/gpu/eplb_utils.py, distributed/elastic_ep/elastic_execute.py).
"""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from typing import Any, Literal

import torch

from glmlab.live.custom_all_reduce import CustomAllReduce

Which = Literal["none", "full", "all"]


class Graphs:
    """The CUDA graphs of one worker.

    Parameters
    ----------
    worker : vllm Worker
        Idle.
    """

    def __init__(self, worker: Any) -> None:
        self._worker = worker
        self._runner = worker.model_runner
        self._stream: Any = None
        self.captured = 0  # graphs that the latest change captured anew
        self.missing = False  # whether a change failed after graphs were dropped

    @property
    def mode(self) -> Any:
        """vLLM's ``CUDAGraphMode``."""
        return self._worker.vllm_config.compilation_config.cudagraph_mode

    @property
    def exist(self) -> bool:
        """Whether this engine captures any."""
        return self._worker.device.type == "cuda" and self.mode is not None and self.mode.name != "NONE"

    @contextlib.contextmanager
    def changing(self, which: Which) -> Iterator[None]:
        """Drop the graphs that hold what changes, run the body, capture them again.

        Parameters
        ----------
        which : {"none", "full", "all"}
            Graphs that hold what the body changes; ``full`` keeps piecewise graphs where that is
            possible. Where the body makes vLLM move its shared workspace, every graph holds a stale
            pointer, and all are captured again; so are they where vLLM's custom all-reduce lies in
            them, which is made anew.

        If the body or the capture fails, graphs are :attr:`missing` until a later call captures all
        of them.
        """
        self.captured = 0
        if not self.exist:
            yield
            return
        # After a failure some piecewise graphs may be there and others not.
        if self.missing or (which == "full" and not self._can_keep_piecewise()):
            which = "all"
        workspace = workspace_addresses()
        if which != "none":
            self.missing = True
            self._drop(full_only=which == "full")
        yield
        if which != "all" and workspace_addresses() != workspace:
            which, self.missing = "all", True
            self._drop(full_only=False)
        if which == "none":
            return
        full_only = which == "full"
        self._capture(full_only=full_only)
        self.missing = False
        kinds = self.count()
        self.captured = kinds["FULL"] if full_only else sum(kinds.values())

    def _can_keep_piecewise(self) -> bool:
        """A drafter, breakable graphs or a custom all-reduce entangle the two kinds: then all are dropped."""
        if not self.mode.has_piecewise_cudagraphs() or CustomAllReduce().exists:
            return False
        runner = self._runner
        if getattr(runner, "speculator", None) is not None or getattr(runner, "drafter", None) is not None:
            return False
        return not any(_is_breakable(wrapper) for wrapper in _wrappers())

    # ------------------------------------------------------------------ dropping
    def _drop(self, *, full_only: bool) -> None:
        torch.accelerator.synchronize()
        CustomAllReduce().renew()  # first: a peer may have memory of these graphs open
        for wrapper in _wrappers():
            if not full_only or _kind(wrapper) == "FULL":
                wrapper.clear_graphs()
        for manager in self._managers():
            if hasattr(manager, "release_graphs"):
                manager.release_graphs()
            else:  # V2 in 0.26
                manager.graphs.clear()
                manager._graphs_captured = False
        gc.collect()
        if not full_only:
            self._take_new_pool()
        torch.accelerator.empty_cache()

    def _take_new_pool(self) -> None:
        """Leave the pool whose last graph is gone: torch's allocator asserts if it is used again.

        Explained in ``profile_cudagraph_memory`` of vLLM's v1/worker/gpu/cudagraph_utils.py.
        """
        from vllm.platforms import current_platform

        pool = current_platform.graph_pool_handle()
        type(current_platform)._global_graph_pool = pool
        for wrapper in _wrappers():
            wrapper.graph_pool = pool
        for manager in self._managers():
            manager.pool = pool

    def _managers(self) -> list[Any]:
        """V2's graph managers: the model's, and a drafter's."""
        try:
            from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager
        except ImportError:
            return []
        owners = (self._runner, getattr(self._runner, "speculator", None))
        return [
            value
            for owner in owners
            if owner is not None
            for value in vars(owner).values()
            if isinstance(value, CudaGraphManager)
        ]

    # ------------------------------------------------------------------ capturing
    def _capture(self, *, full_only: bool) -> None:
        with contextlib.ExitStack() as stack:
            stack.enter_context(self._serving_state_kept())
            stack.enter_context(_heap_kept_frozen())
            stack.enter_context(self._one_capture_stream())
            if full_only:
                stack.enter_context(self._full_graphs_only())
            self._runner.capture_model()
        torch.accelerator.synchronize()

    def _serving_state_kept(self) -> contextlib.AbstractContextManager[Any]:
        """Keep dummy batches of the capture out of the KV cache and the request tables."""
        if hasattr(self._runner, "preserve_serving_state"):  # V1 in 0.32
            return self._runner.preserve_serving_state()
        if getattr(self._runner, "cudagraph_manager", None) is not None:
            with contextlib.suppress(ImportError):
                from vllm.v1.worker.gpu.eplb_utils import preserve_serving_state  # V2 in 0.32

                return preserve_serving_state(self._runner)
        return contextlib.nullcontext()  # 0.26: dummy batches write to the null block

    @contextlib.contextmanager
    def _one_capture_stream(self) -> Iterator[None]:
        """Capture on the same stream every time.

        ``graph_capture`` takes a new stream at each call, and cuBLAS keeps a workspace (32 MB on
        Hopper) for every stream that it was ever used on.
        """
        from vllm.distributed import parallel_state

        own = parallel_state.GraphCaptureContext
        if self._stream is None:
            self._stream = torch.cuda.Stream(device=self._worker.device)
        with _replaced(parallel_state, "GraphCaptureContext", lambda _stream: own(self._stream)):
            yield

    @contextlib.contextmanager
    def _full_graphs_only(self) -> Iterator[None]:
        """Have ``capture_model`` pass over the piecewise graphs, which are still there."""
        undo = contextlib.ExitStack()
        for manager in self._managers():
            full = {mode: descs for mode, descs in manager._capture_descs.items() if mode.name == "FULL"}
            undo.enter_context(_replaced(manager, "_capture_descs", full))
        dispatcher = getattr(self._runner, "cudagraph_dispatcher", None)
        if dispatcher is not None and hasattr(dispatcher, "get_capture_descs"):
            descs = [found for found in dispatcher.get_capture_descs() if found[0].name == "FULL"]
            undo.enter_context(_replaced(dispatcher, "get_capture_descs", lambda: descs))
        with undo:
            yield

    # ------------------------------------------------------------------ what there is
    def count(self) -> dict[str, int]:
        """Captured graphs by kind, ``{"FULL": n, "PIECEWISE": n}``."""
        found = {"FULL": sum(len(manager.graphs) for manager in self._managers()), "PIECEWISE": 0}
        for wrapper in _wrappers():
            if _is_breakable(wrapper):
                found["PIECEWISE"] += len(wrapper.entries)
                continue
            entries = wrapper.concrete_cudagraph_entries
            found[_kind(wrapper)] += sum(entry.cudagraph is not None for entry in entries.values())
        return found


def _is_breakable(wrapper: Any) -> bool:
    return type(wrapper).__name__ == "BreakableCUDAGraphWrapper"


def _kind(wrapper: Any) -> str:
    """``FULL`` or ``PIECEWISE``; a breakable wrapper names none and breaks at attention."""
    mode = None if _is_breakable(wrapper) else wrapper.runtime_mode  # 0.26's breakable one has none
    return "FULL" if mode is not None and mode.name == "FULL" else "PIECEWISE"


def _wrappers() -> list[Any]:
    """Every graph wrapper of this process, of both kinds."""
    from vllm.compilation.cuda_graph import CUDAGraphWrapper

    found = list(CUDAGraphWrapper._all_instances)
    with contextlib.suppress(ImportError):
        from vllm.compilation.breakable_cudagraph import BreakableCUDAGraphWrapper

        found += list(BreakableCUDAGraphWrapper._all_instances)
    return found


@contextlib.contextmanager
def _replaced(holder: Any, name: str, value: Any) -> Iterator[None]:
    """Hold another value in an attribute of a module or an object meanwhile."""
    own = vars(holder).get(name, _inherited)
    setattr(holder, name, value)
    try:
        yield
    finally:
        if own is _inherited:
            delattr(holder, name)
        else:
            setattr(holder, name, own)


_inherited = object()  # an attribute that is the class's


@contextlib.contextmanager
def _heap_kept_frozen() -> Iterator[None]:
    """Keep what vLLM froze at start frozen: its capture would leave the heap thawed.

    vLLM freezes the garbage collector's heap at start, so that steps do not pay for walking more
    than a million objects, freezes again around a capture, and thaws everything afterwards. The
    thaw also costs a collection of all of it, a second or so a change.
    """
    frozen = gc.get_freeze_count() > 0
    with _replaced(gc, "unfreeze", lambda: None) if frozen else contextlib.nullcontext():
        yield
    if frozen:
        gc.freeze()


@contextlib.contextmanager
def workspace_unlocked() -> Iterator[None]:
    """Let vLLM's shared scratch grow meanwhile; where it was not locked it stays so."""
    manager = _workspace()
    if manager is None or not manager.is_locked():
        yield
        return
    manager.unlock()
    try:
        yield
    finally:
        manager.lock()


def workspace_addresses() -> list[int]:
    """Where vLLM's shared scratch lies; it moves when it grows."""
    held = getattr(_workspace(), "_current_workspaces", ())
    return [0 if tensor is None else tensor.data_ptr() for tensor in held]


def _workspace() -> Any:
    try:
        from vllm.v1.worker import workspace
    except ImportError:
        return None
    return workspace.current_workspace_manager() if workspace.is_workspace_manager_initialized() else None
