"""The live knobs of one running engine: the scheduler's and every rank's, changed together."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from glmlab.dimension import Dimension
from glmlab.engines.base import EngineKnobs, KnobStatus
from glmlab.errors import ApplyError, EngineDiedError, GraphsLostError, KnobError
from glmlab.knob_table import knob
from glmlab.knobs import in_words
from glmlab.live.scheduler_limits import SchedulerLimits
from glmlab.tiles import canonical_tiles

_TILES = ("moe_tiles", "fp8_gemm_tiles")


class LiveKnobs:
    """Asks, changes and proves.

    Parameters
    ----------
    rpc : callable
        Method of the worker extension, arguments -> one answer per rank.
    scheduler : vllm.v1.core.sched.scheduler.Scheduler
        Of the engine core.
    """

    def __init__(self, rpc: Callable[..., list[Any]], scheduler: Any) -> None:
        self._rpc = rpc
        self.limits = SchedulerLimits(scheduler)

    def status(self) -> EngineKnobs:
        """Ask every rank and the scheduler; a knob is live only if all ranks agree."""
        ranks = self._rpc("glmlab_probe")
        found = self.limits.probe()
        for name, first in ranks[0].items():
            found[name] = _agreed(first, [rank[name] for rank in ranks[1:]])
        return EngineKnobs({name: KnobStatus(**fields) for name, fields in found.items()})

    def change(self, knobs: Mapping[str, Any], status: Mapping[str, KnobStatus]) -> tuple[bool, int]:
        """Set knobs everywhere and compare what each rank and the scheduler really have.

        Returns
        -------
        tuple of bool and int
            Whether prefilled KV is still good, and how many CUDA graphs a rank captured anew.

        Raises
        ------
        ApplyError
            If a rank cannot take it, be it that a kernel does not compile: nothing was changed. If a
            rank failed or reports another state: the former values are back on all ranks.
        GraphsLostError
            If they could not be brought back.
        """
        theirs = {name: value for name, value in knobs.items() if name not in self.limits.values()}
        refusals = dict.fromkeys(reason for reason in self._rpc("glmlab_check", theirs) if reason)
        if refusals:
            raise ApplyError("; ".join(refusals))
        former = {name: status[name].value for name in knobs}
        try:
            return self._set_and_prove(knobs)
        except EngineDiedError:
            raise
        except BaseException as error:
            self._go_back(former, error)
            if isinstance(error, Exception):
                raise ApplyError(f"{error}; former values restored") from error
            raise

    def _go_back(self, former: Mapping[str, Any], cause: BaseException) -> None:
        try:
            self._set_and_prove(former, all_graphs=True)
        except EngineDiedError:
            raise
        except Exception as error:
            raise GraphsLostError(
                f"{cause}; the former values could not be brought back either ({error}), so this"
                " engine must be built anew"
            ) from error

    def judge(self, knobs: Mapping[str, Any]) -> str:
        """Why this engine should not have been started with some knobs, empty if it may have been."""
        status = self.status()
        try:
            check_allowed(knobs, status)
        except KnobError as error:
            return str(error)
        return "; ".join(dict.fromkeys(reason for reason in self._rpc("glmlab_check", dict(knobs)) if reason))

    def _set_and_prove(self, knobs: Mapping[str, Any], *, all_graphs: bool = False) -> tuple[bool, int]:
        limits = self.limits.values()
        for name in [name for name in knobs if name in limits]:
            self.limits.set(name, knobs[name])
        for name, value in self.limits.values().items():
            if name in knobs and value != knobs[name]:
                raise ApplyError(f"{name}: asked for {knobs[name]!r}, the scheduler has {value!r}")
        theirs = {name: value for name, value in knobs.items() if name not in limits}
        kv_kept, graphs = True, 0
        for rank in self._rpc("glmlab_apply", theirs, all_graphs) if theirs else ():
            number = rank["state"]["rank"]
            if rank["error"]:
                raise ApplyError(f"{in_words(theirs)}: rank {number} failed: {rank['error']}")
            kv_kept &= rank["kv_kept"]
            graphs = max(graphs, rank["graphs"])
            for name, value in theirs.items():
                found = rank["state"]["values"].get(name)
                if found != value:
                    raise ApplyError(f"{name}: asked for {value!r}, rank {number} has {found!r}")
        return kv_kept, graphs


def _agreed(first: dict[str, Any], others: list[dict[str, Any]]) -> dict[str, Any]:
    """One status for all ranks. What the free memory of each allows is narrowed to what all allow."""
    common = dict(first)
    for other in others:
        for key in ("live", "value", "default"):
            if other.get(key) != common.get(key):
                return {"live": False, "why": "ranks disagree on whether it can change, or on its value"}
        if common.get("values") is not None:
            common["values"] = tuple(v for v in common["values"] if v in (other.get("values") or ()))
        for key, narrower in (("low", max), ("high", min)):
            if common.get(key) is not None and other.get(key) is not None:
                common[key] = narrower(common[key], other[key])
    return common


def spelled(knobs: Mapping[str, Any]) -> dict[str, Any]:
    """Values in the one spelling that workers report back.

    Raises
    ------
    KnobError
        For a table of tiles that cannot be read.
    """
    canonical = dict(knobs)
    for name in _TILES:
        if isinstance(canonical.get(name), str):
            try:
                canonical[name] = canonical_tiles(canonical[name])
            except ValueError as error:
                raise KnobError(f"{name} = {knobs[name]!r}: {error}") from None
    return canonical


def check_allowed(knobs: Mapping[str, Any], status: Mapping[str, KnobStatus]) -> None:
    """Refuse what an engine cannot take before anything is changed.

    Raises
    ------
    KnobError
        In one line: the knob, the value, what is allowed or why it cannot be changed.
    """
    for name, value in knobs.items():
        check_live(name, status, unknown="it has no probe")
        _check_value(name, value, status[name])
    after = {name: knobs.get(name, item.value) for name, item in status.items()}
    tokens, sequences = after["max_num_batched_tokens"], after["max_num_seqs"]
    if isinstance(tokens, int) and isinstance(sequences, int) and tokens < sequences:
        raise KnobError(f"max_num_batched_tokens = {tokens}: must not be below max_num_seqs = {sequences}")


def check_live(name: str, status: Mapping[str, KnobStatus], *, unknown: str) -> None:
    """Refuse a knob that an engine cannot change while it runs; ``unknown`` says why it has no status.

    Raises
    ------
    KnobError
        In one line.
    """
    if knob(name).reach == "rebuild":
        raise KnobError(f"{name}: needs a new engine; it cannot be changed in a running one")
    if name not in status or not status[name].live:
        why = status[name].why if name in status else unknown
        raise KnobError(f"{name}: cannot be changed in this engine, since {why}")


def check_dimension(dimension: Dimension, status: KnobStatus | None, *, values: bool = True) -> None:
    """Refuse a live knob of a space that an engine cannot move as the space says.

    Parameters
    ----------
    dimension : Dimension
        The knob and its values in the space.
    status : KnobStatus or None
        What the engine says of the knob; ``None`` where it says nothing.
    values : bool
        Whether the values are judged, too.

    Raises
    ------
    KnobError
        In one line: the knob, and why it cannot be changed or what is allowed.
    """
    if status is None or not status.live:
        why = "it does not know it" if status is None else status.why
        raise KnobError(f"space.{dimension.name}: this engine cannot change it: {why}")
    for value in dimension.judged_by if values else ():
        _check_value(f"space.{dimension.name}", value, status)


def _check_value(name: str, value: object, status: KnobStatus) -> None:
    if not status.allows(value):
        raise KnobError(f"{name} = {value!r}: this engine allows {status.allowed}")
