"""An engine in a process of its own: same code, same API, and it can be killed."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import weakref
from collections.abc import Mapping
from pathlib import Path
from threading import Lock, RLock
from typing import Any, Self

import psutil
from pydantic import BaseModel, TypeAdapter

from glmlab import errors
from glmlab.all_reduce_time import AllReduceTime
from glmlab.engines.base import ApplyReport, EngineKnobs, EngineState, KnobStatus, StartReport
from glmlab.engines.call_watch import CallWatch
from glmlab.engines.engine_log import new_log_path, problem_line, tail, worker_death
from glmlab.engines.handle import EngineHandle
from glmlab.engines.placement import Placement, place
from glmlab.engines.protocol import Apply, Ask, Channel, Done, Failed, Measure, Start, replies
from glmlab.engines.stacks import collect_stacks, stacks_folder
from glmlab.engines.vllm_args import engine_environment
from glmlab.errors import EngineDiedError, EngineError, EngineStartError, GlmlabError, InputError
from glmlab.hardware import machine
from glmlab.live.stack_dump import STACKS_VARIABLE
from glmlab.measurement import Evidence, Measurement
from glmlab.recipe import Recipe
from glmlab.vllm_install import installed_vllm
from glmlab.workload import Workload

_CLOSE_TIMEOUT_S = 30.0
_PROBE_TIMEOUT_S = 120.0
_knobs = TypeAdapter(dict[str, KnobStatus])
_times = TypeAdapter(list[AllReduceTime])


class ChildEngine:
    """A vLLM engine in a child process, driven over a socket.

    The child leads a process group of its own: closing ends it gently and then kills whatever of
    the group is left; killing kills the group at once. A child whose driver is gone ends itself.

    Parameters
    ----------
    recipe : Recipe
        What to run.
    ceilings : mapping, optional
        See :func:`glmlab.engines.start`.
    start_timeout_s : float
        Until the engine must answer.
    call_timeout_s : float
        Until any later call must have returned.
    beat_timeout_s : float
        Without a sign of life for so long, the child counts as hung and is killed.
    step_timeout_s : float
        No step of a measurement may take longer: a rank that waits for another waits for ever. vLLM
        itself gives up after 300 s, and does not say which rank it was.
    log_path : Path, optional
        Where the child's output goes.
    handle : EngineHandle, optional
        For ending the child from another thread, while it starts too.
    """

    evidence: Evidence = "measured"

    def __init__(
        self,
        recipe: Recipe,
        *,
        ceilings: Mapping[str, int] | None = None,
        start_timeout_s: float = 1800.0,
        call_timeout_s: float = 3600.0,
        beat_timeout_s: float = 120.0,
        step_timeout_s: float = 240.0,
        log_path: Path | None = None,
        handle: EngineHandle | None = None,
    ) -> None:
        self._recipe = recipe
        self._call_timeout_s = call_timeout_s
        self._beat_timeout_s, self._step_timeout_s = beat_timeout_s, step_timeout_s
        self.log_path = log_path or new_log_path(recipe.name)
        self._driver = os.getpid()
        self._end = ""  # why it is no more; empty while it lives
        self._busy, self._killing = Lock(), RLock()
        self._handle = handle or EngineHandle()
        begin = time.perf_counter()
        for_cpu = installed_vllm().for_cpu
        placement = Placement((), "") if for_cpu else place(recipe, machine())
        own = engine_environment(recipe, for_cpu=for_cpu) | placement.environment
        self._process, self._channel = _spawn(own, self.log_path)
        self._group = self._process.pid
        try:
            self._offer(weakref.ref(self))
            report = self._call(
                Start(recipe=recipe, ceilings=dict(ceilings or {})), timeout_s=start_timeout_s
            )
        except BaseException as error:
            self.kill("failed to start")
            if isinstance(error, EngineDiedError):
                raise EngineStartError(f"start: {error}", log_tail=tail(self.log_path)) from None
            raise
        started = StartReport.model_validate_json(report)
        notes = [placement.why] * bool(placement.why) + started.notes
        self.started = StartReport(seconds=time.perf_counter() - begin, notes=notes)

    def _offer(self, me: weakref.ref[ChildEngine]) -> None:
        """Let the handle end this engine, without holding on to one that is dropped."""

        def kill() -> None:
            if (engine := me()) is not None:
                engine.kill("was aborted")

        def pids() -> tuple[int, ...]:
            engine = me()
            return () if engine is None else engine.pids

        self._handle.hold(kill, pids)

    # ------------------------------------------------------------------ what it is
    @property
    def recipe(self) -> Recipe:
        return self._recipe

    @property
    def pid(self) -> int:
        """Process id of the child."""
        return self._process.pid

    @property
    def pids(self) -> tuple[int, ...]:
        return (self.pid, *sorted(set(_group_members(self._group)) - {self.pid}))

    # ------------------------------------------------------------------ Engine
    def knobs(self) -> dict[str, KnobStatus]:
        return EngineKnobs(_knobs.validate_json(self._call(Ask(op="knobs"))))

    def state(self) -> EngineState:
        return EngineState.model_validate_json(self._call(Ask(op="state")))

    def apply(self, **knobs: Any) -> ApplyReport:
        return ApplyReport.model_validate_json(self._call(Apply(knobs=knobs)))

    def measure(self, workload: Workload) -> Measurement:
        return Measurement.model_validate_json(self._call(Measure(workload=workload)))

    def all_reduce_times(self) -> list[AllReduceTime]:
        """All-reduces between the ranks, timed now; none where there is one rank."""
        return _times.validate_json(self._call(Ask(op="all_reduce_times"), timeout_s=_PROBE_TIMEOUT_S))

    def close(self) -> None:
        if self._end:
            self.kill()  # which another thread may be at
            return
        with contextlib.suppress(GlmlabError):
            self._call(Ask(op="close"), timeout_s=_CLOSE_TIMEOUT_S)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=5)
        self.kill("is closed")

    def kill(self, why: str = "was killed") -> None:
        """End the child and everything that it started, now; calling it again does nothing."""
        if os.getpid() != self._driver:
            return  # a fork of the driver, which drops its copy when it ends: the engine is not its own
        with self._killing:  # whoever comes second waits until it is gone
            if self._end:
                return
            self._end = why
            self._handle.let_go()
            self._channel.close()
            deadline = time.monotonic() + 10
            while True:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._group, signal.SIGKILL)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(timeout=0.2)
                if not _group_members(self._group) or time.monotonic() > deadline:
                    break
                time.sleep(0.02)
            shutil.rmtree(stacks_folder(self.log_path), ignore_errors=True)

    # ------------------------------------------------------------------ talking
    def _call(self, request: BaseModel, timeout_s: float | None = None) -> str:
        """Send a request and wait for its answer, for signs of life, or for the end."""
        if self._end:
            self._handle.check()
            raise EngineError(f"the engine {self._end}")
        limit_s = timeout_s or self._call_timeout_s
        what = request.op  # type: ignore[attr-defined]
        if not self._busy.acquire(blocking=False):
            raise EngineError(f"{what}: the engine is busy with another call; wait for it to return")
        try:
            self._channel.send(request)  # type: ignore[arg-type]
            return self._wait(what, limit_s)
        except (EOFError, OSError):
            self._handle.check()
            raise self._died(what) from None
        except (KeyboardInterrupt, SystemExit):
            self.kill("was killed by an interrupt")  # mid-answer: the conversation is lost
            raise
        finally:
            self._busy.release()

    def _wait(self, what: str, limit_s: float) -> str:
        watch = CallWatch(what, limit_s, self._beat_timeout_s, self._step_timeout_s)
        while True:
            line = self._channel.receive(timeout_s=0.5)
            if line is not None:
                reply = replies.validate_json(line)
                if isinstance(reply, Done):
                    return reply.result
                if isinstance(reply, Failed):
                    raise self._failure(reply)
                watch.heard(reply)
            if reason := watch.too_long():
                raise self._hung(reason)
            if self._end:
                raise EOFError  # another thread has killed it

    def _hung(self, reason: str) -> EngineDiedError:
        """Ask every process where it is, then kill them all."""
        stacks = collect_stacks(self.pids, stacks_folder(self.log_path))
        self.kill(reason)
        found = "\n".join(map(str, stacks))
        with contextlib.suppress(OSError), self.log_path.open("a", encoding="utf-8") as log:
            log.write(f"\nglmlab: the engine {reason}\n{found}\n")
        where = "".join(f"; {stack.name} {stack.where}" for stack in stacks)
        return EngineDiedError(
            f"the engine {reason} and was killed{where}; log: {self.log_path}",
            log_tail=tail(self.log_path, 60),
        )

    def _failure(self, reply: Failed) -> GlmlabError:
        kind = getattr(errors, reply.error, EngineError)
        if issubclass(kind, InputError):
            return kind(reply.message)
        death = worker_death(self.log_path) if issubclass(kind, EngineDiedError) else ""
        message = f"{reply.message}; {death}" if death else reply.message
        failure: GlmlabError = kind(message, log_tail=tail(self.log_path))
        return failure

    def _died(self, what: str) -> EngineDiedError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=5)
        code = self._process.returncode
        self.kill("died")
        how = f"by {signal.Signals(-code).name}" if code and code < 0 else f"with exit code {code}"
        problem = problem_line(self.log_path)
        because = f": {problem}" if problem else ""
        return EngineDiedError(
            f"the engine died {how} during {what!r}{because}; log: {self.log_path}",
            log_tail=tail(self.log_path),
        )

    # ------------------------------------------------------------------ context
    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        # A notebook that drops its last reference must not leave 80 GB behind.
        if getattr(self, "_process", None) is not None and not self._end:
            self.kill("was dropped without being closed")

    def __repr__(self) -> str:
        return f"ChildEngine({self._recipe.name}, pid={self.pid}, {self._end or 'running'})"


def _spawn(own: Mapping[str, str], log_path: Path) -> tuple[subprocess.Popen[bytes], Channel]:
    """Start the child with one end of a socket pair and its output in a file."""
    log_path.parent.mkdir(parents=True, exist_ok=True)
    folder = stacks_folder(log_path)
    folder.mkdir(exist_ok=True)
    ours, theirs = socket.socketpair()
    environment = {**os.environ, "PYTHONUNBUFFERED": "1", STACKS_VARIABLE: str(folder), **own}
    try:
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "glmlab.engines.child_main", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # Ctrl-C in the driver's terminal is the driver's affair
                env=environment,
            )
    except BaseException:
        ours.close()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        theirs.close()
    return process, Channel(ours)


def _group_members(group: int) -> list[int]:
    """Living processes of a process group."""
    members = []
    for process in psutil.process_iter(["pid", "status"]):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getpgid(process.pid) == group and process.info["status"] != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
    return members
