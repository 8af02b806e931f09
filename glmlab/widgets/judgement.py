"""Judgement: does a recipe fit, how fast may it be, what do the rules say; apart from whoever shows it."""

from __future__ import annotations

from dataclasses import dataclass

from glmlab.decode.prediction import Prediction
from glmlab.errors import GlmlabError
from glmlab.gpus import Gpu
from glmlab.memory import Fit, fit
from glmlab.predictor import predict
from glmlab.recipe import Recipe
from glmlab.rules import Findings, check


@dataclass(frozen=True)
class Judgement:
    """What is known of a recipe before anything is started.

    Attributes
    ----------
    fit : Fit or None
        None where no GPU was named or it cannot be computed; ``no_fit`` then says why.
    speed : Prediction or None
        Of decode steps; None where it cannot be predicted, and ``no_speed`` says why.
    findings : Findings
        Empty where they could not be computed; ``no_findings`` then says why.
    """

    recipe: Recipe
    gpu: Gpu | None
    count: int
    fit: Fit | None
    no_fit: str
    speed: Prediction | None
    no_speed: str
    findings: Findings
    no_findings: str


def judge(recipe: Recipe, gpu: Gpu | None, count: int) -> Judgement:
    """Judge a recipe; what cannot be judged is said, not raised.

    Parameters
    ----------
    recipe : Recipe
        What is judged.
    gpu : Gpu or None
        What it is to run on.
    count : int
        How many of them.
    """
    found: Fit | None = None
    speed: Prediction | None = None
    no_fit = no_speed = no_findings = ""
    findings = Findings()
    if gpu is None:
        no_fit = (
            "No GPU is chosen, so memory is not judged. Choose one above to see whether this would fit it."
        )
    else:
        try:
            found = fit(recipe, gpu, count)
            _ = found.advice  # computed here, where it may take its time
        except GlmlabError as error:
            found, no_fit = None, f"Memory cannot be judged: {error}"
        try:
            speed = predict(recipe, gpu, count)
        except GlmlabError as error:
            no_speed = f"No prediction: {error}"
    try:
        findings = check(recipe, gpu, None if gpu is None else count)
    except GlmlabError as error:
        no_findings = f"The rules cannot be asked: {error}"
    return Judgement(recipe, gpu, count, found, no_fit, speed, no_speed, findings, no_findings)
