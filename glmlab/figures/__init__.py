"""Charts. Each is a pure data step, which is also a table, and a pure drawing step."""

from glmlab.figures.chart import ChartData
from glmlab.figures.compare import CompareData, compare_data, draw_compare
from glmlab.figures.context import ContextData, context_data, draw_context
from glmlab.figures.cost import CostData, cost_data, draw_cost
from glmlab.figures.heatmap import HeatmapData, draw_heatmap, heatmap_data
from glmlab.figures.history import HistoryData, history_data
from glmlab.figures.history_drawing import draw_history
from glmlab.figures.memory import MemoryData, draw_memory, memory_data
from glmlab.figures.parallel import ParallelData, draw_parallel, parallel_data
from glmlab.figures.pareto import ParetoData, draw_pareto, pareto_data
from glmlab.figures.redraw import redraw
from glmlab.figures.rounds import RoundsData, draw_rounds, rounds_data

__all__ = [
    "ChartData",
    "CompareData",
    "ContextData",
    "CostData",
    "HeatmapData",
    "HistoryData",
    "MemoryData",
    "ParallelData",
    "ParetoData",
    "RoundsData",
    "compare_data",
    "context_data",
    "cost_data",
    "draw_compare",
    "draw_context",
    "draw_cost",
    "draw_heatmap",
    "draw_history",
    "draw_memory",
    "draw_parallel",
    "draw_pareto",
    "draw_rounds",
    "heatmap_data",
    "history_data",
    "memory_data",
    "parallel_data",
    "pareto_data",
    "redraw",
    "rounds_data",
]
