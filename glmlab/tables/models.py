"""Models as tables for people: the catalog, and one model with its sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from glmlab.render import table
from glmlab.roomy_table import Roomy
from glmlab.units import format_bytes

if TYPE_CHECKING:
    from glmlab.catalog import Model

_GIB = 2**30
# Of the catalog, what a narrow terminal does without, the least needed first.
_SPARE = ("layers", "what", "attention")
_SAID = ("seed", "card", "config", "used")


def models_table(found: Sequence[Model]) -> RenderableType:
    """The catalog: sizes, attention, layout and size on disk at a glance."""
    listing = table("model", ">total", ">active", ">layers", "attention", "layout", ">on disk", "what")
    for each in found:
        body = each.to_json()
        listing.add_row(
            body["name"],
            count(body["total_params"]),
            count(body["active_params"]),
            str(body["layers"]),
            body["attention"],
            body["layout"]["name"] if body["layout"] else "unknown",
            format_bytes(body["disk_bytes"]) if body["disk_bytes"] else "unknown",
            body["title"],
        )
    caption = (
        "total: without the MTP layer. active: what a token passes through. on disk: computed from the"
        " layout, MTP layer included where the checkpoint has it; 1 GB is 1e9 bytes"
    )
    return Group(Roomy(listing, _SPARE), Text(caption, style="dim"))


def model_in_full(found: Model) -> RenderableType:
    """One model: what config.json gives, what was seen, and where sources disagree."""
    body = found.to_json()
    rows = table("", "")
    for key in (
        "title",
        "name",
        "path",
        "base",
        "attention",
        "layers",
        "heads",
        "kv_heads",
        "vocab_size",
        "max_model_len",
    ):
        if body.get(key) not in (None, ""):
            rows.add_row(key.replace("_", " "), Text(str(body[key])))
    for key in ("total_params", "active_params", "mtp_params"):
        value = body[key]
        rows.add_row(key.replace("_", " "), "unknown" if value is None else f"{value:,} ({count(value)})")
    if (advertised := body["advertised"]) is not None:
        sizes = [f"{advertised[key]:g} B {key[:-2]}" for key in ("total_b", "active_b") if advertised[key]]
        rows.add_row("advertised", Text(f"{', '.join(sizes)} ({advertised['source']})"))
    if (layout := body["layout"]) is not None:
        parts = ", ".join(f"{part} {kind}" for part, kind in layout["parts"].items())
        rest = f"{parts}; others {layout['others']}" if parts else f"all {layout['others']}"
        rows.add_row(
            "layout", Text(f"{layout['name']}: {rest}; MTP layer {layout['mtp']} ({layout['source']})")
        )
    if body["disk_bytes"]:
        rows.add_row("on disk, computed", format_bytes(body["disk_bytes"]))
    for seen in body["measured"]:
        ranks = f" of {seen['tensor_parallel']}" if seen["tensor_parallel"] else ""
        rows.add_row(f"{seen['what']}{ranks}, seen", Text(_seen(seen)))
    for name in ("hub", "notes"):
        for line in body[name]:
            rows.add_row("on the hub" if name == "hub" else "note", Text(line))
    if body["note"]:
        rows.add_row("note", Text(body["note"]))
    rows.add_row("source", Text(body["source"] or "config.json"))
    parts_shown: list[RenderableType] = [rows]
    if body["disagreements"]:
        parts_shown += [Text(""), _disagreements(body["disagreements"])]
    return Group(*parts_shown, Text("sizes are computed from config.json", style="dim"))


def _seen(seen: dict[str, Any]) -> str:
    """A measured size, with the GB that it is where it may be GiB."""
    unit = "GB, or GiB" if seen["unit"] == "unclear" else seen["unit"]
    said = f"{' to '.join(f'{size:g}' for size in seen['gb'])} {unit}"
    if seen["unit"] != "GB":
        said += f" (as GiB: {' to '.join(f'{size * _GIB / 1e9:.1f}' for size in seen['gb'])} GB)"
    said += f"; {seen['note']}" if seen["note"] else ""
    return f"{said} ({seen['source']})"


def _disagreements(found: Sequence[dict[str, Any]]) -> RenderableType:
    listing = table("what", *_SAID, "source", title="where sources disagree, and what glmlab goes by")
    for each in found:
        said = [Text("" if each[key] is None else str(each[key])) for key in _SAID]
        listing.add_row(Text(each["what"]), *said, Text(each["source"], style="dim"))
    caption = (
        "seed: the notes of the case study that glmlab began with. card: the model card. config: config.json."
        " reference N: the collection of facts that glmlab was begun with, which is not part of it"
    )
    return Group(listing, Text(caption, style="dim"))


def count(number: float | None) -> str:
    """A number of parameters, as ``472.1 B``."""
    if number is None:
        return "unknown"
    for unit, size in (("B", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.4g} {unit}"
    return str(number)
