"""What to try next. Pure: trials in, the next point out; the same trials give the same point.

Optuna's samplers do the proposing, inside a study in memory that mirrors the stored one, so that a
proposal that turns out to be a duplicate leaves no trace in the user's storage. Each proposal has a
random stream of its own, made from the study's seed and the number of trials so far: a study that
was interrupted continues as if it had not been.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
)
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import PartialFixedSampler, TPESampler
from optuna.trial import TrialState, create_trial

from glmlab.dimension import Dimension, same_value
from glmlab.knobs import KnobSpace, Params, params_key

optuna.logging.set_verbosity(optuna.logging.WARNING)  # it would announce each study in memory

_EXHAUSTIVE = 4096  # spaces up to this size are listed, so that "all seen" is known
_TRIES = 16  # proposals that may turn out to be duplicates before one is drawn from the rest


@dataclass(frozen=True)
class Past:
    """One trial as the search sees it.

    Attributes
    ----------
    params : dict
        Active knobs.
    values : tuple of float or None
        One per objective; ``None`` for a failed or blocked trial.
    violations : dict
        Constraint -> how far it was broken; 0 or less where it was kept.
    """

    params: Params
    values: tuple[float, ...] | None
    violations: dict[str, float]


class Search:
    """Proposes points: rebuild plans outside, live knobs inside.

    A space that fits the budget is listed, plan by plan, the baseline's plan first, then as predicted. A
    larger one is sampled: the sampler picks a plan, then stays in it for as many live trials as one rebuild
    costs, then picks again.

    Parameters
    ----------
    space : KnobSpace
        With the baseline as one of its points.
    baseline : dict
        Its values, resolved.
    maximize : sequence of bool
        One per objective.
    seed : int
        Of all randomness.
    budget : int or None
        Trials in all, where that is limited.
    predicted_ms : mapping
        Plan, as :func:`glmlab.knobs.params_key` writes it -> what is predicted of it; others come later.
    """

    def __init__(
        self,
        space: KnobSpace,
        baseline: Params,
        *,
        maximize: Sequence[bool],
        seed: int,
        budget: int | None,
        predicted_ms: Mapping[str, float] | None = None,
    ) -> None:
        self._space = space
        self._baseline = space.active(baseline)
        self._maximize = tuple(maximize)
        self._seed = seed
        self._predicted_ms = predicted_ms or {}
        self._grid = list(space.grid()) if space.upper_count <= _EXHAUSTIVE else None
        self._listed = self._grid is not None and (budget is None or len(self._grid) <= budget)
        self._distributions = distributions(space)
        self._mirror = optuna.create_study(
            directions=["maximize" if m else "minimize" for m in self._maximize]
        )
        self._past: list[Past] = []
        self._seen: set[str] = set()

    @property
    def is_listed(self) -> bool:
        """Whether all points are tried, plan by plan."""
        return self._listed

    @property
    def size(self) -> int | None:
        """How many points there are; ``None`` where they were not counted."""
        return len(self._grid) if self._grid is not None else None

    def knows(self, params: Params) -> bool:
        """Whether a point was told; knobs whose conditions do not hold are not looked at."""
        return params_key(self._space.active(params)) in self._seen

    def tell(self, past: Past) -> None:
        """Add a finished trial, in the order of their numbers."""
        self._past.append(past)
        self._seen.add(params_key(past.params))
        # A failure is told as pruned: the sampler then takes it for a bad point; a mere failure it
        # would ignore, and propose again and again in the same place.
        single = len(self._maximize) == 1
        if past.values is None and not single:
            return
        self._mirror.add_trial(
            create_trial(
                state=TrialState.COMPLETE if past.values else TrialState.PRUNED,
                params=dict(past.params),
                distributions={name: self._distributions[name] for name in past.params},
                values=list(past.values) if past.values else None,
                constraints=dict(past.violations) if past.values else None,
            )
        )

    def next(self, *, live_per_plan: int = 4) -> Params | None:
        """The next point to measure; ``None`` when every point has been.

        Parameters
        ----------
        live_per_plan : int
            Live trials that cost as much as one rebuild, for staying in a plan.
        """
        if params_key(self._baseline) not in self._seen:
            return self._baseline
        stream = random.Random(f"{self._seed}/{len(self._past)}")
        if self._grid is not None:
            rest = [point for point in self._grid if params_key(point) not in self._seen]
            if not rest:
                return None
            if self._listed:
                return self._next_listed(rest)
        fixed = self._stay_in_plan(live_per_plan)
        for _ in range(_TRIES):
            point = self._sample(fixed, seed=stream.randrange(2**31))
            if params_key(point) not in self._seen:
                return point
        if self._grid is not None:
            same_plan = [p for p in rest if self._space.plan(p) == fixed] if fixed else []
            return stream.choice(same_plan or rest)
        for _ in range(1000):
            point = self._random_point(stream)
            if params_key(point) not in self._seen:
                return point
        return None

    def _next_listed(self, rest: list[Params]) -> Params:
        """Finish the plan at hand, then the next as predicted; all else in seeded order."""
        current = self._space.plan(self._past[-1].params)

        def rank(point: Params) -> tuple[bool, float, str, str]:
            plan = self._space.plan(point)
            key = params_key(plan)
            return (
                plan != current,
                self._predicted_ms.get(key, math.inf),
                _shuffled(self._seed, key),
                _shuffled(self._seed, params_key(point)),
            )

        return min(rest, key=rank)

    def _stay_in_plan(self, live_per_plan: int) -> Params:
        """The plan to stay in, or nothing when it has had its share."""
        if not self._space.rebuild or not self._space.live:
            return {}
        plan = self._space.plan(self._past[-1].params)
        streak = 0
        for past in reversed(self._past):
            if self._space.plan(past.params) != plan:
                break
            streak += 1
        if streak >= max(live_per_plan, 1):
            return {}
        if self._grid is not None and not any(
            self._space.plan(p) == plan and params_key(p) not in self._seen for p in self._grid
        ):
            return {}
        return plan

    def _sample(self, fixed: Params, *, seed: int) -> Params:
        """Ask Optuna's sampler once, with the plan held fixed where one is given."""
        startup = max(4, min(10, len(self._space) * 3))
        sampler = TPESampler(seed=seed, n_startup_trials=startup)
        with warnings.catch_warnings():
            # Experimental since Optuna 3, and just what is needed here.
            warnings.simplefilter("ignore", ExperimentalWarning)
            self._mirror.sampler = PartialFixedSampler(fixed, sampler) if fixed else sampler
        trial = self._mirror.ask()
        params: Params = {}
        for dimension in self._in_condition_order():
            if dimension.is_active(params):
                params[dimension.name] = _suggest(trial, dimension)
        # A proposal is no trial: without a value the sampler does not learn from it.
        self._mirror.tell(trial, state=TrialState.FAIL)
        if not self._space.allows(params):  # the sampler knows the knobs of listed plans one by one
            plan = random.Random(seed).choice(self._space.plans)
            return self._sample({**fixed, **plan}, seed=seed)
        return self._space.active(params)

    def _random_point(self, stream: random.Random) -> Params:
        plan = stream.choice(self._space.plans) if self._space.plans else {}
        params: Params = {}
        for dimension in self._in_condition_order():
            if dimension.is_active(params):
                known = dimension.name in plan
                params[dimension.name] = plan[dimension.name] if known else stream.choice(dimension.points())
        return self._space.active(params)

    def _in_condition_order(self) -> Iterable[Dimension]:
        known: Params = {}
        waiting = list(self._space)
        while waiting:
            ready = [d for d in waiting if set(d.when) <= set(known)]
            for dimension in ready:
                known[dimension.name] = None
                yield dimension
            waiting = [d for d in waiting if d.name not in known]


def distributions(space: KnobSpace) -> dict[str, BaseDistribution]:
    """Optuna's view of a space."""
    return {
        d.name: (
            IntDistribution(d.low, d.high, log=d.log, step=d.step)
            if d.is_range
            else CategoricalDistribution(d.values)
        )
        for d in space
    }


def _suggest(trial: optuna.Trial, dimension: Dimension) -> bool | int | float | str | None:
    if dimension.is_range:
        return trial.suggest_int(
            dimension.name, dimension.low, dimension.high, log=dimension.log, step=dimension.step
        )
    chosen = trial.suggest_categorical(dimension.name, dimension.values)
    return next(value for value in dimension.values if same_value(value, chosen))


def _shuffled(seed: int, key: str) -> str:
    return f"{random.Random(f'{seed}/{key}').random():.17f}"
