"""WorkloadForm: contexts, batch sizes and output tokens of what is measured; refused beside the field."""

from __future__ import annotations

from html import escape
from typing import Any

import ipywidgets as W

from glmlab.errors import InputError, WorkloadError
from glmlab.widgets.field_values import whole_numbers
from glmlab.widgets.look import look
from glmlab.widgets.style import framed, html
from glmlab.workload import Workload

_FIELDS = {
    "contexts": ("Contexts", "420px", "Prompt lengths in tokens, with commas between: each is measured"),
    "batch_sizes": (
        "Batch sizes",
        "240px",
        "Requests that are sent together, with commas between: each is measured",
    ),
    "new_tokens": ("Output tokens", "200px", "Tokens that each request makes; 2 or more"),
}


class WorkloadForm(W.VBox):
    """Three fields, and what is wrong with them.

    Parameters
    ----------
    workload : Workload
        What they hold at first. What the fields do not show, such as its seed, stays.
    """

    def __init__(self, workload: Workload) -> None:
        self._workload = workload
        self._showing = False
        self._refusal = html()
        self.fields = {
            name: W.Text(
                description=words,
                tooltip=tooltip,
                continuous_update=False,
                style={"description_width": "100px"},
                layout=look(width=width, max_width="100%"),
            )
            for name, (words, width, tooltip) in _FIELDS.items()
        }
        row = W.HBox(list(self.fields.values()), layout=look(flex_flow="row wrap"))
        super().__init__([row, self._refusal])
        self.show_workload(workload)
        for field in self.fields.values():
            field.observe(self._entered, names="value")

    @property
    def workload(self) -> Workload:
        """What the fields hold.

        Raises
        ------
        InputError
            If that cannot be.
        """
        changes: dict[str, Any] = {
            name: whole_numbers(name, field.value) for name, field in self.fields.items()
        }
        kept = {key: value for key, value in self._workload.model_dump().items() if key not in changes}
        kept["weights"] = {c: w for c, w in self._workload.weights.items() if c in changes["contexts"]}
        if len(changes["new_tokens"]) != 1:
            typed = self.fields["new_tokens"].value
            raise WorkloadError(f"new_tokens = {typed!r}: expected one whole number, 2 or more")
        [changes["new_tokens"]] = changes["new_tokens"]
        try:
            return Workload.parse({**kept, **changes})
        except WorkloadError:
            if kept.pop("most_tokens", None) is None:
                raise
            # A limit of other points, and no field here to lift it.
            return Workload.parse({**kept, **changes})

    def show_workload(self, workload: Workload) -> None:
        """Put a workload into the fields."""
        self._workload = workload
        self._showing = True
        try:
            self.fields["contexts"].value = ", ".join(map(str, workload.contexts))
            self.fields["batch_sizes"].value = ", ".join(map(str, workload.batch_sizes))
            self.fields["new_tokens"].value = str(workload.new_tokens)
        finally:
            self._showing = False
        self._say("")

    def _entered(self, _: Any) -> None:
        if self._showing:
            return
        try:
            _ = self.workload
        except InputError as error:
            self._say(str(error))
        else:
            self._say("")

    def _say(self, refusal: str) -> None:
        text = f'<div class="glmlab-card glmlab-error" role="alert">Not valid: {escape(refusal)}</div>'
        self._refusal.value = framed(text if refusal else "")
