"""The look of charts: readable on its ground, and told apart without seeing colours."""

from __future__ import annotations

import itertools
import math
import subprocess
import sys
from typing import Any

import plotly.io as pio
import pytest

from glmlab import theme as themes
from glmlab.errors import InputError

# What dichromats see, in linear RGB (Machado, Oliveira and Fernandes, 2009, severity 1).
DICHROMATS = {
    "protan": (
        (0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)
    ),
    "deutan": (
        (0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)
    ),
    "tritan": (
        (1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)
    ),
    "all": ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)),
}  # fmt: skip
WHITE, LAB_DARK = "#FFFFFF", "#111111"  # JupyterLab's dark page


def linear(colour: str) -> list[float]:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    return [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]


def luminance(colour: str) -> float:
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear(colour), strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def lab(rgb: list[float]) -> tuple[float, ...]:
    rows = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    xyz = [sum(a * b for a, b in zip(row, rgb, strict=True)) for row in rows]
    f = [
        v ** (1 / 3) if v > 0.008856 else 7.787 * v + 16 / 116
        for v in (max(x, 0) / n for x, n in zip(xyz, (0.9505, 1, 1.089), strict=True))
    ]
    return 116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])


def seen_apart(one: str, other: str, matrix: Any) -> float:
    """Euclidean distance in CIELAB as this eye sees them; 2.3 is just noticeable."""
    eyes = [[sum(a * b for a, b in zip(row, linear(c), strict=True)) for row in matrix] for c in (one, other)]
    return math.dist(lab(eyes[0]), lab(eyes[1]))


@pytest.mark.parametrize("eye", DICHROMATS)
def test_every_two_colours_are_told_apart_by_every_eye(eye):
    closest = min(seen_apart(a, b, DICHROMATS[eye]) for a, b in itertools.combinations(themes.COLOURS, 2))
    assert closest > 10


def test_plotlys_own_colours_would_fail_that():
    own = pio.templates["plotly"].layout.colorway
    assert min(seen_apart(a, b, DICHROMATS["deutan"]) for a, b in itertools.combinations(own, 2)) < 10


@pytest.mark.parametrize("eye", DICHROMATS)
def test_better_and_worse_are_told_apart_by_every_eye(eye):
    assert seen_apart(themes.BETTER, themes.WORSE, DICHROMATS[eye]) > 40


@pytest.mark.parametrize(("theme", "ground"), [("light", WHITE), ("dark", LAB_DARK)])
def test_letters_are_read_on_their_own_ground(theme, ground):
    assert contrast(themes.ink(theme).text, ground) > 7
    assert contrast(themes.ink(theme).strong, ground) > 15


@pytest.mark.parametrize("ground", [WHITE, LAB_DARK])
def test_auto_is_read_on_white_and_on_dark(ground):
    assert contrast(themes.ink("auto").text, ground) > 3.9
    assert all(contrast(colour, ground) > 2.2 for colour in themes.COLOURS)


def test_auto_paints_no_ground_of_its_own():
    layout = pio.templates["glmlab-auto"].layout
    assert layout.paper_bgcolor == layout.plot_bgcolor == "rgba(0,0,0,0)"


@pytest.mark.parametrize("name", ["glmlab-light", "glmlab-dark", "glmlab-auto"])
def test_templates_are_registered_by_name(name):
    assert tuple(pio.templates[name].layout.colorway) == themes.COLOURS


def test_importing_the_theme_leaves_plotlys_default_alone():
    code = (
        "import plotly.io as io; before = io.templates.default; import glmlab.theme;"
        "print(before == io.templates.default)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "True"


def test_an_unknown_theme_is_refused_with_what_is_allowed():
    with pytest.raises(InputError, match=r"^theme = 'darc': no such theme; did you mean dark\?$"):
        themes.template("darc")


def test_no_two_series_share_marker_and_dash():
    looks = themes.styles(35)
    assert len({(look.marker, look.dash) for look in looks}) == 35
    assert themes.BASELINE_MARKER not in {look.marker for look in looks}


def test_six_series_have_the_six_colours_and_more_lie_between():
    assert tuple(look.colour for look in themes.styles(6)) == themes.COLOURS
    nine = themes.ramp(9)
    assert (nine[0], nine[-1]) == (themes.COLOURS[0], themes.COLOURS[-1])
    assert len(set(nine)) == 9
    assert themes.ramp(3)[1] == "#739E3A"  # midway between green #009E73 and orange #E69F00
    assert themes.ramp(1) == [themes.COLOURS[0]]
    assert themes.ramp(0) == []


@pytest.mark.parametrize(("maximize", "low", "high"), [(False, "BETTER", "WORSE"), (True, "WORSE", "BETTER")])
def test_blue_is_better_in_either_direction(maximize, low, high):
    scale = themes.better_worse_scale(maximize=maximize, middle="#DDDDDD")
    assert scale[0] == (0.0, getattr(themes, low))
    assert scale[-1] == (1.0, getattr(themes, high))
