"""CUDA graphs dropped and captured again: vLLM's own holders of graphs, without a GPU to fill them."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("vllm")

from vllm.compilation.cuda_graph import CUDAGraphWrapper  # noqa: E402
from vllm.config import CUDAGraphMode  # noqa: E402
from vllm.distributed import parallel_state  # noqa: E402
from vllm.platforms import current_platform  # noqa: E402

from glmlab.live.custom_all_reduce import CustomAllReduce  # noqa: E402
from glmlab.live.graphs import Graphs, workspace_unlocked  # noqa: E402

pytestmark = pytest.mark.engine


class Runner:
    """A model runner whose capture fills the holders as vLLM's does, on whatever stream it is given."""

    speculator = drafter = None

    def __init__(self, *, two_kinds: bool = True) -> None:
        self.piece, self.full = wrapper(CUDAGraphMode.PIECEWISE), wrapper(CUDAGraphMode.FULL)
        self.two_kinds = two_kinds
        self.dispatcher_modes = [CUDAGraphMode.PIECEWISE, CUDAGraphMode.FULL][not two_kinds :]
        self.cudagraph_dispatcher = SimpleNamespace(
            get_capture_descs=lambda: [(mode, [1, 2]) for mode in self.dispatcher_modes]
        )
        self.streams: list[Any] = []
        self.thawed: list[int] = []
        self.error: Exception | None = None
        self.capture_model()

    def capture_model(self) -> int:
        if self.error is not None:
            raise self.error
        self.streams.append(parallel_state.GraphCaptureContext(object()).stream)
        for mode, sizes in self.cudagraph_dispatcher.get_capture_descs():
            holder = self.piece if mode == CUDAGraphMode.PIECEWISE else self.full
            for size in sizes:
                assert size not in holder.concrete_cudagraph_entries, "captured twice"
                holder.concrete_cudagraph_entries[size] = SimpleNamespace(cudagraph=object())
        gc.unfreeze()
        self.thawed.append(gc.get_freeze_count())
        return 1


def wrapper(mode: CUDAGraphMode) -> CUDAGraphWrapper:
    made = CUDAGraphWrapper.__new__(CUDAGraphWrapper)
    made.__dict__.update(
        runnable=SimpleNamespace(),
        runtime_mode=mode,
        graph_pool="first",
        concrete_cudagraph_entries={},
        is_debugging_mode=False,
    )
    CUDAGraphWrapper._all_instances.add(made)
    return made


class Workspace:
    """vLLM's shared scratch; it moves when it grows."""

    def __init__(self) -> None:
        self.locked = True
        self._current_workspaces: list[Any] = [torch.empty(8), None]

    def is_locked(self) -> bool:
        return self.locked

    def lock(self) -> None:
        self.locked = True

    def unlock(self) -> None:
        self.locked = False

    def grow(self) -> None:
        assert not self.locked, "vLLM refuses to grow it when it is locked"
        kept = self._current_workspaces[0]
        self._current_workspaces[0] = torch.empty(8 + kept.numel())


@pytest.fixture
def workspace(monkeypatch: pytest.MonkeyPatch) -> Workspace:
    from vllm.v1.worker import workspace as module

    made = Workspace()
    monkeypatch.setattr(module, "_manager", made)
    return made


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Graphs]:
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: SimpleNamespace(device=device))
    platform = type(current_platform)
    monkeypatch.setattr(platform, "graph_pool_handle", lambda *_: object(), raising=False)
    monkeypatch.setattr(platform, "_global_graph_pool", "first", raising=False)
    monkeypatch.setattr(CUDAGraphWrapper, "_all_instances", set())
    worker = SimpleNamespace(
        model_runner=Runner(),
        device=torch.device("cuda"),
        vllm_config=SimpleNamespace(
            compilation_config=SimpleNamespace(cudagraph_mode=CUDAGraphMode.FULL_AND_PIECEWISE)
        ),
    )
    yield Graphs(worker)
    gc.unfreeze()


def held(holder: CUDAGraphWrapper) -> dict[int, Any]:
    return {size: entry.cudagraph for size, entry in holder.concrete_cudagraph_entries.items()}


def test_attention_leaves_piecewise_graphs_and_their_pool(graphs: Graphs) -> None:
    runner = graphs._runner
    pieces, full = held(runner.piece), held(runner.full)
    with graphs.changing("full"):
        assert held(runner.full) == {}
        assert held(runner.piece) == pieces
    assert held(runner.piece) == pieces
    assert held(runner.full).keys() == full.keys()
    assert not set(held(runner.full).values()) & set(full.values())
    assert graphs.captured == 2
    assert runner.full.graph_pool == "first", "the pool still has graphs, and goes on"


def test_layers_take_all_graphs_and_a_new_pool(graphs: Graphs) -> None:
    runner = graphs._runner
    pieces = held(runner.piece)
    with graphs.changing("all"):
        assert held(runner.piece) == held(runner.full) == {}
    assert not set(held(runner.piece).values()) & set(pieces.values())
    assert graphs.captured == 4
    assert runner.full.graph_pool is runner.piece.graph_pool is not None
    assert runner.full.graph_pool != "first", "a pool that lost its last graph must not be used again"


def test_a_drafter_ties_both_kinds_together(graphs: Graphs) -> None:
    graphs._runner.drafter = object()
    with graphs.changing("full"):
        assert held(graphs._runner.piece) == {}


def test_a_custom_all_reduce_lies_in_both_kinds_and_is_made_anew_before_they_go(
    graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = graphs._runner
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(CustomAllReduce, "exists", True)
    monkeypatch.setattr(
        CustomAllReduce, "renew", lambda _: seen.append((len(held(runner.piece)), len(held(runner.full))))
    )
    with graphs.changing("full"):
        assert held(runner.piece) == held(runner.full) == {}
    assert seen == [(2, 2)], "once, while a peer's mapping of their memory was still good"
    assert graphs.captured == 4


def test_every_capture_is_on_one_stream_of_ours(graphs: Graphs) -> None:
    own = parallel_state.GraphCaptureContext
    for _ in range(3):
        with graphs.changing("full"):
            pass
    first, *ours = graphs._runner.streams
    assert len(set(map(id, ours))) == 1
    assert first is not ours[0]
    assert parallel_state.GraphCaptureContext is own


def test_the_frozen_heap_stays_frozen(graphs: Graphs) -> None:
    gc.freeze()
    before = gc.get_freeze_count()
    with graphs.changing("full"):
        pass
    # A few frozen objects end by themselves meanwhile; a thaw would leave none.
    assert graphs._runner.thawed[-1] > 0.99 * before
    assert gc.get_freeze_count() > 0.99 * before
    gc.unfreeze()
    assert gc.get_freeze_count() == 0, "and the collector is itself again"


def test_a_heap_that_was_not_frozen_is_not_frozen_by_us(graphs: Graphs) -> None:
    gc.unfreeze()
    with graphs.changing("full"):
        pass
    assert gc.get_freeze_count() == 0


def test_after_a_failed_capture_the_next_one_takes_all(graphs: Graphs) -> None:
    runner = graphs._runner
    runner.error = RuntimeError("out of memory")
    with pytest.raises(RuntimeError, match="out of memory"), graphs.changing("full"):
        pass
    were_missing = graphs.missing
    runner.error = None
    with graphs.changing("full"):
        assert held(runner.piece) == {}, "what is left of them cannot be trusted"
    assert (were_missing, graphs.missing) == (True, False)
    assert graphs.captured == 4


def test_a_failure_between_dropping_and_capturing_counts_too(graphs: Graphs) -> None:
    with pytest.raises(ValueError, match="planted"), graphs.changing("all"):
        raise ValueError("planted")
    assert graphs.missing
    assert graphs.count() == {"FULL": 0, "PIECEWISE": 0}


def test_nothing_is_captured_where_no_graph_holds_what_changes(graphs: Graphs) -> None:
    pieces, full = held(graphs._runner.piece), held(graphs._runner.full)
    with graphs.changing("none"):
        pass
    assert (held(graphs._runner.piece), held(graphs._runner.full)) == (pieces, full)
    assert graphs.captured == 0


@pytest.mark.parametrize("which", ["none", "full"])
def test_a_workspace_that_moves_takes_every_graph_with_it(
    graphs: Graphs, workspace: Workspace, which: Any
) -> None:
    """Mixtures take their buffers from it too, so piecewise graphs hold its address."""
    pieces = held(graphs._runner.piece)
    with workspace_unlocked(), graphs.changing(which):
        workspace.grow()
    assert not set(held(graphs._runner.piece).values()) & set(pieces.values())
    assert graphs.captured == 4
    assert not graphs.missing


def test_a_workspace_that_stays_keeps_piecewise_graphs(graphs: Graphs, workspace: Workspace) -> None:
    pieces = held(graphs._runner.piece)
    with workspace_unlocked(), graphs.changing("full"):
        pass
    assert held(graphs._runner.piece) == pieces


@pytest.mark.parametrize("locked", [True, False])
def test_the_workspace_is_locked_afterwards_only_if_it_was(workspace: Workspace, locked: bool) -> None:
    workspace.locked = locked
    with workspace_unlocked():
        assert not workspace.locked
    assert workspace.locked is locked


def test_graphs_of_the_v2_runner_and_breakable_ones_are_counted_and_dropped(
    graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V2 keeps full graphs in a manager; 0.26 has no release_graphs, and no mode on breakable wrappers."""
    from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager

    class Manager(CudaGraphManager):  # type: ignore[misc]
        release_graphs = property(doc="as in 0.26: there is none")

        def __init__(self) -> None:
            self.graphs = {"decode": object()}
            self._graphs_captured = True
            self._capture_descs = {CUDAGraphMode.FULL: ["decode"], CUDAGraphMode.PIECEWISE: ["mixed"]}
            self.pool = "first"

    class BreakableCUDAGraphWrapper:
        def __init__(self) -> None:
            self.entries = {1: object(), 2: object()}
            self.graph_pool = "first"

        def clear_graphs(self) -> None:
            self.entries.clear()

    from vllm.compilation import breakable_cudagraph

    breakable = BreakableCUDAGraphWrapper()
    monkeypatch.setattr(breakable_cudagraph.BreakableCUDAGraphWrapper, "_all_instances", {breakable})
    runner = graphs._runner
    runner.cudagraph_manager = manager = Manager()
    assert graphs.count() == {"FULL": 3, "PIECEWISE": 4}
    seen: list[Any] = []
    monkeypatch.setattr(runner, "capture_model", lambda: seen.append(dict(manager._capture_descs)))
    monkeypatch.setattr(graphs, "_serving_state_kept", contextlib.nullcontext)
    with graphs.changing("full"):
        assert graphs.count() == {"FULL": 0, "PIECEWISE": 0}, "breakable graphs tie both kinds together"
        assert not manager._graphs_captured
    assert seen == [{CUDAGraphMode.FULL: ["decode"], CUDAGraphMode.PIECEWISE: ["mixed"]}]
    assert manager.pool is breakable.graph_pool
    assert manager.pool != "first"


def test_the_v2_runner_captures_full_graphs_alone(graphs: Graphs, monkeypatch: pytest.MonkeyPatch) -> None:
    from vllm.v1.worker.gpu.cudagraph_utils import CudaGraphManager

    manager = CudaGraphManager.__new__(CudaGraphManager)
    every = {CUDAGraphMode.FULL: ["decode"], CUDAGraphMode.PIECEWISE: ["mixed"]}
    manager.__dict__.update(
        graphs={}, _graphs_captured=True, _capture_descs=every, pool="first", breakable_cg_runner=None
    )
    runner = graphs._runner
    runner.cudagraph_manager = manager
    seen: list[Any] = []
    monkeypatch.setattr(runner, "capture_model", lambda: seen.append(dict(manager._capture_descs)))
    monkeypatch.setattr(graphs, "_serving_state_kept", contextlib.nullcontext)
    with graphs.changing("full"):
        pass
    assert seen == [{CUDAGraphMode.FULL: ["decode"]}]
    assert manager._capture_descs == every
    assert manager.pool == "first"


def test_dummy_batches_of_a_capture_are_kept_out_of_the_requests(graphs: Graphs) -> None:
    inside: list[str] = []

    @contextlib.contextmanager
    def preserve() -> Iterator[None]:
        inside.append("in")
        yield
        inside.append("out")

    graphs._runner.preserve_serving_state = preserve
    own = graphs._runner.capture_model

    def capture() -> int:
        inside.append("capture")
        return int(own())

    graphs._runner.capture_model = capture
    with graphs.changing("full"):
        pass
    assert inside == ["in", "capture", "out"]
