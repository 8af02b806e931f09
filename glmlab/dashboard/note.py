"""The note of a study in optuna-dashboard: verdict, what changed, what it cost, what to do with it."""

from __future__ import annotations

import re

from glmlab.figures.trials import word
from glmlab.report.changes import export_command, recipe_diff, report_command
from glmlab.report.ledger import against_restarts
from glmlab.report.material import Material
from glmlab.report.sureness import compared_metrics
from glmlab.report.verdict import say
from glmlab.units import counted

# Link definitions that nothing links to: Markdown shows nothing of them.
BEGIN = "[//]: # (glmlab dashboard writes anew what stands from here)"
END = "[//]: # (to here; a text of your own goes above or below)"

_DECIDED = "The ratio is that of the rounds, with its 95% interval; the first line decided."
_TO_DO = (
    "The recipe is among this study's artifacts. To take it to production, and to send the study to somebody:"
)
# Each on a line of its own: what a study says may hold these words, but always within a line.
_BLOCK = re.compile(rf"^{re.escape(BEGIN)}[ \t\r]*$.*?^{re.escape(END)}[ \t\r]*$", re.DOTALL | re.MULTILINE)
_SPECIAL = re.compile(r"([\\`*_\[\]<>#|~&!])")


def write_note(material: Material, former: str) -> str:
    """The note with glmlab's part written anew; whatever else it holds stays.

    Parameters
    ----------
    material : Material
        The study.
    former : str
        The note as it is.
    """
    part = f"{BEGIN}\n\n{_part(material)}\n\n{END}"
    if _BLOCK.search(former):
        return _BLOCK.sub(lambda _: part, former, count=1)
    return f"{part}\n\n{former.strip()}\n" if former.strip() else f"{part}\n"


def _part(material: Material) -> str:
    parts = [f"**{text(say(material).sentence)}**"]
    if material.best is not None:
        parts += ["#### What changed", _knobs(material)]
    if diff := recipe_diff(material):
        parts.append(block("\n".join(diff), "diff"))
    if metrics := compared_metrics(material):
        parts += [
            "#### How sure",
            _table(
                ("what", "baseline", "best", "best / baseline", "better is"),
                [(text(name), *map(text, cells)) for name, *cells in metrics],
            ),
            f"Medians of the confirming visits (lowest to highest), {text(material.summary.evidence)}.",
            _DECIDED if material.summary.verdict else "There is no verdict yet.",
        ]
    if material.summary.cost_s.restart_trial is not None:
        parts += ["#### What it cost", text(against_restarts(material))]
    if notes := material.summary.notes:
        parts += ["#### To be minded", "\n".join(f"- {text(note)}" for note in notes)]
    parts += [
        "#### What to do with it",
        _TO_DO,
        block(f"{export_command(material)}\n{report_command(material)}", "sh"),
        f"As of {counted(len(material.records), 'trial')}.",
    ]
    return "\n\n".join(parts)


def _knobs(material: Material) -> str:
    before, after = material.baseline_params, material.best.params if material.best else {}
    return _table(
        ("knob", "baseline", "best"),
        [
            (
                code(name),
                code(word(before.get(name))),
                code(word(after.get(name))) + (" **changed**" if name in material.changes else ""),
            )
            for name in dict.fromkeys([*after, *before])
        ],
    )


def _table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [heads, tuple("---" for _ in heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(content: str) -> str:
    """Text that stays text in Markdown, in one line."""
    return _SPECIAL.sub(r"\\\1", " ".join(content.split()))


def code(content: str) -> str:
    """A name or a value, set as code; also within a table."""
    plain = " ".join(content.split()).replace("|", "\\|")
    fence = _fence(plain, 1)
    pad = " " if "`" in plain else ""
    return f"{fence}{pad}{plain}{pad}{fence}" if plain else ""


def block(content: str, language: str) -> str:
    """Lines of code, whatever they hold."""
    fence = _fence(content, 3)
    return f"{fence}{language}\n{content}\n{fence}"


def _fence(content: str, least: int) -> str:
    longest = max((len(run) for run in re.findall(r"`+", content)), default=0)
    return "`" * max(least, longest + 1)
