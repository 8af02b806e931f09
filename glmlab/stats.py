"""Is one setting better than another? Visits in, a verdict with its interval out."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

Outcome = Literal["win", "tie", "loss"]


class Verdict(BaseModel):
    """Best against baseline.

    Attributes
    ----------
    outcome : {"win", "tie", "loss"}
        ``win`` only if the whole interval lies on the better side.
    ratio : float
        Best over baseline, of ``metric``: the geometric mean over the rounds.
    low, high : float or None
        Confidence interval of the ratio; ``None`` with a single round.
    confidence : float
        Of the interval.
    metric : str
        What decided, e.g. ``tpot_ms`` or ``device_ms``.
    rounds : int
        How often each of the two was visited, interleaved.
    reason : str
        One sentence for people.
    """

    model_config = ConfigDict(extra="ignore", frozen=True)  # stored, see TrialRecord

    outcome: Outcome
    ratio: float
    low: float | None
    high: float | None
    confidence: float = 0.95
    metric: str
    rounds: int
    reason: str = ""


def judge(
    baseline: Sequence[float],
    best: Sequence[float],
    *,
    metric: str,
    maximize: bool = False,
    confidence: float = 0.95,
) -> Verdict:
    """Compare interleaved visits, paired by round.

    The logarithms of the per-round ratios are taken as one sample; its mean gets Student's t
    interval. Pairing cancels slow drift of clocks and temperature; a visit, not a step, is the
    unit, since steps within one captured state agree far better than visits do.

    Parameters
    ----------
    baseline, best : sequence of float
        One value per visit, in the order of the rounds, equally many, all positive.
    metric : str
        Name of what was measured.
    maximize : bool
        Whether more is better.
    confidence : float
        0 to 1.
    """
    if len(baseline) != len(best) or not baseline:
        raise ValueError("judge: needs as many visits of the baseline as of the best, at least one")
    logs = [math.log(b / a) for a, b in zip(baseline, best, strict=True)]
    mean = statistics.fmean(logs)
    ratio = math.exp(mean)
    if len(logs) == 1:
        return Verdict(
            outcome="tie",
            ratio=ratio,
            low=None,
            high=None,
            confidence=confidence,
            metric=metric,
            rounds=1,
            reason="one round has no interval: no decision",
        )
    from scipy.stats import t as student  # 0.3 s to import, and only needed here

    half = float(student.ppf((1 + confidence) / 2, len(logs) - 1))
    half *= statistics.stdev(logs) / math.sqrt(len(logs))
    low, high = math.exp(mean - half), math.exp(mean + half)
    better, worse = (low > 1, high < 1) if maximize else (high < 1, low > 1)
    outcome: Outcome = "win" if better else "loss" if worse else "tie"
    return Verdict(
        outcome=outcome,
        ratio=ratio,
        low=low,
        high=high,
        confidence=confidence,
        metric=metric,
        rounds=len(logs),
        reason=_sentence(outcome, ratio, low, high, metric),
    )


def _sentence(outcome: Outcome, ratio: float, low: float, high: float, metric: str) -> str:
    span = f"{metric} x {ratio:.3f} ({low:.3f} to {high:.3f})"
    if outcome == "win":
        return f"better than the baseline: {span}"
    if outcome == "loss":
        return f"worse than the baseline when measured again: {span}; keep the default"
    return f"no gain beyond noise: {span}; keep the default"
