"""The device clock: kernels shared out to steps, with the profiler's events planted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from glmlab.live.device_clock import DeviceClock  # noqa: E402

pytestmark = pytest.mark.engine


def kernel(name: str, start_ms: float, takes_ms: float, *, on: str = "CUDA") -> Any:
    return SimpleNamespace(
        name=lambda: name,
        start_ns=lambda: int(start_ms * 1e6),
        duration_ns=lambda: int(takes_ms * 1e6),
        device_type=lambda: getattr(torch.autograd.DeviceType, on),
    )


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> DeviceClock:
    monkeypatch.setattr(torch.accelerator, "synchronize", lambda: None)
    return DeviceClock()


def stopped(clock: DeviceClock, ends_ms: list[float], *kernels: Any) -> dict[str, Any]:
    results = SimpleNamespace(events=lambda: list(kernels))
    clock._profiler = SimpleNamespace(
        profiler=SimpleNamespace(kineto_results=results), __exit__=lambda *_: None
    )
    return clock.stop([int(end * 1e6) for end in ends_ms])


def test_what_lies_between_two_ends_is_a_step_and_what_lies_outside_is_none(clock: DeviceClock) -> None:
    found = stopped(
        clock,
        [10, 20, 30],
        kernel("gemm", 5, 3),  # of a step that began before the clock
        kernel("unified_attention", 11, 2),
        kernel("ncclAllReduce", 15, 4),
        kernel("unified_attention", 21, 3),
        kernel("cross_device_reduce_1stage", 25, 1),
        kernel("gemm", 31, 7),  # launched ahead
        kernel("aten::mm", 12, 9, on="CPU"),
    )
    assert found["step_ms"] == [6.0, 4.0]
    assert found["collectives_ms"] == [4.0, 1.0]
    assert found["family_ms"] == {"attention": 2.5, "collectives": 2.5}
    assert sum(found["family_ms"].values()) == sum(found["step_ms"]) / 2


@pytest.mark.parametrize("ends_ms", [[], [10]])
def test_without_a_whole_step_there_is_no_time(clock: DeviceClock, ends_ms: list[float]) -> None:
    assert stopped(clock, ends_ms, kernel("gemm", 5, 3))["step_ms"] == []
