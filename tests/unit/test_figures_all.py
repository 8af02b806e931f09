"""What holds for every chart: evidence, units, a table, no markup of others, and no slowing down."""

from __future__ import annotations

import json
import re
import time
from typing import Any

import pytest

from glmlab import figures
from glmlab.memory import fit
from glmlab.stats import judge
from glmlab.trial_record import TrialRecord
from tests.charted import cost, measurement, point, simple, steps, study, trial, visit, without_value

BASE = {"cpu_split_kv": True, "block_size": 32}
FAST = {"cpu_split_kv": False, "block_size": 32}
BLOCKS = {"cpu_split_kv": True, "block_size": 64}
HOSTILE = "<a href='javascript:x'>&y</a>"
DRAW: dict[str, Any] = {
    "history": figures.draw_history,
    "context": figures.draw_context,
    "heatmap": figures.draw_heatmap,
    "parallel": figures.draw_parallel,
    "pareto": figures.draw_pareto,
    "cost": figures.draw_cost,
    "rounds": figures.draw_rounds,
    "memory": figures.draw_memory,
    "compare": figures.draw_compare,
}


def records_of(count: int = 6) -> list[TrialRecord]:
    made = [simple(0, BASE, 1.0, cost=cost(rebuild=9, measure=1))]
    for i in range(1, count):
        params = (FAST, BLOCKS)[i % 2]
        if i % 5 == 4:
            made.append(without_value(i, "failed", f"no {HOSTILE}", params))
        else:
            made.append(simple(i, params, 1 + (i * 7 % 11) / 20, cost=cost(apply=1, measure=1)))
    return made


def data_of(records: Any = None, visits: Any = None) -> dict[str, Any]:
    spec = study()
    records = records_of() if records is None else records
    if visits is None:
        visits = [visit(side, n, 1 + n / 100) for n in range(3) for side in ("baseline", "best")]
    verdict = judge([1.0, 1.1, 1.2], [1.0, 1.0, 1.0], metric="tpot_ms") if visits else None
    labelled = {f"a {HOSTILE}": measurement(point(64, 1, steps(1))), "b": measurement(point(64, 1, steps(2)))}
    return {
        "history": figures.history_data(records, spec),
        "context": figures.context_data(records, spec),
        "heatmap": figures.heatmap_data(records, spec),
        "parallel": figures.parallel_data(records, spec),
        "pareto": figures.pareto_data(records, spec),
        "cost": figures.cost_data(records, visits),
        "rounds": figures.rounds_data(visits, verdict, spec),
        "memory": figures.memory_data(fit("glm-4.5-air-fp8", "rtx-pro-6000", 2)),
        "compare": figures.compare_data(labelled if records else {}),
    }


@pytest.fixture(scope="module")
def filled():
    return data_of()


@pytest.fixture(scope="module")
def empty():
    return data_of([], [])


def test_every_chart_is_here():
    assert set(DRAW) == {name.removeprefix("draw_") for name in figures.__all__ if name.startswith("draw_")}


@pytest.mark.parametrize("name", DRAW)
@pytest.mark.parametrize("theme", ["auto", "light", "dark"])
def test_the_title_says_the_evidence_in_every_theme(filled, name, theme):
    data = filled[name]
    figure = DRAW[name](data, theme)
    assert (
        figure.layout.title.text.split("<br><span")[0].replace("<br>", " ")
        == f"{data.title} ({data.evidence})"
    )
    ground = {"auto": "rgba(0,0,0,0)", "light": "#FFFFFF", "dark": "#111111"}[theme]
    assert figure.layout.template.layout.paper_bgcolor == ground


@pytest.mark.parametrize("name", sorted(set(DRAW) - {"heatmap", "parallel"}))
def test_axes_of_numbers_say_their_unit(filled, name):
    figure = DRAW[name](filled[name])
    for axis in (*figure.select_xaxes(), *figure.select_yaxes()):
        if axis.title.text and axis.type != "category":
            assert re.search(r"\[(ms|s|tokens|tokens/s|number|ratio|GB)\b", axis.title.text)


@pytest.mark.parametrize("name", DRAW)
def test_hover_is_written_for_every_trace(filled, name):
    for trace in DRAW[name](filled[name]).data:
        assert trace.type == "parcoords" or trace.hovertemplate or trace.hoverinfo == "skip"


@pytest.mark.parametrize("name", DRAW)
def test_the_table_has_its_evidence_in_every_row(filled, name):
    frame = filled[name].to_frame()
    assert len(frame)
    assert set(frame["evidence"]) == {"predicted" if name == "memory" else "measured"}


@pytest.mark.parametrize("name", DRAW)
def test_the_table_and_its_columns_are_one(filled, name):
    columns = filled[name].columns()
    assert len({len(values) for values in columns.values()}) == 1
    assert list(filled[name].to_frame()) == list(columns)


@pytest.mark.parametrize("name", sorted(set(DRAW) - {"memory"}))
def test_without_data_there_is_one_sentence_and_no_trace(empty, name):
    data = empty[name]
    figure = DRAW[name](data)
    assert data.is_empty
    assert data.missing.endswith(".")
    assert not figure.data
    [note] = figure.layout.annotations
    assert note.text.replace("<br>", " ") == data.missing
    assert len(data.to_frame()) == 0


@pytest.mark.parametrize("name", DRAW)
def test_a_figure_is_plain_json(filled, name):
    assert json.loads(DRAW[name](filled[name]).to_json())["data"]


@pytest.mark.parametrize("name", ["history", "compare"])
def test_text_of_others_is_shown_as_text(filled, name):
    text = DRAW[name](filled[name]).to_json().replace("\\u003c", "<").replace("\\u003e", ">")
    assert "<a " not in text
    assert "&lt;a href" in text


def test_a_value_of_a_knob_is_shown_as_text():
    spec = study({"kv_cache_dtype": ["auto", "fp8"]})
    records = [simple(0, {"kv_cache_dtype": HOSTILE}, 1.0)]
    for name in ("context", "heatmap", "parallel"):
        data = getattr(figures, f"{name}_data")(records, spec)
        text = DRAW[name](data).to_json().replace("\\u003c", "<")
        assert "<a " not in text, name
        assert "&lt;a href" in text, name


def test_data_steps_change_nothing_and_give_the_same_twice():
    records = records_of()
    before = [record.model_dump_json() for record in records]
    first, second = data_of(records), data_of(records)
    assert first == second
    assert [record.model_dump_json() for record in records] == before


@pytest.mark.parametrize("name", ["history", "context", "heatmap", "parallel", "pareto", "cost"])
def test_ten_times_the_trials_cost_no_more_than_thirty_times(name):
    spec = study()

    def seconds(records: list[TrialRecord]) -> float:
        arguments: tuple[Any, ...] = (records,) if name == "cost" else (records, spec)
        best = float("inf")
        for _ in range(3):
            begin = time.process_time()
            DRAW[name](getattr(figures, f"{name}_data")(*arguments))
            best = min(best, time.process_time() - begin)
        return best

    few, many = records_of(500), records_of(5000)
    assert seconds(many) < 30 * seconds(few)


def test_what_goes_to_the_browser_grows_slower_than_the_study():
    """Five thousand bars, bars of spread and long texts would stall a page."""
    records = records_of(5000)
    history = figures.draw_history(figures.history_data(records, study()))
    points = next(trace for trace in history.data if trace.name.startswith("trial"))
    assert points.type == "scattergl"
    assert points.error_y.array is None
    pareto = figures.draw_pareto(figures.pareto_data(records, study()))
    assert next(trace for trace in pareto.data if trace.name == "dominated").type == "scattergl"
    bars = [t for t in figures.draw_cost(figures.cost_data(records)).data if t.type == "bar"]
    assert max(len(bar.x) for bar in bars) <= 400
    assert len(history.to_json()) < 5000 * 250


def test_a_bar_from_p10_to_p90_is_left_out_where_some_have_no_samples():
    made = trial(0, BASE, point(64, 1, steps(1)))
    found = figures.draw_context(figures.context_data([made], study(), metric="tokens_per_s"))
    assert found.data[0].error_y.array is None
