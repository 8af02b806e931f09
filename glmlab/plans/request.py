"""What somebody typed after ``glmlab plan``."""

from __future__ import annotations

from glmlab.errors import InputError
from glmlab.footprint.target import fit_target
from glmlab.plans.base import base_of
from glmlab.plans.measured_elsewhere import all_reduces_of
from glmlab.plans.ranking import RankedPlans, plan
from glmlab.predictor import parse_numbers


def plan_as_asked(
    model: str,
    gpu: str | None,
    count: int | None,
    *,
    contexts: str,
    batch_sizes: str,
    vllm: str | None,
    all_reduces_from: tuple[str, str] | None = None,
    together: bool = False,
) -> RankedPlans:
    """Plans for the GPUs that were named, or for this machine's.

    Parameters
    ----------
    model : str
        A recipe's name or file, or a model's name or folder.
    gpu : str or None
        Of the catalog; this machine's without.
    count : int or None
        How many; without, as many as this machine has.
    contexts, batch_sizes : str
        Whole numbers with commas between them.
    vllm : str or None
        Version to plan for.
    all_reduces_from : tuple of str, optional
        Name, or file, and storage of a study whose all-reduces are taken in place of the packaged tables.
    together : bool
        Whether all sequences start at once.

    Raises
    ------
    InputError
        For what cannot be, in one line.
    """
    lengths, batches = parse_numbers("--contexts", contexts), parse_numbers("--batch-sizes", batch_sizes)
    if gpu is not None and count is None:
        raise InputError("--count: not given; how many GPUs of that kind are there?")
    kind, present = fit_target(base_of(model, lengths or (1,), batches or (1,)).recipe, gpu, count)
    versions = None if vllm is None else {"vllm": vllm}
    study = all_reduces_from
    return plan(
        model,
        kind,
        present,
        contexts=lengths,
        batch_sizes=batches,
        versions=versions,
        all_reduces=None if study is None else all_reduces_of(study[0], kind, study[1]),
        together=together,
    )
