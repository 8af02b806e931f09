"""Memory: what takes each GPU's memory, by what ``fit`` computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go

from glmlab import theme as themes
from glmlab.figures.chart import ChartData, canvas, hover, legend_below
from glmlab.footprint.part import GB, GROUP_NAMES, GROUPS, Group, amount
from glmlab.memory import Fit

_COLOURS: dict[Group, str] = {
    "weights": themes.COLOURS[0],
    "scales": "#00456B",
    "kv": themes.COLOURS[2],
    "activations": themes.COLOURS[3],
    "graphs": themes.COLOURS[5],
    "split_kv": themes.COLOURS[1],
    "workspace": themes.COLOURS[4],
    "runtime": "#808080",
}


@dataclass(frozen=True, kw_only=True)
class MemoryData(ChartData):
    """One row for each GPU; those that the recipe leaves idle have nothing but free memory.

    Attributes
    ----------
    gb : tuple of dict
        GPU by GPU: group -> GB.
    free_gb : tuple of float
        What is left of the usable memory; below 0 where the parts are too much.
    usable_gb, total_gb : float
        Of one GPU: what an engine can have, and what the card is sold with.
    plus_minus_gb : float
        By how much the sum of one GPU's parts may be wrong.
    """

    gpus: tuple[str, ...]
    gb: tuple[dict[Group, float], ...]
    free_gb: tuple[float, ...]
    usable_gb: float
    total_gb: float
    plus_minus_gb: float
    how: dict[Group, tuple[str, ...]]
    verdict: str

    def columns(self) -> Mapping[str, Sequence[Any]]:
        return {
            "gpu": self.gpus,
            **{f"{group}_gb": [each.get(group, 0.0) for each in self.gb] for group in GROUPS},
            "free_gb": self.free_gb,
            "usable_gb": [self.usable_gb] * len(self.gpus),
            "total_gb": [self.total_gb] * len(self.gpus),
            "plus_minus_gb": [self.plus_minus_gb if each else 0.0 for each in self.gb],
            "evidence": [self.evidence] * len(self.gpus),
        }


def memory_data(fit: Fit) -> MemoryData:
    """Read a fit as one bar for each GPU that there is."""
    from glmlab.footprint.tables import verdict

    usable = fit.gpu.usable_memory_bytes / GB
    one = {group: fit.gb(group) for group in GROUPS}
    idle = max(fit.count - fit.ranks, 0)
    return MemoryData(
        title=f"Memory of {fit.recipe.name} on {fit.count} x {fit.gpu.title}",
        evidence="predicted",
        gpus=tuple(
            f"GPU {i}" + (", idle" if i >= fit.ranks else "") for i in range(max(fit.ranks, fit.count))
        ),
        gb=(*[one] * fit.ranks, *[{}] * idle),
        free_gb=(*[fit.free_bytes / GB] * fit.ranks, *[usable] * idle),
        usable_gb=usable,
        total_gb=fit.gpu.memory_bytes / GB,
        plus_minus_gb=fit.plus_minus_bytes / GB,
        how={
            group: tuple(
                f"{part.name} {part.size / GB:.2f} GB, {part.kind}: {part.how}"
                for part in fit.parts
                if part.group == group and part.size
            )
            for group in GROUPS
        },
        verdict=f"{verdict(fit)}; KV: {fit.kv_tokens:,} tokens, longest context {fit.longest_context:,}",
    )


def draw_memory(data: MemoryData, theme: str = "auto") -> go.Figure:
    """Draw it: parts end to end, a line at what is usable, a bar for how sure the sum is."""
    figure = canvas(data, theme, data.verdict)
    ink = themes.ink(theme)
    shown = [group for group in GROUPS if any(each.get(group) for each in data.gb)]
    for group in shown:
        sizes = [each.get(group, 0.0) for each in data.gb]
        figure.add_bar(
            y=data.gpus, x=sizes, orientation="h", legendgroup=group,
            name=f"{GROUP_NAMES[group]} {amount(max(sizes) * GB)}",
            marker=themes.patterned(_COLOURS[group], themes.PATTERNS[GROUPS.index(group)]),
            hovertemplate=f"%{{y}}<br>{hover(data.how[group])}<extra></extra>",
        )  # fmt: skip
    free = [max(left, 0.0) for left in data.free_gb]
    if any(free):
        figure.add_bar(
            y=data.gpus, x=free, orientation="h", legendgroup="free",
            name=f"free {amount(free[0] * GB)}" if free[0] else "free",
            marker={"color": "rgba(128,128,128,0.12)", "line": {"color": ink.grid, "width": 1}},
            hovertemplate="%{y}<br>free %{x:.2f} GB<extra></extra>",
        )  # fmt: skip
    _add_doubt(figure, data, ink)
    figure.add_vline(
        x=data.usable_gb, line={"color": ink.strong, "width": 2.5},
        annotation={"text": f"usable {data.usable_gb:.1f} GB", "font": {"color": ink.strong}},
        annotation_position="top",
    )  # fmt: skip
    figure.update_layout(
        barmode="stack",
        xaxis={"title": {"text": "memory of one GPU [GB, 1e9 bytes]"}, "rangemode": "tozero"},
        yaxis={"autorange": "reversed", "showgrid": False},
        height=260 + 34 * len(data.gpus),
    )
    legend_below(figure)
    return figure


def _add_doubt(figure: go.Figure, data: MemoryData, ink: themes.Ink) -> None:
    used = [(gpu, sum(each.values())) for gpu, each in zip(data.gpus, data.gb, strict=True) if each]
    figure.add_scatter(
        y=[gpu for gpu, _ in used], x=[size for _, size in used], mode="markers",
        legendgroup="sum", name=f"sum of all, ±{data.plus_minus_gb:.1f} GB",
        marker={"symbol": "line-ns-open", "size": 14, "color": ink.strong},
        error_x={"array": [data.plus_minus_gb] * len(used), "thickness": 2, "width": 6, "color": ink.strong},
        hovertemplate=f"%{{y}}<br>all parts %{{x:.2f}} GB, ±{data.plus_minus_gb:.2f} GB<extra></extra>",
    )  # fmt: skip
