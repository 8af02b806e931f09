"""The real engine: vLLM's LLMEngine in this process, stepped by hand."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, Self

from glmlab.all_reduce_time import AllReduceTime, slowest
from glmlab.engines.base import ApplyReport, EngineState, KnobStatus, StartReport, WorkerState
from glmlab.engines.engine_log import vllm_log_in, worker_death
from glmlab.engines.handle import EngineHandle
from glmlab.engines.live_knobs import LiveKnobs, check_allowed, spelled
from glmlab.engines.recipe_held import held_and_missing
from glmlab.engines.vllm_args import engine_environment, forced_at_start, knobs_at_start
from glmlab.engines.vllm_build import build, environment, first_line, forget_engine
from glmlab.errors import (
    ApplyError,
    EngineDiedError,
    EngineError,
    EngineStartError,
    GraphsLostError,
    KnobError,
    MeasureError,
)
from glmlab.host_noise import frozen_heap
from glmlab.live import forced
from glmlab.live.plugin import KNOBS_VARIABLE
from glmlab.measure import DeviceTime, StepOutput, measure
from glmlab.measurement import Evidence, Measurement, WorkerMemory
from glmlab.recipe import Recipe
from glmlab.vllm_install import installed_vllm
from glmlab.workload import Workload

_TIMEOUT_S = {
    "glmlab_apply": 600.0,  # a change with its capture takes seconds, with many graphs a minute
    "glmlab_all_reduce": 120.0,  # takes a second
}
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine core in this process, where we can step it
    "VLLM_NO_USAGE_STATS": "1",
}


class VllmEngine:
    """A vLLM engine in this process (its tensor-parallel workers, if any, are vLLM's own).

    Parameters
    ----------
    recipe : Recipe
        What to run.
    ceilings : mapping, optional
        See :func:`glmlab.engines.start`.
    log_path : Path, optional
        Where vLLM's log goes; where the process writes by default.
    handle : EngineHandle, optional
        For ending it from another thread: its next step is then refused.
    """

    evidence: Evidence = "measured"
    _one_at_a_time: ClassVar[Lock] = Lock()
    steps_done: ClassVar[int] = 0  # by all engines of this process, for whoever watches it

    def __init__(
        self,
        recipe: Recipe,
        *,
        ceilings: Mapping[str, int] | None = None,
        log_path: Path | None = None,
        handle: EngineHandle | None = None,
    ) -> None:
        if not self._one_at_a_time.acquire(blocking=False):
            raise EngineStartError(
                "an engine already runs in this process: close it first, or use home='child'"
            )
        self._engine: Any = None
        self._holds_process = True
        self._broken = ""
        self._busy, self._handle = Lock(), handle or EngineHandle()
        self._recipe = recipe
        self.log_path = log_path
        self._log_begin = log_path.stat().st_size if log_path and log_path.is_file() else 0
        begin = time.perf_counter()
        try:
            with contextlib.ExitStack() as start:
                variables = start.enter_context(vllm_log_in(log_path)) if log_path else {}
                for_cpu = installed_vllm().for_cpu
                variables |= engine_environment(recipe, for_cpu=for_cpu) | _ENVIRONMENT
                variables[KNOBS_VARIABLE] = forced_at_start(recipe, variables, for_cpu=for_cpu)
                start.enter_context(environment(variables))
                self._engine = build(recipe, ceilings or {})
            self._live = LiveKnobs(self._rpc, self._core.scheduler)
            notes = self._set_to_recipe()
            # What was forced before the build went past every refusal: it is judged now.
            if reason := self._live.judge(spelled(knobs_at_start(recipe, for_cpu=for_cpu))):
                raise EngineStartError(f"the recipe cannot be had here: {reason}")
            self.frozen_objects = frozen_heap()
        except BaseException:
            self.close()
            raise
        self.started = StartReport(seconds=time.perf_counter() - begin, notes=notes)

    def _set_to_recipe(self) -> list[str]:
        """Compare what runs with what was asked for, and bring the live knobs to the recipe's values."""
        changes, notes = held_and_missing(self._recipe, self.state().knobs)
        try:
            if changes:
                self.apply(**changes)
        except (KnobError, ApplyError) as error:
            raise EngineStartError(f"the recipe cannot be had here: {error}") from None
        return notes

    # ------------------------------------------------------------------ what it is
    @property
    def recipe(self) -> Recipe:
        return self._recipe

    @property
    def pids(self) -> tuple[int, ...]:
        own = os.getpid()
        return tuple(worker.pid for worker in self.state().workers if worker.pid != own)

    @property
    def vllm(self) -> Any:
        """vLLM's own ``LLMEngine``, for playing with it; what you change there is yours."""
        return self._alive()

    @property
    def _core(self) -> Any:
        return self._alive().engine_core.engine_core

    def _alive(self) -> Any:
        if self._engine is None:
            raise EngineError("the engine is closed")
        if self._broken:
            raise EngineDiedError(f"the engine is broken and can only be closed: {self._broken}")
        return self._engine

    def _rpc(self, method: str, *args: Any) -> list[Any]:
        engine = self._alive()
        ranks = engine.vllm_config.parallel_config.world_size
        # One rank that fails inside a capture leaves the others waiting in a collective.
        limit_s = _TIMEOUT_S.get(method) if ranks > 1 else None
        try:
            return list(engine.collective_rpc(method, timeout=limit_s, args=args))
        except Exception as error:
            if ranks > 1:
                # The answers of the other ranks are still waiting, and would be taken for the next call's.
                self._broken = f"{method}: a worker failed or died: {first_line(error)}"
                raise EngineDiedError(self._broken) from error
            raise EngineError(f"{method}: {first_line(error)}") from error

    def all_reduce_times(self) -> list[AllReduceTime]:
        """All-reduces between the ranks, timed now; none where there is one rank."""
        with self._exclusively("all_reduce_times"):
            ranks = self._rpc("glmlab_all_reduce")
        return slowest([[AllReduceTime(**fields) for fields in rank] for rank in ranks])

    # ------------------------------------------------------------------ knobs
    def knobs(self) -> dict[str, KnobStatus]:
        """Ask every worker and the scheduler; a knob is live only if all ranks agree."""
        self._alive()
        return self._live.status()

    def state(self) -> EngineState:
        import platform

        import torch
        import vllm

        config = self._alive().vllm_config
        ranks = self._rpc("glmlab_state")
        first = ranks[0]
        graphs = config.compilation_config.cudagraph_mode
        values: dict[str, Any] = {
            "block_size": first["block_size"],
            "cpu_threads": first["cpu_threads"] if first["device"] == "cpu" else None,
            "kv_cache_dtype": str(config.cache_config.cache_dtype),
            "tensor_parallel": config.parallel_config.tensor_parallel_size,
            "pipeline_parallel": config.parallel_config.pipeline_parallel_size,
            "expert_parallel": bool(config.parallel_config.enable_expert_parallel),
            "prefix_caching": bool(config.cache_config.enable_prefix_caching),
            "attention_backend": first["backend"],
            "enforce_eager": bool(config.model_config.enforce_eager),
            "cudagraph_mode": graphs.name if graphs is not None else None,
        }
        kernel = getattr(config, "kernel_config", None)
        for name in ("moe_backend", "linear_backend"):
            values[name] = getattr(kernel, name, None)
        values |= self._live.limits.values() | first["values"]
        cache = config.cache_config
        return EngineState(
            knobs=values,
            kv_tokens=int(cache.num_gpu_blocks or 0) * int(cache.block_size),
            workers=[
                WorkerState(**{key: r[key] for key in ("rank", "pid", "values", "used", "graphs")})
                for r in ranks
            ],
            backend=first["backend"],
            moe_tile_files=sorted({name for rank in ranks for name in rank["moe_tile_files"]}),
            versions={
                "vllm": vllm.__version__,
                "torch": torch.__version__,
                "python": platform.python_version(),
                "device": first["device"],
            },
        )

    def apply(self, **knobs: Any) -> ApplyReport:
        begin = time.perf_counter()
        with self._exclusively("apply"):
            status, knobs = self.knobs(), spelled(knobs)
            check_allowed(knobs, status)
            changed = {k: (status[k].value, v) for k, v in knobs.items() if status[k].value != v}
            if self._alive().has_unfinished_requests():
                raise ApplyError("apply: requests are running; wait for them or abort them")
            try:
                kv_kept, graphs = self._live.change(knobs, status)
            except GraphsLostError as error:
                self._broken = str(error)
                raise
            if not kv_kept:
                self.reset_prefix_cache()
        return ApplyReport(
            changed=changed,
            seconds=time.perf_counter() - begin,
            kv_kept=kv_kept,
            graphs_captured=graphs,
        )

    # ------------------------------------------------------------------ measuring
    def measure(self, workload: Workload) -> Measurement:
        with self._exclusively("measure"):
            notes = self._check_workload(workload)
            measurement = measure(self, workload)
            self._check_used()
            notes += self._rpc("glmlab_notes", list(workload.batch_sizes))[0]
        return measurement.model_copy(update={"notes": notes + measurement.notes})

    def _check_workload(self, workload: Workload) -> list[str]:
        longest = self._alive().vllm_config.model_config.max_model_len
        needed = workload.longest + self.device_tokens
        if needed > longest:
            raise MeasureError(
                f"workload: context {max(workload.contexts)} with its output needs {needed} tokens,"
                f" the engine's max_model_len is {longest}"
            )
        pool = self.state().kv_tokens
        if needed > pool:
            raise MeasureError(f"workload: one request needs {needed} tokens of KV, the pool holds {pool}")
        most = max(workload.tokens(c, b) + b * self.device_tokens for c, b in workload.points)
        waits = f"the largest point needs {most} tokens of KV, the pool holds {pool}: some requests wait"
        return [f"{waits}; workload.most_tokens leaves such points out"] if most > pool else []

    def _check_used(self) -> None:
        """A knob that is set but did not reach the kernels would make the numbers a lie."""
        first, *others = workers = self.state().workers
        for worker in others:
            for name, value in worker.values.items():
                if first.values.get(name) != value:
                    raise MeasureError(
                        f"{name}: rank {worker.rank} has {value!r}, rank {first.rank}"
                        f" {first.values.get(name)!r}; these numbers would be of neither"
                    )
        for worker in workers:
            for name, value in worker.used.items():
                if worker.values.get(name) != value:
                    raise MeasureError(
                        f"{name}: set to {worker.values.get(name)!r} on rank {worker.rank}, but the"
                        f" forward passes ran with {value!r}"
                    )

    @property
    def vocab_size(self) -> int:
        return int(self._alive().vllm_config.model_config.get_vocab_size())

    @property
    def keeps_prompts(self) -> bool:
        return bool(self._alive().vllm_config.cache_config.enable_prefix_caching)

    @property
    def device_tokens(self) -> int:
        from vllm.platforms import current_platform

        from glmlab.live.device_clock import DEVICE_STEPS

        # One more opens the first whole step, and with the last a request would end.
        return 0 if current_platform.is_cpu() else DEVICE_STEPS + 2

    def submit(self, request_id: str, prompt: list[int], max_tokens: int) -> None:
        from vllm import SamplingParams
        from vllm.sampling_params import RequestOutputKind

        self._alive().add_request(
            request_id,
            {"prompt_token_ids": prompt},
            SamplingParams(
                temperature=0.0,
                max_tokens=max_tokens,
                ignore_eos=True,
                detokenize=False,
                output_kind=RequestOutputKind.DELTA,
            ),
        )

    def step(self) -> list[StepOutput]:
        if self._handle.is_ended:
            self._broken = "the engine was aborted"
            self._handle.check()
        try:
            outputs = self._alive().step()
        except Exception as error:
            # What vLLM's scheduler holds after that is anybody's guess: no number may come of it.
            # Of a child its driver reads the log.
            death = worker_death(self.log_path, self._log_begin) if self.log_path else ""
            self._broken = f"vLLM failed during a step: {first_line(error)}" + (f"; {death}" if death else "")
            raise EngineDiedError(self._broken) from error
        VllmEngine.steps_done += 1
        return [
            StepOutput(
                request_id=output.request_id,
                new_tokens=list(output.outputs[0].token_ids),
                finished=output.finished,
                cached_tokens=output.num_cached_tokens or 0,
            )
            for output in outputs
        ]

    def has_unfinished(self) -> bool:
        return not self._broken and bool(self._alive().has_unfinished_requests())

    def abort(self, request_ids: Iterable[str]) -> None:
        self._alive().abort_request(list(request_ids))

    def reset_prefix_cache(self) -> None:
        if not self._alive().reset_prefix_cache():
            raise MeasureError("the prefix cache could not be emptied: blocks are still in use")

    def start_device_clock(self) -> None:
        self._rpc("glmlab_device_start")

    def stop_device_clock(self, step_ends_ns: list[int]) -> DeviceTime:
        ranks = self._rpc("glmlab_device_stop", step_ends_ns)
        return DeviceTime.of_slowest([DeviceTime(**fields) for fields in ranks])

    def memory(self) -> list[WorkerMemory]:
        return [WorkerMemory(**fields) for fields in self._rpc("glmlab_memory")]

    # ------------------------------------------------------------------ life
    @contextlib.contextmanager
    def _exclusively(self, what: str) -> Iterator[None]:
        if not self._busy.acquire(blocking=False):
            raise EngineError(f"{what}: the engine is busy with another call; wait for it to return")
        try:
            yield
        finally:
            self._busy.release()

    def close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is not None:
            forced.reset({})  # whoever uses vLLM in this process next is not to have our knobs
            engine.engine_core.shutdown()
            del engine
            gc.unfreeze()
            gc.collect()
            forget_engine()
        if self._holds_process:
            self._holds_process = False
            self._one_at_a_time.release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        life = "closed" if self._engine is None else "running"
        return f"VllmEngine({self._recipe.name}, home=kernel, {life})"
