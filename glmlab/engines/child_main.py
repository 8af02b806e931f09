"""The child's side: ``python -m glmlab.engines.child_main FD`` serves one engine over a socket."""

from __future__ import annotations

import os
import queue
import signal
import socket
import sys
import threading
import time
import traceback
from typing import Any

from pydantic import BaseModel, TypeAdapter

from glmlab import errors
from glmlab.all_reduce_time import AllReduceTime
from glmlab.engines.base import KnobStatus
from glmlab.engines.protocol import Apply, Ask, Beat, Channel, Done, Failed, Measure, Start, requests

BEAT_S = 1.0
_knobs = TypeAdapter(dict[str, KnobStatus])
_times = TypeAdapter(list[AllReduceTime])


def main() -> None:
    """Serve until told to close, or until the driver is gone."""
    from glmlab.live.plugin import HOME_VARIABLE
    from glmlab.live.stack_dump import answer_with_stacks

    os.environ[HOME_VARIABLE] = str(os.getpid())
    answer_with_stacks()
    channel = Channel(socket.socket(fileno=int(sys.argv[1])))
    inbox: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=_listen, args=(channel, inbox), daemon=True).start()
    threading.Thread(target=_beat, args=(channel,), daemon=True).start()
    engine: Any = None
    while True:
        request = requests.validate_json(inbox.get())
        try:
            if isinstance(request, Start):
                engine = _start(request)
                result = engine.started.model_dump_json()
            else:
                result = _answer(engine, request)
            channel.send(Done(result=result))
        except Exception as error:  # noqa: BLE001  whatever it is, the driver decides
            # Into the log, for whoever reads it; a refusal is no problem to find there after a death.
            if isinstance(error, errors.InputError):
                sys.stderr.write(f"glmlab: refused: {_one_line(error)}\n")
            else:
                traceback.print_exc()
            channel.send(Failed(error=_known_name(error), message=_one_line(error)))
        if request.op == "close":
            break
    sys.stdout.flush()
    # Not sys.exit: what is left of vLLM's threads must not keep the process alive.
    os._exit(0)


def _start(request: Start) -> Any:
    from glmlab.engines.vllm_engine import VllmEngine

    return VllmEngine(request.recipe, ceilings=request.ceilings)


def _answer(engine: Any, request: Ask | Apply | Measure) -> str:
    if engine is None:
        raise errors.EngineError("no engine has been started")
    if isinstance(request, Apply):
        answer: BaseModel = engine.apply(**request.knobs)
    elif isinstance(request, Measure):
        answer = engine.measure(request.workload)
    elif request.op == "knobs":
        return _knobs.dump_json(engine.knobs()).decode()
    elif request.op == "all_reduce_times":
        return _times.dump_json(engine.all_reduce_times()).decode()
    elif request.op == "state":
        answer = engine.state()
    else:
        engine.close()
        return "null"
    return answer.model_dump_json()


def _listen(channel: Channel, inbox: queue.Queue[bytes]) -> None:
    """Take requests; when the driver is gone, end this process and all that it started."""
    try:
        while True:
            line = channel.receive()
            if line is not None:
                inbox.put(line)
    except EOFError:
        os.killpg(os.getpgid(0), signal.SIGKILL)


def _beat(channel: Channel) -> None:
    while True:
        time.sleep(BEAT_S)
        try:
            channel.send(Beat(steps=_steps_done()))
        except OSError:
            return  # the listener sees the same end


def _steps_done() -> int:
    engines = sys.modules.get("glmlab.engines.vllm_engine")  # nobody has stepped before it is there
    return 0 if engines is None else engines.VllmEngine.steps_done


def _known_name(error: Exception) -> str:
    return type(error).__name__ if isinstance(error, errors.GlmlabError) else "EngineError"


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    if isinstance(error, errors.GlmlabError):
        return " ".join(lines)
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"


if __name__ == "__main__":
    main()
