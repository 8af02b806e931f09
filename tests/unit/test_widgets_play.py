"""Play: changes and comparisons, driven as a user drives them."""

from __future__ import annotations

from typing import Any

import ipywidgets
from ipywidgets.widgets.widget import _instances

from glmlab.engines.base import KnobStatus
from glmlab.errors import EngineStartError, MeasureError
from glmlab.widgets.look import is_shown
from glmlab.widgets.setup import Setup
from tests.doubles import scripted_start
from tests.plays import RECIPE, RECORDING, Starts, apply, bench_is_shown, line, start


# ---------------------------------------------------------------------------------------- playing
def test_before_anything_runs_there_is_a_start_button_and_no_empty_frame(make_play):
    play = make_play(Starts())
    assert play.engine.start.description == "Start engine"
    assert play.engine.stop.disabled
    assert not bench_is_shown(play)
    assert not is_shown(play._shown)
    assert "No engine" in line(play)
    assert "<code>unit</code>" in line(play)


def test_a_started_engine_is_measured_as_it_is(play):
    assert play.status.state == "ready"
    assert play.engine.start.description == "Engine runs"
    assert not play.engine.stop.disabled
    assert [(each.number, each.report) for each in play.rounds] == [(1, None)]
    assert play.rounds[0].workload.contexts == (256, 1024), "contexts that fit max_model_len"
    assert bench_is_shown(play)
    assert is_shown(play._shown)


def test_controls_are_those_that_the_engine_can_change_with_what_it_allows(play):
    shown = {name: row for name, row in play._rows.items() if is_shown(row)}
    limits = ["max_num_seqs", "max_num_batched_tokens", "long_prefill_token_threshold"]
    assert list(shown) == ["cpu_split_kv", "cpu_attn_isa", *limits]
    assert shown["cpu_split_kv"].choice.options == (("true", True), ("false", False))
    assert not is_shown(shown["cpu_split_kv"].entry)
    assert not is_shown(shown["max_num_seqs"].choice)
    assert shown["max_num_seqs"].entry.value == "8"
    assert "1 to 8" in shown["max_num_seqs"]._about.value


def test_what_cannot_be_changed_is_listed_with_the_reason(make_play):
    live = {"kv_splits": KnobStatus(live=False, why="CPU_ATTN has <no> splits")}
    play = make_play(Starts(scripted_start(live=live)))
    start(play)
    assert not is_shown(play._rows["kv_splits"])
    assert "<code>kv_splits</code>: CPU_ATTN has &lt;no&gt; splits" in play._fixed.value


def test_a_change_is_applied_measured_and_compared_with_the_former_value(play):
    apply(play, cpu_split_kv=False)
    first, second = play.rounds
    assert second.report.changed == {"cpu_split_kv": (True, False)}
    assert second.same_tokens == 1.0
    said = play._result.value
    for part in (
        "cpu_split_kv true → false",
        "10 ms before, 8 ms (× 0.8)",
        "KV kept",
        "100.0% of the tokens",
    ):
        assert part in said
    assert "simulated" in said
    data = play._chart.data
    assert data.labels == ("#1 cpu_split_kv true", "#2 cpu_split_kv false")
    assert {spread.value for spread in data.points[1].values()} == {8.0}
    assert "cpu_split_kv true → false" in play._history.value
    assert "as started: unit" in play._history.value
    assert first.values["cpu_split_kv"] is True


def test_the_former_values_can_be_chosen_again(play):
    apply(play, cpu_split_kv=False, max_num_seqs="4")
    play.back.click()
    assert play._rows["cpu_split_kv"].choice.value is True
    assert play._rows["max_num_seqs"].entry.value == "8"
    assert len(play.rounds) == 2, "choosing is not applying"
    apply(play)
    assert play.rounds[-1].values == play.rounds[0].values


def test_with_nothing_changed_it_is_measured_again(play):
    apply(play)
    assert [each.report for each in play.rounds] == [None, None]
    assert "nothing changed" in play._result.value


def test_another_workload_is_measured(play):
    play.workload.fields["contexts"].value = "64, 128"
    play.workload.fields["batch_sizes"].value = "1,2"
    apply(play)
    assert play.rounds[-1].workload.points == ((64, 1), (64, 2), (128, 1), (128, 2))
    assert play.rounds[-1].same_tokens is None, "no point in common"
    assert "of the tokens" not in play._result.value


def test_a_recording_is_played_with_its_own_recipe_and_contexts(make_play):
    play = make_play(place=RECORDING)
    assert "glm-4.7-tp4" in line(play)
    start(play)
    assert play.rounds[0].measurement.evidence == "replayed"
    assert [name for name, row in play._rows.items() if is_shown(row)] == ["kv_splits"]
    apply(play, kv_splits=64)
    assert play._rows["kv_splits"].status.value == 64
    assert "kv_splits 16 → 64" in play._result.value
    assert "(replayed)" in play._result.value
    assert play._chart.data.metric == "device_ms"
    assert "(replayed)" in line(play)
    assert not is_shown(play.engine.log_button), "nothing is logged"


def test_the_place_can_be_chosen_while_nothing_runs(make_play):
    starts = Starts()
    play = make_play(starts)
    play.engine.place.value = RECORDING
    assert "150000" in play.workload.fields["contexts"].value
    play.engine.place.value = "kernel"
    assert play.workload.fields["contexts"].value == "256, 1024"
    start(play)
    assert starts.places == ["kernel"]
    assert play.engine.place.disabled


def test_the_recipe_is_asked_for_at_each_start(make_play):
    recipes = [RECIPE]
    play = make_play(Starts(), recipe=lambda: recipes[-1])
    recipes.append(RECIPE.replace(name="other", max_num_seqs=4))
    start(play)
    assert play.rounds[0].recipe.name == "other"


# ---------------------------------------------------------------------------------------- refusals
def test_a_value_that_the_engine_refuses_is_told_and_it_serves_on(play):
    apply(play, max_num_seqs="99")
    assert play.notice.text == "max_num_seqs = 99: this engine allows 1 to 8"
    assert play.status.state == "ready"
    assert "still serves" in line(play)
    assert play._rows["max_num_seqs"].entry.value == "99", "what was typed stays to be mended"
    assert len(play.rounds) == 1
    apply(play, max_num_seqs="4")
    assert play.notice.text == ""
    assert play.rounds[-1].values["max_num_seqs"] == 4


def test_what_is_no_value_is_refused_before_the_engine_is_asked(play):
    apply(play, max_num_seqs="four", max_num_batched_tokens="")
    assert "max_num_seqs = 'four': expected a whole number; this engine takes 1 to 8" in play.notice.text
    assert "max_num_batched_tokens: is empty" in play.notice.text
    assert play.player._engine._script.applied == []


def test_a_workload_that_cannot_be_is_refused_beside_it_and_on_the_button(play):
    play.workload.fields["contexts"].value = "many"
    assert "contexts = &#x27;many&#x27;: expected whole numbers" in play.workload._refusal.value
    apply(play, cpu_split_kv=False)
    assert "expected whole numbers" in play.notice.text
    assert len(play.rounds) == 1
    play.workload.fields["contexts"].value = "64"
    assert play.workload._refusal.value == ""
    play.workload.fields["new_tokens"].value = "8, 16"
    assert "expected one whole number" in play.workload._refusal.value


def test_a_change_that_is_made_but_cannot_be_measured_is_shown_as_made(make_play):
    starts = Starts(scripted_start(measure_fails={2: MeasureError("workload: needs 2000 tokens")}))
    play = make_play(starts)
    start(play)
    apply(play, cpu_split_kv=False)
    assert play.notice.text == "workload: needs 2000 tokens"
    assert play.status.state == "ready"
    assert play._rows["cpu_split_kv"].status.value is False
    assert len(play.rounds) == 1


def test_what_nobody_foresaw_is_shown_with_its_traceback(make_play, caplog):
    play = make_play(Starts(scripted_start(measure_fails={1: ZeroDivisionError("in the engine")})))
    start(play)
    assert "ZeroDivisionError: in the engine" in play.notice.text
    assert play.status.state == "ready"


# ---------------------------------------------------------------------------------------- for the others
def test_others_learn_what_the_engine_can_change(make_play):
    told: list[Any] = []
    play = make_play(Starts())
    play.on_engine(told.append)
    start(play)
    assert told[-1]["max_num_seqs"].high == 8
    apply(play, max_num_seqs="4")
    assert told[-1]["max_num_seqs"].value == 4
    play.close_engine()
    play.wait()
    assert told[-1] is None


def test_a_setup_is_locked_while_an_engine_runs(make_play):
    setup = Setup(RECIPE)
    try:
        play = make_play(Starts(), recipe=lambda: setup.recipe)
        play.on_engine(setup.lock)
        start(play)
        assert setup.form.row("block_size").control.disabled
        assert not setup.form.row("max_num_seqs").control.disabled
        play.close_engine()
        play.wait()
        assert not setup.form.row("block_size").control.disabled
    finally:
        setup.close()


def test_no_widget_is_made_in_the_background(make_play):
    play = make_play(Starts())
    before = len(_instances)
    start(play)
    apply(play, cpu_split_kv=False)
    apply(play, max_num_seqs="99")
    assert len(_instances) == before


def test_every_control_has_a_description_and_a_tooltip(play):
    def controls(widget: Any) -> list[Any]:
        kinds = (ipywidgets.Button, ipywidgets.ToggleButton, ipywidgets.Text, ipywidgets.Dropdown)
        found = [widget] if isinstance(widget, kinds) else []
        return found + [each for child in getattr(widget, "children", ()) for each in controls(child)]

    found = controls(play)
    assert len(found) > 10
    assert [each for each in found if not (each.description and each.tooltip)] == []


def test_values_of_an_engine_are_escaped(make_play):
    live = {"cpu_attn_isa": KnobStatus(live=True, values=("vec", "<script>"))}
    play = make_play(Starts(scripted_start(live=live)))
    start(play)
    apply(play, cpu_attn_isa="<script>")
    shown = play._result.value + play._history.value + play._rows["cpu_attn_isa"]._about.value
    assert "&lt;script&gt;" in shown
    assert "<script>" not in shown


def test_a_start_that_fails_in_vllm_keeps_the_words_of_the_error(make_play):
    def fail(handle):
        raise EngineStartError("start: out of memory", log_tail="CUDA <oom>")

    play = make_play(Starts(during={"start": fail}))
    start(play)
    assert play.notice.text == "start: out of memory"
    assert "CUDA &lt;oom&gt;" in play.notice._area.value
