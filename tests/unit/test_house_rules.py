"""Rules of the house that no linter holds."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

import glmlab

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "glmlab").rglob("*.py"))
TRACKED = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split("\0")
    if name and (ROOT / name).is_file()
]


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.strip()


HEAVY = ("torch", "vllm", "ipywidgets", "plotly", "optuna", "scipy", "numpy", "sqlalchemy")


def test_importing_glmlab_imports_nothing_heavy():
    loaded = python(f"import sys, glmlab; print(*[name for name in {HEAVY} if name in sys.modules])")
    assert loaded == ""


def test_importing_glmlab_costs_a_fraction_of_importing_optuna():
    glmlab_s, optuna_s = map(
        float,
        python(
            "import time; a = time.perf_counter(); import glmlab; b = time.perf_counter();"
            "import optuna.samplers; print(b - a, time.perf_counter() - b)"
        ).split(),
    )
    assert glmlab_s < optuna_s


def test_reading_recipes_and_spaces_needs_no_engine_and_no_optuna():
    loaded = python(
        "import sys, glmlab; r = glmlab.find_recipe('tiny-glm4-moe');"
        "glmlab.KnobSpace.parse({'block_size': [32]}, r);"
        "print(*[name for name in ('torch', 'vllm', 'optuna') if name in sys.modules])"
    )
    assert loaded == ""


def test_the_public_names_resolve_without_vllm_or_torch():
    found = python(
        "import sys; sys.modules['vllm'] = sys.modules['torch'] = None\n"
        "import glmlab; print(*[getattr(glmlab, name).__name__ for name in glmlab.__all__])"
    )
    assert found.split() == glmlab.__all__


def test_dir_all_and_the_lazy_table_agree():
    assert set(dir(glmlab)) == {*glmlab.__all__, "__version__"}
    assert set(glmlab._HOME) == set(glmlab.__all__)
    assert glmlab.__all__ == sorted(glmlab.__all__)


def test_an_unknown_name_is_an_attribute_error_as_of_any_module():
    with pytest.raises(AttributeError, match="module 'glmlab' has no attribute 'Studdy'"):
        _ = glmlab.Studdy


@pytest.mark.parametrize("name", glmlab.__all__)
def test_what_is_public_is_documented(name):
    assert getattr(glmlab, name).__doc__


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_file_has_at_most_400_lines(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_module_is_named_after_what_it_holds(path):
    assert not re.search(r"util|helper|common|misc", path.stem)


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_a_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


# A path of somebody's machine, be it ours; /dev, /proc, /sys, /usr/bin/env and the like are any Linux's.
OURS = re.compile(r"(?<![\w.:~/*-])/(?:work|home|root|Users|mnt|data|opt|srv|scratch)/[\w.-]+")


@pytest.mark.parametrize("path", [p for p in TRACKED if p != Path(__file__)], ids=relative)
def test_no_tracked_file_holds_a_path_of_somebodys_machine(path):
    assert OURS.findall(path.read_text(encoding="utf-8", errors="replace")) == []
