"""PointForm: one point of a study's space, chosen knob by knob."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import ipywidgets as W

from glmlab.dimension import Dimension, Value
from glmlab.knobs import KnobSpace, Params, word
from glmlab.widgets.look import look
from glmlab.widgets.style import html

_MOST_LISTED = 64


class PointForm(W.VBox):
    """A field for each knob of a space."""

    def __init__(self) -> None:
        self._fields: dict[str, Any] = {}
        self._space: KnobSpace | None = None
        self._shown: tuple[Any, ...] | None = None
        self._empty = html("<span class='glmlab-dim'>No study yet: there is no space to choose from.</span>")
        super().__init__([self._empty])

    def offer(self, space: KnobSpace, begin: Mapping[str, Value]) -> None:
        """Offer the points of a space; what was chosen before stays where it can."""
        state = (space.fingerprint, tuple(begin.items()))
        if state == self._shown:
            return
        chosen = {**begin, **self.point} if self._shown and self._shown[0] == state[0] else dict(begin)
        self._shown, self._space = state, space
        self._fields = {d.name: _field(d, chosen.get(d.name)) for d in space}
        self.children = (W.Box([*self._fields.values()], layout=look(flex_flow="row wrap")),)

    @property
    def point(self) -> Params:
        """What is chosen, without knobs whose conditions do not hold."""
        chosen = {name: field.value for name, field in self._fields.items()}
        return chosen if self._space is None else self._space.active(chosen)

    @property
    def fields(self) -> dict[str, Any]:
        """Knob -> its field."""
        return dict(self._fields)


def _field(dimension: Dimension, value: Value) -> Any:
    known = dimension.knob
    shared: dict[str, Any] = {
        "description": dimension.name,
        "tooltip": f"{known.help} ({known.reach})",
        "style": {"description_width": "initial"},
        "layout": look(width="auto", min_width="14em", margin="2px 1em 2px 0"),
    }
    if dimension.count <= _MOST_LISTED:
        options = [(word(each), each) for each in dimension.points()]
        # By place, since True equals 1.
        places = [
            at
            for at, (_, each) in enumerate(options)
            if each is value or (type(each), each) == (type(value), value)
        ]
        return W.Dropdown(options=options, index=places[0] if places else 0, **shared)
    return W.BoundedIntText(
        value if isinstance(value, int) and value in dimension else dimension.low,
        min=dimension.low,
        max=dimension.high,
        step=dimension.step,
        continuous_update=False,
        **shared,
    )
