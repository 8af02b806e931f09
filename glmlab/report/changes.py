"""What changed against the baseline, and how it is taken to production."""

from __future__ import annotations

import difflib
import shlex

from glmlab.export.outcome import tuned_recipe
from glmlab.figures.trials import word
from glmlab.knob_table import KNOBS
from glmlab.report.elements import Child, Html, code_block, folded, fragment, listing, section, table, tag
from glmlab.report.material import Material
from glmlab.storage_url import from_anywhere, shown

_MARKS = {"+": "added", "-": "removed", "@": "place"}


def changes(material: Material) -> Html | None:
    """Every knob of the study at baseline and best, and the recipe's lines that differ."""
    if material.best is None:
        return None
    before, after = material.baseline_params, material.best.params
    rows: list[tuple[Child, ...]] = []
    marked = []
    for name in dict.fromkeys([*after, *before]):
        if name in material.changes:
            marked.append(len(rows))
        knob = KNOBS.get(name)
        rows.append(
            (
                tag("code", name),
                word(before.get(name)),
                fragment(
                    word(after.get(name)), tag("strong", " changed") if name in material.changes else None
                ),
                {"live": "live, in the running engine", "rebuild": "needs a new engine"}[knob.reach]
                if knob
                else "",
                knob.help if knob else "",
            )
        )
    return section(
        "changes",
        "What changed against the baseline",
        tag("p", _baseline_words(material)),
        table(
            ("knob", "baseline", "best", "reach", "what it is"),
            rows,
            label="knobs at baseline and best",
            marked=marked,
        ),
        _diff(material),
    )


def _baseline_words(material: Material) -> str:
    verdict = material.summary.verdict
    is_kept = verdict is None or verdict.outcome == "win" or not material.changes
    kept = "" if is_kept else " The changes below were not kept."
    return (
        f"The baseline is the recipe as it was given ({material.spec.base_recipe.name}, fingerprint"
        f" {material.spec.base_recipe.fingerprint}), with what vLLM chose where it leaves a choice.{kept}"
    )


def recipe_diff(material: Material) -> list[str]:
    """The lines of the recipe in which baseline and best differ, as ``diff -u`` writes them."""
    if not material.changes or material.best is None:
        return []
    base = tuned_recipe(material.store, material.baseline_params)
    best = tuned_recipe(material.store, material.best.params)
    return list(
        difflib.unified_diff(
            base.to_yaml().splitlines(),
            best.to_yaml().splitlines(),
            f"baseline  {base.fingerprint}",
            f"best  {best.fingerprint}",
            n=2,
            lineterm="",
        )
    )


def _diff(material: Material) -> Html | None:
    marked = [tag("span", f"{line}\n", class_=_MARKS.get(line[:1])) for line in recipe_diff(material)]
    if not marked:
        return None
    return folded(
        "the recipe, line by line", tag("pre", tag("code", *marked), class_="diff", tabindex=0), opened=True
    )


def production(material: Material) -> Html | None:
    """The commands that take the outcome to a server, and the files themselves."""
    outcome = material.outcome
    if isinstance(outcome, str):
        return section("production", "Take it to production", tag("p", f"Not now: {outcome}."))
    what = (
        "The tuned settings, as a server reads them."
        if outcome.tuned
        else "The baseline's settings, since nothing better was proved."
    )
    return section(
        "production",
        "Take it to production",
        tag("p", f"{what} Where the study lies, one command writes them, with all samples as evidence:"),
        code_block(export_command(material), copy="the export command"),
        tag("p", "Elsewhere, save the files below beside each other. Then, in their folder:"),
        code_block(outcome.command, copy="the serve command"),
        listing(_in_words(remark) for remark in outcome.remarks),
        *(
            folded(tag("code", file), code_block(content, copy=file), opened=file == "serve.yaml")
            for file, content in outcome.files.items()
        ),
    )


def export_command(material: Material) -> str:
    """What writes the outcome where the study lies."""
    name = material.store.name
    return _command("export", name, f"{name}-bundle", _storage(material))


def report_command(material: Material) -> str:
    """What writes the report where the study lies."""
    name = material.store.name
    return _command("report", name, f"{name}.html", _storage(material))


def _command(what: str, study: str, target: str, storage: str) -> str:
    return shlex.join(["glmlab", what, study, target, "--storage", shown(storage)])


def _storage(material: Material) -> str:
    """The URL as the command takes it, from any folder."""
    url = material.store.url
    whole = from_anywhere(url)
    return f"journal://{whole}" if url.startswith("journal://") else whole


def _in_words(remark: str) -> Html:
    """A remark's Markdown: only code is marked in it."""
    parts = remark.split("`")
    return fragment(*(tag("code", part) if place % 2 else part for place, part in enumerate(parts)))
