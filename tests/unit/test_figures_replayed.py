"""Charts of the packaged study over an H100's recording: labelled as replayed, numbers as recorded."""

from __future__ import annotations

import statistics

import pytest

from glmlab import figures
from glmlab.data_folders import PACKAGED_DATA
from glmlab.stats import Verdict
from glmlab.study import Study
from tests.charted import title


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    url = f"journal://{tmp_path_factory.mktemp('replayed')}/studies.log"
    made = Study(PACKAGED_DATA / "studies" / "replay-kv-splits.yaml", url)
    made.run()
    return made


@pytest.fixture(scope="module")
def records(study):
    return study.records()


@pytest.fixture(scope="module")
def verdict(study):
    return Verdict.model_validate(study.store.verdict["verdict"])


def test_history_ends_at_the_summarys_best(study, records):
    data = figures.history_data(records, study.spec, study.store.baseline)
    summary = study.summary()
    assert data.best[-1] == summary.best.values["device_ms"]
    assert data.baseline is not None
    assert data.baseline.value == summary.baseline.values["device_ms"]
    assert [s and s.value for s in data.spread] == [r.values[0] for r in records]
    assert "(replayed)" in title(figures.draw_history(data))


def test_every_split_count_is_a_line_from_one_to_256(study, records):
    data = figures.context_data(records, study.spec)
    assert (data.knob, data.metric) == ("kv_splits", "device_ms")
    assert [line.value for line in data.lines] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert [line.label for line in data.lines if line.is_baseline or line.is_best] == [
        "16 (baseline)", "256 (best)"
    ]  # fmt: skip
    assert data.contexts == [65536, 150000]
    frame = data.to_frame().set_index(["kv_splits", "context_tokens"])
    middle = sorted(records[0].measurement.point(150000, 1).device_step_ms)[3:5]
    assert len(records[0].measurement.point(150000, 1).device_step_ms) == 8
    assert frame.loc[(16, 150000), "device_ms"] == pytest.approx(sum(middle) / 2)


def test_more_splits_help_more_at_the_longer_context(study, records):
    data = figures.heatmap_data(records, study.spec)
    best = data.rows[-1]
    long, short = data.ratio(best, 150000), data.ratio(best, 65536)
    assert long is not None
    assert short is not None
    assert long < short < 1


def test_the_rounds_are_those_that_were_judged(study, verdict):
    visits = study.store.visits(study.store.verdict["best"])
    data = figures.rounds_data(visits, verdict, study.spec)
    assert len(data.round) == verdict.rounds == 3
    assert statistics.geometric_mean(filter(None, data.ratios)) == pytest.approx(verdict.ratio)


def test_cost_adds_up_to_the_summarys(study, records):
    found = study.summary().cost_s
    data = figures.cost_data(records)
    assert data.spent_s[-1] == pytest.approx(
        found.rebuild + found.apply + found.prefill + found.measure + found.overhead
    )
    assert data.restarts_s[-1] == pytest.approx(found.restart_estimate)
    assert found.restart_estimate is not None
    assert found.restart_estimate > 5 * data.spent_s[-1]


def test_every_chart_says_replayed(study, records, verdict):
    visits = study.store.visits(study.store.verdict["best"])
    spec = study.spec
    for drawn in (
        figures.draw_parallel(figures.parallel_data(records, spec)),
        figures.draw_pareto(figures.pareto_data(records, spec)),
        figures.draw_cost(figures.cost_data(records, visits)),
        figures.draw_rounds(figures.rounds_data(visits, verdict, spec)),
        figures.draw_compare(figures.compare_data({"16": records[0].measurement})),
    ):
        assert "(replayed)" in title(drawn)
