"""TrialRecord: all that is kept of one trial, beside what Optuna keeps."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from glmlab.knobs import Params
from glmlab.measurement import METRICS, SCHEMA, Evidence, Measurement
from glmlab.workload import Workload

Status = Literal["complete", "failed", "blocked", "interrupted"]


class _Record(BaseModel):
    # A record of this schema that a later version wrote may hold more: read what is known.
    model_config = ConfigDict(extra="ignore", frozen=True)


class TrialCost(_Record):
    """Where the seconds of one trial went.

    Attributes
    ----------
    rebuild_s : float
        Ending the former engine and starting this one; 0 for a live trial.
    apply_s : float
        Changing live knobs, up to the proof of state.
    prefill_s : float
        Warm-up passes that had to compute their prompts.
    measure_s : float
        All other passes of the engine.
    overhead_s : float
        Everything else: glmlab's own cost.
    """

    rebuild_s: float = 0.0
    apply_s: float = 0.0
    prefill_s: float = 0.0
    measure_s: float = 0.0
    overhead_s: float = 0.0

    @property
    def total_s(self) -> float:
        return self.rebuild_s + self.apply_s + self.prefill_s + self.measure_s + self.overhead_s

    @property
    def is_live(self) -> bool:
        """Whether the trial was had without a new engine."""
        return self.rebuild_s == 0.0


BY_USER = "stopped by the user"  # why a trial was interrupted, where it is not the point's doing


class TrialRecord(_Record):
    """One trial.

    Attributes
    ----------
    number : int
        Optuna's.
    status : {"complete", "failed", "blocked", "interrupted"}
        ``blocked``: refused before anything was paid for. ``interrupted``: neither good nor bad;
        the point is tried again.
    reason, log_tail : str
        Why it is not complete, and the end of the engine's log.
    params : dict
        Active knobs of the space.
    values : tuple of float
        One per objective.
    constraint_values : dict
        Constraint -> value found.
    same_tokens : float or None
        Share of greedy output tokens equal to the baseline's; with made-up weights, which each rank draws
        for its part, to those of the first trial with as many ranks. Different kernels round differently,
        so less than 1 is no error by itself.
    """

    schema_version: int = SCHEMA
    number: int = -1
    status: Status
    reason: str = ""
    log_tail: str = ""
    params: Params
    recipe_fingerprint: str = ""
    evidence: Evidence = "measured"
    values: tuple[float, ...] | None = None
    constraint_values: dict[str, float] = Field(default_factory=dict)
    violations: dict[str, float] = Field(default_factory=dict)
    measurement: Measurement | None = None
    same_tokens: float | None = None
    cost: TrialCost = TrialCost()
    kv_tokens: int = 0
    notes: list[str] = Field(default_factory=list)

    @property
    def is_feasible(self) -> bool:
        """Whether it is complete and keeps all constraints."""
        return self.status == "complete" and all(v <= 0 for v in self.violations.values())

    def metrics(self, workload: Workload) -> dict[str, float]:
        """Metric -> its value over the whole workload, of what was measured in a complete trial."""
        measured = self.measurement
        if measured is None or self.status != "complete":
            return {}
        found = {
            name: measured.value(name, workload)
            for name, metric in METRICS.items()
            if workload.cold_prefill or not metric.needs_cold_prefill
        }
        return {name: value for name, value in found.items() if value is not None}

    def to_json(self, workload: Workload) -> dict[str, Any]:
        """What ``glmlab show --json`` prints of it: all but raw samples, which ``glmlab export`` writes."""
        kept = ("number", "status", "reason", "params", "values", "evidence", "same_tokens", "cost", "notes")
        body = self.model_dump(mode="json", include={*kept})
        return {**{name: body[name] for name in kept}, "metrics": self.metrics(workload)}


class Visit(_Record):
    """One visit of the confirmation: baseline or best, measured afresh.

    Attributes
    ----------
    side : {"baseline", "best"}
        Which of the two.
    round : int
        From 0; the two visits of a round are compared.
    cost : TrialCost
        Where its seconds went.
    """

    side: Literal["baseline", "best"]
    round: int
    measurement: Measurement
    cost: TrialCost
