"""What a report is made of: a stored study, read once."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from glmlab.dimension import same_value
from glmlab.errors import InputError
from glmlab.export.outcome import Outcome, outcome_of
from glmlab.knobs import Params
from glmlab.plans.beside_measured import PredictedBesideMeasured, beside_measured
from glmlab.storage import StudyStore
from glmlab.study_spec import StudySpec
from glmlab.summary import Summary, baseline_record, best_record, summarize
from glmlab.trial_record import TrialRecord, Visit

_SECRET = re.compile(
    r"(^|_)(TOKEN|SECRET|PASSWORD|PASSWD|PWD|CREDENTIALS?|API_?KEY|ACCESS_KEY)($|_)", re.IGNORECASE
)
_LEAST_SECRET = 6  # characters; shorter ones stand in a page by chance


@dataclass(frozen=True, kw_only=True)
class Material:
    """A study as it stood at one moment.

    Attributes
    ----------
    store : StudyStore
        For what is read seldom: provenance, recipe, URL.
    baseline, best : TrialRecord or None
        Their trials of the search.
    visits : sequence of Visit
        Of the confirmation of this best trial.
    created : datetime
        The moment, UTC.
    """

    store: StudyStore
    spec: StudySpec
    records: Sequence[TrialRecord]
    visits: Sequence[Visit]
    summary: Summary
    baseline: TrialRecord | None
    best: TrialRecord | None
    created: dt.datetime

    @classmethod
    def read(cls, store: StudyStore) -> Material:
        """Read a study; it may be running meanwhile."""
        spec, records = store.parsed_spec, store.records()
        best = best_record(records, spec)
        return cls(
            store=store,
            spec=spec,
            records=records,
            visits=store.visits(best.number) if best else (),
            summary=summarize(store, records),
            baseline=baseline_record(records, spec.knob_space.active(store.baseline or {})),
            best=best,
            created=dt.datetime.now(dt.UTC),
        )

    @property
    def baseline_params(self) -> Params:
        """The baseline's values, empty before the first engine has told them."""
        return self.spec.knob_space.active(self.store.baseline or {})

    @property
    def secrets(self) -> list[str]:
        """Values of the recipe's environment that are nobody else's business, by their names."""
        found = self.spec.base_recipe.env.items()
        return [value for name, value in found if _SECRET.search(name) and len(value) >= _LEAST_SECRET]

    @cached_property
    def rounds(self) -> list[tuple[Visit, Visit]]:
        """Baseline and best of each round of the confirmation that is complete."""
        found: dict[int, dict[str, Visit]] = {}
        for visit in self.visits:
            found.setdefault(visit.round, {})[visit.side] = visit
        return [(sides["baseline"], sides["best"]) for _, sides in sorted(found.items()) if len(sides) == 2]

    @cached_property
    def beside(self) -> PredictedBesideMeasured:
        """What was predicted of each plan, beside what it gave."""
        return beside_measured(self.store, self.records)

    @cached_property
    def changes(self) -> Params:
        """Knobs of the best trial whose values are not the baseline's."""
        if self.best is None:
            return {}
        before = self.baseline_params
        return {
            name: value
            for name, value in self.best.params.items()
            if name not in before or not same_value(before[name], value)
        }

    @cached_property
    def outcome(self) -> Outcome | str:
        """What goes to production, or why there is nothing."""
        if self.summary.verdict is None:
            return "nothing is confirmed yet: run `glmlab tune` on this study again"
        try:
            return outcome_of(self.store, self.summary)
        except InputError as error:
            return str(error)
