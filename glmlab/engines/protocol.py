"""What a driver and its child engine say to each other: JSON lines over one socket."""

from __future__ import annotations

import contextlib
import socket
from threading import Lock
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from glmlab.recipe import Recipe
from glmlab.workload import Workload


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


# ---------------------------------------------------------------- driver to child
class Start(_Message):
    """Build the engine; answered by a StartReport."""

    op: Literal["start"] = "start"
    recipe: Recipe
    ceilings: dict[str, int] = Field(default_factory=dict)


class Ask(_Message):
    """Call a method without arguments; answered by what it returns."""

    op: Literal["knobs", "state", "all_reduce_times", "close"]


class Apply(_Message):
    """Change live knobs; answered by an ApplyReport."""

    op: Literal["apply"] = "apply"
    knobs: dict[str, bool | int | str]


class Measure(_Message):
    """Measure a workload; answered by a Measurement."""

    op: Literal["measure"] = "measure"
    workload: Workload


Request = Annotated[Start | Ask | Apply | Measure, Field(discriminator="op")]


# ---------------------------------------------------------------- child to driver
class Done(_Message):
    """The call succeeded; ``result`` is the JSON of the model that it returns."""

    kind: Literal["done"] = "done"
    result: str


class Failed(_Message):
    """The call failed; ``error`` names a class of :mod:`glmlab.errors`."""

    kind: Literal["failed"] = "failed"
    error: str
    message: str


class Beat(_Message):
    """The child lives: sent every second, whatever it is doing.

    ``steps`` of its engine so far: while it measures, they must grow.
    """

    kind: Literal["beat"] = "beat"
    steps: int = 0


Reply = Annotated[Done | Failed | Beat, Field(discriminator="kind")]

requests: TypeAdapter[Any] = TypeAdapter(Request)
replies: TypeAdapter[Any] = TypeAdapter(Reply)


class Channel:
    """One end of the conversation.

    Parameters
    ----------
    connection : socket.socket
        A connected stream socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._buffer = bytearray()
        self._sending = Lock()  # heartbeats come from a thread of their own

    def send(self, message: _Message) -> None:
        """Send one message.

        Raises
        ------
        OSError
            If the other end is gone.
        """
        with self._sending:
            self._connection.sendall(message.model_dump_json().encode() + b"\n")

    def receive(self, timeout_s: float | None = None) -> bytes | None:
        """Next line, without its end; ``None`` if none came in time.

        Raises
        ------
        EOFError
            If the other end is gone.
        """
        self._connection.settimeout(timeout_s)
        while b"\n" not in self._buffer:
            try:
                part = self._connection.recv(1 << 16)
            except TimeoutError:
                return None
            except OSError:
                part = b""
            if not part:
                raise EOFError
            self._buffer += part
        line, _, rest = self._buffer.partition(b"\n")
        self._buffer = bytearray(rest)
        return bytes(line)

    def close(self) -> None:
        """Close this end; whoever is receiving on it, in another thread, gets EOFError."""
        with contextlib.suppress(OSError):  # the other end may be gone
            self._connection.shutdown(socket.SHUT_RDWR)
        self._connection.close()
