"""ChartBox: one chart with its table, live or as an output."""

from __future__ import annotations

import functools
from typing import Any

import pytest

from glmlab.widgets.board_charts import CHARTS, Lens
from glmlab.widgets.chart_box import ChartBox
from glmlab.widgets.table_twin import cell, table_html
from tests.boards import Many


def test_a_live_chart_keeps_its_widget_over_charts():
    box = ChartBox()
    assert box.is_live
    assert not list(box.children), "without a chart no frame for one"
    session: Any = Many()
    session.add(3)
    canvases = set()
    for data, draw in [(chart.read(session, Lens()), chart.draw) for chart in CHARTS]:
        box.show(data, functools.partial(_in_light, draw))
        canvases.add(id(box.children[0]))
    assert len(canvases) == 1
    assert box.painted == len(CHARTS)
    box.close()


def _in_light(draw: Any, data: Any) -> Any:
    return draw(data, "light")


def test_without_anywidget_the_chart_is_an_output(monkeypatch):
    def missing(*_, **__):
        raise ImportError("Please install anywidget to use the FigureWidget class")

    monkeypatch.setattr("glmlab.widgets.chart_box.go.FigureWidget", missing)
    box = ChartBox()
    assert not box.is_live
    session: Any = Many()
    session.add(3)
    box.show(CHARTS[0].read(session, Lens()), lambda data: CHARTS[0].draw(data, "auto"))
    [output] = box.children[0].outputs
    assert output["data"]["text/plain"] == "Trials of unit: tpot_ms (measured)"


def test_a_table_says_how_many_rows_there_are_and_escapes_each_value():
    columns: dict[str, list[Any]] = {"trial": list(range(120)), "<knob>": [f"<i>{n}</i>" for n in range(120)]}
    shown = table_html(columns, caption="A & B", most=10, newest=True)
    assert "A &amp; B: the last 10 of 120 rows" in shown
    assert "&lt;i&gt;119&lt;/i&gt;" in shown
    assert "&lt;i&gt;109&lt;/i&gt;" not in shown
    assert "<i>" not in shown
    assert "the first 10 of 120 rows" in table_html(columns, most=10)
    assert "1 row<" in table_html({"a": [1]})


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, ""),
        (True, "true"),
        (0.0, "0"),
        (1234.5, "1,234"),
        (0.12345, "0.1235"),
        (0.00001, "0.000010"),
        (float("nan"), ""),
        (7, "7"),
    ],
)
def test_a_cell_is_written_as_people_write_it(value, shown):
    assert cell(value) == shown
