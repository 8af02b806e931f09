"""What a change would launch is compiled beforehand, all at once; with the real Triton where there is one."""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
import threading
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from glmlab.live.compile_ahead import Attempt, refuse_what_cannot_run  # noqa: E402
from glmlab.live.kernel_launches import WatchedKernel  # noqa: E402
from tests.attention_doubles import Compiled, Kernel  # noqa: E402

LIMITS = {"shared_memory_bytes": 100_000}


def watched(kernel: Kernel) -> WatchedKernel:
    return WatchedKernel(kernel, decide=lambda _: {}, kind=lambda _: "all")


def test_a_seen_launch_keeps_no_tensor() -> None:
    kernel = Kernel("x_ptr", "size")
    seen = watched(kernel)
    assert seen.attempts("warps = 2", "all", {"num_warps": 2}) == []
    seen[(1,)](torch.empty(8), 3)
    refuse_what_cannot_run(seen.attempts("warps = 2", "all", {"num_warps": 2}), LIMITS)
    (done,) = kernel.compiled
    assert done["size"] == 3
    assert done["num_warps"] == 2
    assert done["x_ptr"].dtype == torch.float32
    assert not isinstance(done["x_ptr"], torch.Tensor)


def test_launches_that_differ_in_what_changes_are_one() -> None:
    """A stride that a change sets anew must not be compiled as it was."""
    kernel = Kernel("stride")
    seen = watched(kernel)
    for stride in (513, 16 * 513, 1):
        seen[(1,)](stride, NUM_SPLITS=stride)
    assert len(seen.attempts("", "all", {})) == 3
    refuse_what_cannot_run(seen.attempts("", "all", {"stride": 32 * 513, "NUM_SPLITS": 32}), LIMITS)
    assert [(done["stride"], done["NUM_SPLITS"]) for done in kernel.compiled] == [(32 * 513, 32)]


def test_an_engine_with_ever_new_launches_keeps_a_few() -> None:
    seen = watched(Kernel())
    for index in range(1000):
        seen[(1,)](name=str(index))
    assert len(seen.attempts("", "all", {})) == 64


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two CPUs")
def test_kernels_are_compiled_at_the_same_time() -> None:
    both = threading.Barrier(2, timeout=20)

    def compile_it() -> Any:
        both.wait()
        return Compiled(0)

    refuse_what_cannot_run([Attempt("one", compile_it), Attempt("two", compile_it)], LIMITS)


def test_the_first_that_cannot_run_is_named_and_all_are_waited_for() -> None:
    done = []

    def compiled(shared: int) -> Compiled:
        done.append(shared)
        return Compiled(shared)

    def broken() -> Any:
        raise RuntimeError("a\nPassManager::run failed")

    attempts = [Attempt(f"tile = {n}", functools.partial(compiled, n)) for n in (1, 200_000, 300_000)]
    with pytest.raises(ValueError, match=r"tile = 200000: .* 200,000 bytes .* has 100,000"):
        refuse_what_cannot_run(attempts, LIMITS)
    assert sorted(done) == [1, 200_000, 300_000]
    with pytest.raises(ValueError, match=r"tile = 0: .* not compile: RuntimeError: PassManager::run failed"):
        refuse_what_cannot_run([Attempt("tile = 0", broken), *attempts], LIMITS)
    refuse_what_cannot_run([], LIMITS)


REAL = '''
import threading, time
import torch, triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from glmlab.live.compile_ahead import Attempt, refuse_what_cannot_run
from glmlab.live.kernel_launches import WatchedKernel

class Driver:
    """A Hopper GPU that only compiles."""
    def get_current_target(self): return GPUTarget("cuda", 90, 32)
    def get_current_device(self): return 0
    def get_current_stream(self, device): return 0

triton.runtime.driver.set_active(Driver())

@triton.jit
def kernel(x_ptr, rows, SPLITS: tl.constexpr):
    total = 0.0
    for split in range(SPLITS):
        total += tl.sum(tl.load(x_ptr + tl.arange(0, 1024) + split * rows))
    tl.store(x_ptr, total)

misses = []
def listen(*, src, metadata, metadata_group, times, cache_hit):
    if not cache_hit:
        misses.append(threading.current_thread().name)
triton.knobs.compilation.listener = listen

watched = WatchedKernel(kernel, decide=lambda _: {}, kind=lambda _: "all")
watched.glmlab_wraps = type("Seen", (), {"arg_names": kernel.arg_names,
    "__getitem__": lambda self, grid: lambda *args, **kwargs: None, "warmup": kernel.warmup})()
x = torch.empty(8)
for rows in (1, 4, 16, 6, 32):
    watched[(1,)](x, rows=rows, SPLITS=16)
refuse_what_cannot_run(watched.attempts("", "all", {"SPLITS": 64}), {"shared_memory_bytes": 100_000})
assert len(misses) == 3 and all("glmlab-compile" in name for name in misses), misses
for rows in (1, 2, 48):  # as launches would ask for it
    kernel.warmup(triton.runtime.jit.MockTensor(torch.float32), rows=rows, SPLITS=64, grid=(1,))
assert len(misses) == 3, "a launch would have compiled again"
'''


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs Triton")
def test_launches_of_the_real_triton_find_what_was_compiled(tmp_path: Any) -> None:
    script = tmp_path / "real.py"  # Triton reads a kernel's source from its file
    script.write_text(REAL, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, str(script)],
        env={
            **os.environ,
            "TRITON_CACHE_DIR": str(tmp_path / "cache"),
            "PYTHONPATH": os.pathsep.join(sys.path),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
