"""A fit as a table for the terminal and as HTML with a bar for each GPU."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from glmlab.footprint.part import GB, GIB, GROUP_NAMES, GROUPS, amount

if TYPE_CHECKING:
    from glmlab.memory import Fit

# Of one palette, told apart also by people who do not see red and green alike (Okabe and Ito, 2008).
_COLOURS = {
    "weights": "#0072b2",
    "scales": "#f0e442",
    "kv": "#009e73",
    "activations": "#e69f00",
    "graphs": "#cc79a7",
    "split_kv": "#56b4e9",
    "workspace": "#d55e00",
    "runtime": "#999999",
}
_WIDEST_PERCENT = 100.0


def fit_table(found: Fit) -> RenderableType:
    """Parts, sums, verdict and advice, for a terminal."""
    parts = Table(title=_title(found), title_justify="left", title_style="bold", box=None, pad_edge=False)
    parts.add_column("one GPU")
    for column in ("GB", "GiB", "± GB"):
        parts.add_column(column, justify="right")
    parts.add_column("evidence")
    parts.add_column("how")
    for part in found.parts:
        doubt = f"{part.plus_minus / GB:.2f}" if part.plus_minus else ""
        evidence = part.kind if part.size else ""
        parts.add_row(part.name, f"{part.size / GB:.2f}", f"{part.size / GIB:.2f}", doubt, evidence, part.how)
    left, doubt = found.free_bytes, f"{found.plus_minus_bytes / GB:.2f}"
    parts.add_row("left", f"{left / GB:.2f}", f"{left / GIB:.2f}", doubt, "", _left(found))
    lines: list[RenderableType] = [
        parts,
        Text(verdict(found), style="bold green" if found.fits else "bold red"),
    ]
    lines += [Text(f"- {reason}", style="red") for reason in found.reasons]
    lines.append(Text(_tokens(found)))
    if found.advice:
        lines.append(
            Text("what the headroom buys:" if found.fits else "what would have to change:", style="bold")
        )
        lines += [
            Text(f"- {each.what}", style="green" if each.fits and not found.fits else "")
            for each in found.advice
        ]
    return Group(*lines)


def verdict(found: Fit) -> str:
    """Whether it fits, and how sure that is, in one line."""
    close = f"; too close to be sure, the parts are known to ±{found.plus_minus_bytes / GB:.1f} GB"
    doubt = close if found.is_close else ""
    where = f"{found.ranks} x {found.gpu.name}"
    if found.fits:
        return f"fits {where}{doubt}"
    short = f" by {amount(found.short_bytes)} a GPU" if found.short_bytes else ""
    return f"does not fit {found.count} x {found.gpu.name}{short}{doubt}"


def fit_html(found: Fit) -> str:
    """A bar for each GPU, what its colours are, the verdict and the advice, for a notebook."""
    whole = max(found.gpu.usable_memory_bytes, sum(part.size for part in found.parts))
    pieces = "".join(
        _piece(
            _COLOURS[group], found.gb(group) * GB / whole, f"{GROUP_NAMES[group]} {found.gb(group):.1f} GB"
        )
        for group in GROUPS
    )
    limit = found.gpu.usable_memory_bytes / whole * _WIDEST_PERCENT
    line = (
        f'<div title="usable memory" style="position:absolute;left:{limit:.2f}%;top:-3px;bottom:-3px;'
        'border-left:2px solid currentColor"></div>'
    )
    bars = "".join(
        f'<tr><td style="padding-right:8px;white-space:nowrap">GPU {rank}</td><td style="width:100%">'
        '<div style="position:relative"><div style="display:flex;height:18px;background:#8883">'
        f"{pieces}</div>"
        f"{line}</div></td></tr>"
        for rank in range(found.ranks)
    )
    legend = " ".join(
        f'<span style="white-space:nowrap"><span style="color:{_COLOURS[group]}">&#9632;</span>'
        f" {escape(GROUP_NAMES[group])} {found.gb(group):.2f} GB</span>"
        for group in GROUPS
        if found.gb(group)
    )
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in found.reasons)
    advice = "".join(f"<li>{escape(each.what)}</li>" for each in found.advice)
    heading = "What the headroom buys" if found.fits else "What would have to change"
    rows = "".join(
        f"<tr><td>{escape(part.name)}</td><td>{part.size / GB:.2f}</td><td>{part.size / GIB:.2f}</td>"
        f"<td>{part.plus_minus / GB:.2f}</td><td>{part.kind}</td>"
        f"<td style='text-align:left'>{escape(part.how)}</td></tr>"
        for part in found.parts
    )
    return (
        f"<div><b>{escape(_title(found))}</b><br><b>{escape(verdict(found))}</b><ul>{reasons}</ul>"
        f"<table style='width:100%;table-layout:auto'>{bars}</table><div>{legend}</div>"
        f"<div>{escape(_tokens(found))}</div>"
        f"<details><summary>parts of one GPU</summary><table><tr><th>part</th><th>GB</th><th>GiB</th>"
        f"<th>± GB</th><th>evidence</th><th>how</th></tr>{rows}</table></details>"
        + (f"<div>{heading}:<ul>{advice}</ul></div>" if advice else "")
        + "</div>"
    )


def _piece(colour: str, share: float, label: str) -> str:
    style = f"width:{share * _WIDEST_PERCENT:.2f}%;background:{colour}"
    return f'<div title="{escape(label)}" style="{style}"></div>'


def _title(found: Fit) -> str:
    gpu = found.gpu
    return (
        f"{found.recipe.name} on {found.count} x {gpu.title}, {gpu.usable_memory_bytes / GB:.1f} GB usable of"
        f" {gpu.memory_bytes / GB:.1f} each ({found.recipe.serving_engine}, predicted)"
    )


def _left(found: Fit) -> str:
    if found.recipe.kv_cache_bytes is not None or not found.pool.size:
        return "of what CUDA sees"
    name = "mem_fraction_static" if found.recipe.serving_engine == "sglang" else "gpu_memory_utilization"
    return f"with {name} {found.choices.utilization:g}"


def _tokens(found: Fit) -> str:
    doubt = f" (± {found.kv_tokens_plus_minus:,})" if found.kv_tokens_plus_minus else ""
    return (
        f"KV: {found.kv_tokens:,} tokens{doubt} at {found.pool.bytes_per_token:,} B a token and rank; longest"
        f" context {found.longest_context:,} (max_model_len {found.choices.max_model_len:,}, the model's own"
        f" {found.model.max_model_len:,})"
    )
