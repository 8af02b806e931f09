"""Measure a workload by stepping an engine: every step is timed, nothing is inferred."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from glmlab.errors import MeasureError
from glmlab.host_noise import QuietHost
from glmlab.measurement import Evidence, Measurement, PointMeasurement, WorkerMemory
from glmlab.workload import Workload

_MAX_IDLE_STEPS = 1000  # an engine that has work but delivers nothing for so long is stuck


@dataclass(frozen=True)
class StepOutput:
    """What one step gave one request."""

    request_id: str
    new_tokens: list[int]
    finished: bool
    cached_tokens: int


@dataclass(frozen=True)
class DeviceTime:
    """What a device clock saw of one rank.

    Attributes
    ----------
    step_ms, collectives_ms : list of float
        Kernel time of each step, and what of it went into collectives.
    family_ms : dict
        Kernel family -> mean time per step.
    """

    step_ms: list[float]
    collectives_ms: list[float] = field(default_factory=list)
    family_ms: dict[str, float] = field(default_factory=dict)

    @property
    def compute_ms(self) -> list[float] | None:
        """Kernel time of each step without collectives; ``None`` where there were none."""
        if not any(self.collectives_ms):
            return None
        return [
            round(step - shared, 5) for step, shared in zip(self.step_ms, self.collectives_ms, strict=True)
        ]

    @classmethod
    def of_slowest(cls, ranks: Sequence[DeviceTime]) -> DeviceTime:
        """Of the rank that has most to compute: the others wait for it, in kernels of collectives."""
        return max(ranks, key=lambda rank: sum(rank.compute_ms or rank.step_ms))


class Stepper(Protocol):
    """The part of a running engine that measuring needs."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def device_tokens(self) -> int:
        """Tokens of each request to go on for under the device clock; 0 without a device."""

    @property
    def keeps_prompts(self) -> bool:
        """Whether a prompt is not computed again while its KV is there: a prefix cache."""

    @property
    def frozen_objects(self) -> int:
        """Objects of the engine's process that the garbage collector does not look at."""

    def submit(self, request_id: str, prompt: list[int], max_tokens: int) -> None: ...
    def step(self) -> list[StepOutput]: ...
    def has_unfinished(self) -> bool: ...
    def abort(self, request_ids: Iterable[str]) -> None: ...
    def reset_prefix_cache(self) -> None: ...
    def start_device_clock(self) -> None: ...
    def stop_device_clock(self, step_ends_ns: list[int]) -> DeviceTime: ...
    def memory(self) -> list[WorkerMemory]: ...


@dataclass
class _Request:
    submitted_s: float
    ended_at: list[float] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)
    cached: int = 0

    def take(self, output: StepOutput, now_s: float) -> None:
        count = len(output.new_tokens)
        self.cached = max(self.cached, output.cached_tokens)
        if not count:
            return
        if self.ended_at:
            self.gaps_ms += [(now_s - self.ended_at[-1]) * 1e3 / count] * count
        self.ended_at.append(now_s)
        self.tokens += output.new_tokens

    @property
    def ttft_ms(self) -> float:
        return (self.ended_at[0] - self.submitted_s) * 1e3


@dataclass
class _Pass:
    requests: list[_Request]
    wall_ms: list[float]
    step_tokens: list[int]
    elapsed_ms: float
    device: DeviceTime | None
    device_pass_ms: float


def measure(engine: Stepper, workload: Workload, *, evidence: Evidence = "measured") -> Measurement:
    """Run every point of a workload and keep every sample.

    Each point is run twice: a warm-up pass, which computes prompts that the prefix cache does not
    hold yet, and the measured pass. With ``workload.cold_prefill`` the cache is emptied between
    the two, so that the measured pass pays for its prompts. Where they were computed and are kept, a
    second warm-up pass goes the way of the measured one, with what is left to compute of a kept prompt:
    vLLM compiles kernels of such short prefills when it first meets them, and the first visit to an
    engine would pay for that.

    Parameters
    ----------
    engine : Stepper
        Idle.
    workload : Workload
        What to run.

    Raises
    ------
    MeasureError
        If the engine has work but stops delivering. Its requests are aborted.
    """
    if engine.has_unfinished():
        raise MeasureError("measure: the engine still has requests; wait for them or abort them")
    started, begin = time.time(), time.perf_counter()
    points = []
    with QuietHost(engine.frozen_objects) as host:
        for context, batch in workload.points:
            prompts = [workload.prompt(i, context, engine.vocab_size) for i in range(batch)]
            warm = _run(engine, prompts, workload.warmup_tokens, device=False)
            if workload.cold_prefill:
                engine.reset_prefix_cache()
            elif engine.keeps_prompts and any(r.cached < context // 2 for r in warm.requests):
                warm.elapsed_ms += _run(engine, prompts, workload.warmup_tokens, device=False).elapsed_ms
            main = _run(engine, prompts, workload.new_tokens, device=True)
            points.append(_point(context, batch, warm, main))
    notes = []
    if host.noise.other_cpu_percent > 10:
        notes.append(f"other processes used {host.noise.other_cpu_percent:.0f} % of the CPU meanwhile")
    return Measurement(
        evidence=evidence,
        points=points,
        memory=engine.memory(),
        noise=host.noise,
        started_unix_s=round(started, 3),
        duration_s=round(time.perf_counter() - begin, 4),
        notes=notes,
    )


_serial = itertools.count()  # vLLM wants request ids that were never used before


def _run(engine: Stepper, prompts: list[list[int]], max_tokens: int, *, device: bool) -> _Pass:
    """Send one batch, step until it is done, time every step."""
    serial = next(_serial)
    extra = engine.device_tokens if device else 0
    requests: dict[str, _Request] = {}
    wall_ms, step_tokens = [], []
    device_time: DeviceTime | None = None
    begin = time.perf_counter()
    try:
        for index, prompt in enumerate(prompts):
            request_id = f"glmlab-{serial}-{index}"
            requests[request_id] = _Request(begin)
            engine.submit(request_id, prompt, max_tokens + extra)
        idle = 0
        while engine.has_unfinished() and (
            not extra or min(len(r.tokens) for r in requests.values()) < max_tokens
        ):
            before = time.perf_counter()
            outputs = engine.step()
            now = time.perf_counter()
            delivered = sum(len(output.new_tokens) for output in outputs)
            wall_ms.append(round((now - before) * 1e3, 4))
            step_tokens.append(delivered)
            for output in outputs:
                requests[output.request_id].take(output, now)
            idle = 0 if delivered else idle + 1
            if idle > _MAX_IDLE_STEPS:
                raise MeasureError(
                    f"measure: {_MAX_IDLE_STEPS} steps without a token at context"
                    f" {len(prompts[0])}, batch {len(prompts)}; the workload may not fit the KV pool"
                )
        device_begin = time.perf_counter()
        elapsed_ms = (device_begin - begin) * 1e3
        if extra:
            device_time = _device_steps(engine)
        device_pass_ms = (time.perf_counter() - device_begin) * 1e3
        for request in requests.values():  # those that began before the others went further
            del request.tokens[max_tokens:], request.gaps_ms[max_tokens - 1 :]
    finally:
        if engine.has_unfinished():
            engine.abort(list(requests))
            while engine.has_unfinished():
                engine.step()
    return _Pass(list(requests.values()), wall_ms, step_tokens, elapsed_ms, device_time, device_pass_ms)


def _device_steps(engine: Stepper) -> DeviceTime:
    """Step on under the device clock; wall times of these steps are not used.

    An engine that schedules ahead has launched a part of the first step before the clock ran, and one with
    a pipeline returns from every other step empty-handed: so what lies between two steps that delivered
    tokens is a step.
    """
    ends_ns: list[int] = []
    idle = 0
    engine.start_device_clock()
    while engine.has_unfinished() and len(ends_ns) < engine.device_tokens - 1 and idle <= _MAX_IDLE_STEPS:
        delivered = any(output.new_tokens for output in engine.step())
        idle = 0 if delivered else idle + 1
        if delivered:
            ends_ns.append(time.time_ns())
    return engine.stop_device_clock(ends_ns)


def _point(context: int, batch: int, warm: _Pass, main: _Pass) -> PointMeasurement:
    return PointMeasurement(
        context=context,
        batch=batch,
        wall_step_ms=main.wall_ms,
        step_tokens=main.step_tokens,
        token_gap_ms=[round(gap, 4) for r in main.requests for gap in r.gaps_ms],
        ttft_ms=[round(r.ttft_ms, 4) for r in main.requests],
        cached_tokens=[r.cached for r in main.requests],
        device_step_ms=main.device.step_ms if main.device else None,
        device_compute_ms=main.device.compute_ms if main.device else None,
        device_family_ms=main.device.family_ms if main.device else None,
        device_pass_ms=round(main.device_pass_ms, 3),
        warmup_ms=round(warm.elapsed_ms, 3),
        warmup_ttft_ms=[round(r.ttft_ms, 4) for r in warm.requests],
        warmup_cached_tokens=[r.cached for r in warm.requests],
        elapsed_ms=round(main.elapsed_ms, 3),
        tokens=[r.tokens for r in main.requests],
    )
