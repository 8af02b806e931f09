"""ModelFacts: what is known of a model beside its sizes, each with its source (``facts.yaml``).

A prune or a quantized checkpoint is data over its base: ``base`` names a model, ``changes`` the keys
of its config.json that differ, ``layout`` how its weights are stored.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

Text = Annotated[str, Field(min_length=1)]
# Sizes that a fact may name beside the keys of config.json; billions and GB, as cards have them.
COMPUTED_KEYS = ("total_params_b", "active_params_b", "total_with_mtp_b", "disk_gb")
MtpWeights = Literal["absent", "layer", "layer and copies"]


def _as_list(value: Any) -> Any:
    """One number stands for a range of one."""
    return [value] if isinstance(value, int | float) and not isinstance(value, bool) else value


class Advertised(BaseModel):
    """Sizes as the publisher gives them, in billions of parameters."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    total_b: float | None = Field(None, gt=0)
    active_b: float | None = Field(None, gt=0)
    source: Text


class Measured(BaseModel):
    """A size that somebody saw.

    Attributes
    ----------
    what : "on disk" or "weights per rank"
        Of the whole checkpoint, or of one GPU after loading.
    gb : tuple of float
        As printed: one number, or the ends of a range.
    unit : "GB", "GiB" or "unclear"
        What the number counts; many tools print GiB and write GB.
    tensor_parallel : int or None
        Ranks, for weights per rank.
    note, source : str
        What qualifies it; where it was read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: Literal["on disk", "weights per rank"]
    gb: Annotated[tuple[Annotated[float, Field(gt=0)], ...], BeforeValidator(_as_list), Field(max_length=2)]
    unit: Literal["GB", "GiB", "unclear"] = "GB"
    tensor_parallel: int | None = Field(None, ge=1)
    note: str = ""
    source: Text


class Disagreement(BaseModel):
    """One thing on which seed, model card and config.json differ.

    Attributes
    ----------
    what : str
        The thing.
    seed, card : text, number or None
        What each says; None where it is silent.
    config : text, number or None
        What config.json says, or what is computed or probed where it is silent.
    key : str or None
        The size that ``config`` and ``used`` are read from, as ``total_params`` or a key of config.json;
        kept in place of a copy.
    used : text, number or None
        What glmlab goes by.
    reference : int or None
        Row of the collected reference's list of disagreements (section 1.3).
    source : str
        Where the values were read.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    what: Text
    seed: str | int | float | None = None
    card: str | int | float | None = None
    config: str | int | float | None = None
    key: str | None = None
    used: str | int | float | None = None
    reference: int | None = Field(None, ge=1)
    source: Text

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.key is not None and not (self.config is None and self.used is None):
            raise ValueError("key: stands for config and used; drop either it or them")
        if self.key is None and self.used is None:
            raise ValueError("used: missing; say what glmlab goes by, or give a key")
        return self


class ModelFacts(BaseModel):
    """Content of ``data/models/NAME/facts.yaml``.

    Attributes
    ----------
    title : str
        The model in a few words.
    base, changes : str or None, dict
        The model that it is made from, and the keys of config.json that differ.
    layout : str or None
        How the weights are stored, a name of ``data/layouts``; None: what config.json says, else BF16.
    hub, aliases : tuple of str
        Names on the hub, and others that :func:`glmlab.catalog.find_model` takes.
    mtp_weights : "absent", "layer", "layer and copies" or None
        What the checkpoint has of the MTP layer: nothing, the layer, or with it copies of embedding and
        head; None: as the base, and the layer where there is none.
    advertised, measured, disagreements
        See the classes.
    notes : tuple of str
        What a user should know.
    source : str
        Where config.json, or the changes, are from.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str = ""
    base: Text | None = None
    changes: dict[str, Any] = {}
    layout: Text | None = None
    hub: tuple[Text, ...] = ()
    aliases: tuple[Text, ...] = ()
    mtp_weights: MtpWeights | None = None
    advertised: Advertised | None = None
    measured: tuple[Measured, ...] = ()
    disagreements: tuple[Disagreement, ...] = ()
    notes: tuple[Text, ...] = ()
    source: Text

    @model_validator(mode="after")
    def _changes_have_a_base(self) -> Self:
        if self.changes and self.base is None:
            raise ValueError("changes: need a base, the name of the model that they change")
        return self


NO_FACTS = ModelFacts.model_construct(source="")  # of a folder, a hub name and a twin: nothing is said of it
