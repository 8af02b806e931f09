"""One look for every chart: colours, markers and dashes that do not need each other, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from glmlab.errors import InputError, InstallError
from glmlab.names import did_you_mean

try:
    import plotly.graph_objects as go
    import plotly.io as pio
except ModuleNotFoundError as error:  # pragma: no cover - needs an installation without the extra
    raise InstallError("plotly: not installed, and charts need it; pip install 'glmlab[lab]'") from error

Theme = Literal["auto", "light", "dark"]

# Okabe and Ito (2008) without yellow and black, told apart by people who do not see red and green
# alike. In this order neighbours differ for them too, and the hues run from cold to warm.
COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7")
MARKERS = ("circle", "diamond", "triangle-up", "x", "triangle-down", "pentagon", "star")
DASHES = ("solid", "dash", "dot", "dashdot", "longdash")
PATTERNS = ("", "/", "x", ".", "\\", "-", "+", "|")
SEQUENTIAL = "Cividis"
BASELINE_MARKER = "square"  # nothing else is one
BETTER, WORSE = COLOURS[0], COLOURS[4]  # of a ratio to the baseline, around 1

TEMPLATES: dict[Theme, str] = {"auto": "glmlab-auto", "light": "glmlab-light", "dark": "glmlab-dark"}


@dataclass(frozen=True)
class Ink:
    """What a chart is drawn with beside its data.

    Attributes
    ----------
    text, strong, grid : str
        Of letters, of the baseline, and of the lines behind the data.
    paper : str
        Behind everything; transparent where the page decides.
    hover : str
        Behind hover text.
    """

    text: str
    strong: str
    grid: str
    paper: str
    hover: str


_TRANSPARENT = "rgba(0,0,0,0)"
# "auto": nothing tells Python which theme a page has, so its greys are read on white and on black:
# 4.0 to 1 against white and 4.5 to 1 against JupyterLab's dark (#111).
_INK: dict[Theme, Ink] = {
    "light": Ink("#333333", "#111111", "#E3E3E3", "#FFFFFF", "#FFFFFF"),
    "dark": Ink("#D6D6D6", "#FFFFFF", "#3C3C3C", "#111111", "#222222"),
    "auto": Ink("#808080", "#808080", "rgba(128,128,128,0.28)", _TRANSPARENT, "#FFFFFF"),
}


@dataclass(frozen=True)
class Style:
    """How one series is told from the others, by any one of three things."""

    colour: str
    marker: str
    dash: str


def check_theme(theme: str) -> Theme:
    """The theme of a name.

    Raises
    ------
    InputError
        If there is none of that name.
    """
    if theme not in TEMPLATES:
        raise InputError(f"theme = {theme!r}: no such theme{did_you_mean(str(theme), TEMPLATES)}")
    return theme


def template(theme: str) -> str:
    """The name of a theme's plotly template, e.g. ``glmlab-dark``."""
    return TEMPLATES[check_theme(theme)]


def ink(theme: str) -> Ink:
    """What a theme draws letters, grid and baseline with."""
    return _INK[check_theme(theme)]


def styles(count: int) -> list[Style]:
    """So many styles in an order that can be seen: colours run from cold to warm.

    Up to six have the colours of :data:`COLOURS`; more lie between these. No two are the same pair of
    marker and dash up to 35.
    """
    return [
        Style(colour, MARKERS[index % len(MARKERS)], DASHES[index % len(DASHES)])
        for index, colour in enumerate(ramp(count))
    ]


def ramp(count: int) -> list[str]:
    """So many colours from the first of :data:`COLOURS` to the last."""
    if count <= 1:
        return list(COLOURS[:count])
    places = [index * (len(COLOURS) - 1) / (count - 1) for index in range(count)]
    return [_between(COLOURS, place) for place in places]


def patterned(colour: str, shape: str) -> dict[str, Any]:
    """The marker of a bar that is known by its pattern as well as by its colour."""
    return {
        "color": colour,
        "line": {"width": 0},
        "pattern": {"shape": shape, "bgcolor": colour, "fgcolor": "#FFFFFF", "size": 6, "solidity": 0.25},
    }


def better_worse_scale(*, maximize: bool, middle: str) -> list[tuple[float, str]]:
    """A colour scale in which blue is better, whichever direction that is."""
    low, high = (WORSE, BETTER) if maximize else (BETTER, WORSE)
    return [(0.0, low), (0.5, middle), (1.0, high)]


def _between(colours: Sequence[str], place: float) -> str:
    below = min(int(place), len(colours) - 2)
    share = place - below
    channels = (
        round(a + (b - a) * share)
        for a, b in zip(_channels(colours[below]), _channels(colours[below + 1]), strict=True)
    )
    return "#" + "".join(f"{channel:02X}" for channel in channels)


def _channels(colour: str) -> tuple[int, ...]:
    return tuple(int(colour[at : at + 2], 16) for at in (1, 3, 5))


def _template(theme: Theme) -> go.layout.Template:
    drawn = _INK[theme]
    axis = {
        "gridcolor": drawn.grid,
        "linecolor": drawn.grid,
        "zerolinecolor": drawn.grid,
        "tickcolor": drawn.grid,
        "ticks": "outside",
        "automargin": True,
        "title": {"standoff": 8, "font": {"size": 13}},
    }
    hover_text = "#333333" if theme == "auto" else drawn.text
    layout = {
        # A button that uploads measurements has no place beside them.
        "modebar": {"remove": ["sendChartToCloud"]},
        "colorway": list(COLOURS),
        "colorscale": {"sequential": SEQUENTIAL},
        "paper_bgcolor": drawn.paper,
        "plot_bgcolor": drawn.paper,
        "font": {"color": drawn.text, "size": 13, "family": "system-ui, 'Helvetica Neue', Arial, sans-serif"},
        "title": {
            "x": 0.012,
            "xref": "container",
            "xanchor": "left",
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 20},
            "font": {"size": 16},
        },
        "margin": {"l": 64, "r": 24, "t": 76, "b": 56},
        "hoverlabel": {
            "bgcolor": drawn.hover,
            "bordercolor": drawn.grid if theme != "auto" else "#808080",
            "font": {"color": hover_text},
            "align": "left",
        },
        "legend": {"bgcolor": _TRANSPARENT, "font": {"size": 12}},
        "xaxis": axis,
        "yaxis": axis,
        "hovermode": "closest",
    }
    bar = {"title": {"font": {"size": 12}}, "outlinewidth": 0, "thickness": 16}
    data = {
        "heatmap": [go.Heatmap(colorbar=bar)],
        "parcoords": [go.Parcoords(line={"colorbar": bar})],
    }
    return go.layout.Template(layout=layout, data=data)


for _theme, _name in TEMPLATES.items():
    pio.templates[_name] = _template(_theme)
