"""WorkloadForm: what its three fields say, and what of a workload has no field and stays."""

from __future__ import annotations

from glmlab.widgets.workload_form import WorkloadForm
from glmlab.workload import Workload

SHOWN = Workload(
    contexts=(64, 256),
    batch_sizes=(1, 8),
    new_tokens=16,
    seed=7,
    weights={64: 0.5, 256: 2.0},
    most_tokens=700,
)


def test_what_was_shown_is_what_comes_back() -> None:
    assert WorkloadForm(SHOWN).workload == SHOWN


def test_what_has_no_field_stays_as_far_as_it_is_about_the_same_points() -> None:
    form = WorkloadForm(SHOWN)
    form.fields["new_tokens"].value = "8"
    assert form.workload == SHOWN.model_copy(update={"new_tokens": 8})
    form.fields["contexts"].value = "64, 1024"
    assert form.workload.seed == 7
    assert form.workload.weights == {64: 0.5}
    assert form.workload.most_tokens is None, "or 1024 would be refused, and nothing here could lift it"
    assert form.workload.points == ((64, 1), (64, 8), (1024, 1), (1024, 8))
    form.show_workload(SHOWN)
    form.fields["new_tokens"].value = "32"
    assert form.workload.most_tokens is None, "8 x (64 + 32) are more than it allows"
    form.show_workload(SHOWN)
    form.fields["batch_sizes"].value = "8, 1"
    assert form.workload.most_tokens == 700


def test_a_refusal_stands_below_the_fields_and_goes() -> None:
    form = WorkloadForm(SHOWN)
    form.fields["batch_sizes"].value = "0"
    assert "batch_sizes.0 = 0" in form._refusal.value
    form.fields["batch_sizes"].value = "2"
    assert form._refusal.value == ""
