"""Whether a recipe fits: a bar for each GPU, why not, and what would have to change, each with its button."""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import ipywidgets as W

from glmlab.footprint.advice_line import Advice
from glmlab.footprint.part import GB, GROUPS, Group
from glmlab.footprint.tables import verdict
from glmlab.memory import Fit
from glmlab.rules import change_text
from glmlab.widgets.action_slot import ActionSlot
from glmlab.widgets.findings import Locked, never_locked
from glmlab.widgets.style import framed, html, stylesheet

_MOST_BARS = 8
_MOST_ADVICE = 8
_BARS: dict[str, tuple[Group, ...]] = {
    "weights": ("weights", "scales"),
    "kv": ("kv",),
    "rest": tuple(group for group in GROUPS if group not in ("weights", "scales", "kv")),
}
_WORDS = {
    "weights": "weights",
    "kv": "KV cache",
    "rest": "the rest (activations, graphs, workspace, CUDA)",
    "over": "too much for the GPU",
    "free": "free",
}


class MemoryPanel(W.VBox):
    """The memory of each GPU as a bar, in words below it, with advice that a button takes."""

    def __init__(self) -> None:
        self._on_advice: list[Callable[[Advice], None]] = []
        self.fit: Fit | None = None
        self._locked: Locked = never_locked
        self.line = ""
        self._picture = html()
        self.slots = [ActionSlot[Advice]("Apply", "check", self._taken) for _ in range(_MOST_ADVICE)]
        self._parts = html()
        super().__init__([stylesheet(), self._picture, *self.slots, self._parts])

    def on_advice(self, callback: Callable[[Advice], None]) -> None:
        """Call back with the advice that the user takes."""
        self._on_advice.append(callback)

    def show_fit(self, fit: Fit) -> None:
        """Show a fit in place of the one before. Can be called from any thread: no widget is made."""
        self.fit, self.line = fit, verdict(fit)
        self._picture.value = framed(picture_html(fit))
        for slot in self.slots[len(fit.advice) :]:
            slot.empty()
        for slot, advice in zip(self.slots, fit.advice, strict=False):
            kind = "good" if advice.fits else "notes"
            card = f'<div class="glmlab-card glmlab-{kind}">{escape(advice.what)}</div>'
            tooltip, locked = f"Change the recipe: {advice.what}", self._locked(advice.changes)
            slot.fill(advice, card, advice_text(advice, fit), tooltip, locked)
        self._parts.value = framed(parts_html(fit))

    def lock(self, locked: Locked) -> None:
        """Say which changes cannot be made now; see :meth:`FindingsPanel.lock`."""
        self._locked = locked
        if self.fit is not None:
            self.show_fit(self.fit)

    def say(self, line: str, kind: str = "notes") -> None:
        """Show why there is no fit, in plain text.

        Parameters
        ----------
        line : str
            The reason.
        kind : {"notes", "error"}
            Whether something is wrong.
        """
        self.fit, self.line = None, line
        self._picture.value = framed(
            f'<div class="glmlab-card glmlab-{kind}" role="status">{escape(line)}</div>'
        )
        for slot in self.slots:
            slot.empty()
        self._parts.value = ""

    def _taken(self, advice: Advice) -> None:
        for callback in self._on_advice:
            callback(advice)


def advice_text(advice: Advice, fit: Fit) -> str:
    """What taking a piece of advice changes, in the words of a recipe file.

    Parameters
    ----------
    advice : Advice
        Of :attr:`Fit.advice`.
    fit : Fit
        The fit that it is about.
    """
    parts = [change_text(advice.changes)] if advice.changes else []
    if advice.gpus != fit.count:
        parts.append(f"{advice.gpus} GPUs")
    return ", ".join(parts)


def picture_html(fit: Fit) -> str:
    """Verdict, reasons, bars and their legend."""
    gb = {name: fit.gb(*groups) for name, groups in _BARS.items()}
    usable = fit.gpu.usable_memory_bytes / GB
    taken = sum(gb.values())
    over, free = max(0.0, taken - usable), max(0.0, usable - taken)
    kind = "good" if fit.fits else "error"
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in fit.reasons)
    head = (
        f'<div class="glmlab-card glmlab-{kind}" role="status"><b>{_capital(verdict(fit))}</b>'
        f" ({escape(fit.recipe.name)}, {usable:.1f} GB usable on each GPU; predicted, ±"
        f"{fit.plus_minus_bytes / GB:.1f} GB){f'<ul>{reasons}</ul>' if reasons else ''}"
        f"<div>{_tokens(fit)}</div></div>"
    )
    widths = [(name, gb[name]) for name in _BARS] + [("free", free)]
    label = ", ".join(f"{_WORDS[name]} {size:.1f} GB" for name, size in widths)
    label += f", {over:.1f} GB more than the GPU has" if over else ""
    bar = _bar(widths, over, label)
    used = min(fit.ranks, fit.count)
    lines = [f"<span>GPU {index}</span>{bar}" for index in range(min(used, _MOST_BARS))]
    if used > _MOST_BARS:
        lines.append(f"<span></span><span>and {used - _MOST_BARS} more like these</span>")
    lines += [
        f"<span>GPU {index}</span><span>no rank of this recipe uses it</span>"
        for index in range(used, fit.count)
    ][:_MOST_BARS]
    return f'{head}<div class="glmlab-bars">{"".join(lines)}</div>{_legend([*widths, ("over", over)])}'


def _bar(widths: list[tuple[str, float]], over: float, label: str) -> str:
    """One GPU; what is too much for it stands at the right end, where the card ends."""
    whole = sum(size for _, size in widths) or 1.0
    pieces = []
    left = over
    for name, size in reversed(widths):
        cut = min(size, left)
        left -= cut
        share = (size - cut) / whole * 100
        pieces.append(f'<span class="glmlab-{name}" style="width:{share:.2f}%"></span>' if share else "")
    beyond = f'<span class="glmlab-over" style="width:{over / whole * 100:.2f}%"></span>' if over else ""
    text = escape(label, quote=True)
    inside = "".join(reversed(pieces)) + beyond
    return f'<div class="glmlab-bar" role="img" aria-label="{text}" title="{text}">{inside}</div>'


def _legend(widths: list[tuple[str, float]]) -> str:
    keys = "".join(
        f'<span><span class="glmlab-key glmlab-{name}"></span>{_WORDS[name]} {size:.1f} GB</span>'
        for name, size in widths
        if size or name == "free"
    )
    return f'<div class="glmlab-legend">{keys}</div>'


def _tokens(fit: Fit) -> str:
    doubt = f" (± {fit.kv_tokens_plus_minus:,})" if fit.kv_tokens_plus_minus else ""
    return (
        f"KV cache: {fit.kv_tokens:,} tokens{doubt}; longest context {fit.longest_context:,}"
        f" (max_model_len {fit.choices.max_model_len:,}, the model's own {fit.model.max_model_len:,})"
    )


def parts_html(fit: Fit) -> str:
    """The table behind the bars: every part of one GPU with its evidence."""
    rows = "".join(
        _row(part.name, part.size, part.plus_minus, part.kind, part.how) for part in fit.parts if part.size
    )
    left = _row("free", fit.free_bytes, fit.plus_minus_bytes, "", "of what CUDA sees")
    head = '<tr><th>part of one GPU</th><th class="glmlab-number">GB</th><th class="glmlab-number">± GB</th>'
    return (
        '<details><summary>The same as a table, part by part</summary><div class="glmlab-scroll"><table>'
        f"{head}<th>evidence</th><th>how</th></tr>{rows}{left}</table></div></details>"
    )


def _row(name: str, size: float, doubt: float, kind: str, how: str) -> str:
    numbers = "".join(f'<td class="glmlab-number">{each / GB:.2f}</td>' for each in (size, doubt))
    return f"<tr><td>{escape(name)}</td>{numbers}<td>{kind}</td><td>{escape(how)}</td></tr>"


def _capital(line: str) -> str:
    return escape(line[:1].upper() + line[1:])
