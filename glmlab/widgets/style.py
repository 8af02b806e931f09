"""How the widgets look: one stylesheet, in the colours that the notebook's theme sets, light or dark.

Colour never stands alone: what is coloured has its word, and each part of a bar its pattern and its key.
"""

from __future__ import annotations

import re
from html import escape

import ipywidgets as W

from glmlab.widgets.look import look, shared, style_of

# Where a front end has no such variable, what follows it counts; currentColor is readable on any ground.
_CSS = """
.glmlab { color: var(--jp-ui-font-color1, inherit); line-height: 1.45; }
.glmlab-gone { display: none !important; }
.glmlab-html { min-width: 0; }
.glmlab-html .widget-html-content { line-height: 1.45; white-space: normal; overflow-wrap: anywhere; }
.glmlab p, .glmlab ul { margin: 2px 0; }
.glmlab ul { padding-left: 1.4em; }
.glmlab code { background: var(--jp-layout-color2, transparent); padding: 0 3px; white-space: pre-wrap; }
.glmlab pre {
  background: var(--jp-layout-color2, transparent); color: inherit; margin: 4px 0; padding: 6px 8px;
  overflow: auto; max-height: 16em; font-size: var(--jp-code-font-size, 12px); line-height: 1.35;
  white-space: pre-wrap;
}
.glmlab-log { display: flex; flex-direction: column-reverse; max-height: 16em; overflow: auto; }
.glmlab .glmlab-log pre { max-height: none; overflow: visible; margin: 0; }
.glmlab-dim { color: var(--jp-ui-font-color2, inherit); }
.glmlab-badge {
  border: 1px solid var(--jp-border-color1, currentColor); border-radius: 3px; padding: 0 5px;
  white-space: nowrap; font-size: 90%;
}
.glmlab-live { border-color: var(--jp-success-color1, currentColor); border-width: 2px; }
.glmlab-card {
  border-left: 4px solid var(--jp-border-color1, currentColor); padding: 1px 0 1px 9px; margin: 3px 0;
}
.glmlab-blocks, .glmlab-error { border-left-color: var(--jp-error-color1, currentColor); }
.glmlab-warns { border-left-color: var(--jp-warn-color1, currentColor); border-left-style: double; }
.glmlab-notes { border-left-color: var(--jp-info-color1, currentColor); border-left-style: dotted; }
.glmlab-good { border-left-color: var(--jp-success-color1, currentColor); }
.glmlab table { border-collapse: collapse; margin: 4px 0; font-size: inherit; }
.glmlab th, .glmlab td {
  text-align: left; padding: 2px 9px 2px 0; vertical-align: top; white-space: normal;
  border-bottom: 1px solid var(--jp-border-color2, transparent);
}
.glmlab td.glmlab-number, .glmlab th.glmlab-number { text-align: right; white-space: nowrap; }
.glmlab-scroll { overflow-x: auto; max-width: 100%; }
.glmlab-bars { display: grid; grid-template-columns: max-content 1fr; gap: 4px 9px; align-items: center; }
.glmlab-bar {
  display: flex; height: 18px; border: 1px solid var(--jp-border-color1, currentColor);
  overflow: hidden;
}
.glmlab-bar > span, .glmlab-key { box-sizing: border-box; }
.glmlab-key {
  display: inline-block; width: 22px; height: 12px; vertical-align: -1px; margin-right: 4px;
  border: 1px solid var(--jp-border-color1, currentColor);
}
.glmlab-weights { background: var(--jp-brand-color1, #1976d2); }
.glmlab-kv {
  background: repeating-linear-gradient(45deg, var(--jp-success-color1, #388e3c) 0 5px, transparent 5px 8px);
}
.glmlab-rest {
  background: repeating-linear-gradient(90deg, var(--jp-ui-font-color2, #757575) 0 2px, transparent 2px 5px);
}
.glmlab-over {
  background: repeating-linear-gradient(-45deg, var(--jp-error-color1, #d32f2f) 0 4px, transparent 4px 6px);
}
.glmlab-free { background: transparent; }
.glmlab-legend { display: flex; flex-wrap: wrap; gap: 2px 16px; margin: 3px 0; }
.glmlab-section > .jupyter-button, .glmlab-section > button { text-align: left; font-weight: 600; }
.glmlab-wrap.jupyter-button, .glmlab-wrap > button {
  white-space: normal; height: auto; min-height: 28px; line-height: 1.3; padding: 4px 10px;
  text-align: left;
}
.glmlab-field { border-bottom: 1px solid var(--jp-border-color2, transparent); padding: 4px 0; }
.glmlab-title { font-weight: 600; margin: 6px 0 2px; }
"""

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
LABEL_WIDTH = "215px"  # of the longest recipe field


def stylesheet() -> W.HTML:
    """The rules as a widget without extent; a composite has it among its children, once or more."""
    return shared(W.HTML, value=f"<style>{_CSS}</style>", layout=look(display="none"), style=style_of(W.HTML))


def html(text: str = "", **layout: str) -> W.HTML:
    """A widget for ready HTML, in the look of the others; wraps and shrinks with its box.

    Parameters
    ----------
    text : str
        HTML, every value in it escaped.
    **layout
        Of :class:`ipywidgets.Layout`.
    """
    return W.HTML(
        framed(text),
        layout=look(margin="0", **layout),
        style=style_of(W.HTML),
        _dom_classes=("glmlab-html",),
    )


def framed(text: str) -> str:
    """HTML in the frame that the stylesheet speaks of; empty stays empty."""
    return f'<div class="glmlab">{text}</div>' if text else ""


def title(text: str, level: int = 3) -> W.HTML:
    """A heading that screen readers can jump to.

    Parameters
    ----------
    text : str
        Plain text.
    level : int
        1 to 6.
    """
    return html(f'<div class="glmlab-title" role="heading" aria-level="{level}">{escape(text)}</div>')


def log_html(text: str) -> str:
    """The end of a log as it reads, without the codes that colour it in a terminal."""
    return f'<div class="glmlab-log"><pre>{escape(_ANSI.sub("", text))}</pre></div>'


def action(words: str, icon: str, tooltip: str = "", *, margin: str = "2px 0 4px") -> W.Button:
    """A button that is as wide as its words, and breaks them where they are too long.

    Parameters
    ----------
    words : str
        What it does.
    icon : str
        A name of Font Awesome.
    tooltip : str
        What it does, in a sentence.
    margin : str
        Around it, as CSS has it.
    """
    return W.Button(
        description=words,
        icon=icon,
        tooltip=tooltip,
        layout=look(width="auto", max_width="100%", flex="0 1 auto", align_self="flex-start", margin=margin),
        style=style_of(W.Button),
        _dom_classes=("glmlab-wrap",),
    )
