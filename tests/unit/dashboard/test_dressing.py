"""What glmlab puts into a study for optuna-dashboard."""

from __future__ import annotations

import json

from optuna_dashboard import get_note, save_note
from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

from glmlab.dashboard import dress
from glmlab.dashboard.note import BEGIN
from glmlab.export import export_bundle
from glmlab.figures import draw_rounds, rounds_data
from glmlab.storage import StudyStore
from glmlab.study_lock import study_lock
from glmlab.study_spec import Budget
from tests.dashboards import attributes, recipe_in
from tests.doubles import scripted_start
from tests.studies import LIVE, TWO_PLANS, proposals, run, split_helps


def test_a_study_gets_note_charts_and_recipe(study, tmp_path):
    done = dress(study.store)
    assert (done.note, done.recipe) == (True, True)
    note = get_note(study.store.optuna_study)
    verdict = study.summary().verdict
    assert f"{verdict.ratio:.3f} times the baseline" in note
    assert "+cpu\\_split" not in note
    assert "+cpu_split_kv: false" in note
    assert f"glmlab export unit unit-bundle --storage {study.storage}" in note
    charts = get_plotly_graph_objects(attributes(study.store))
    assert set(charts) == {f"glmlab-{key}" for key in done.charts} >= {"glmlab-history", "glmlab-rounds"}
    drawn = json.loads(charts["glmlab-rounds"])
    visits = study.store.visits(study.summary().best.trial)
    wanted = json.loads(draw_rounds(rounds_data(visits, verdict, study.spec)).to_json())
    assert drawn["data"] == wanted["data"]
    export_bundle(study.store, tmp_path / "bundle")
    assert recipe_in(study.store) == ("recipe.yaml", (tmp_path / "bundle" / "recipe.yaml").read_bytes())


def test_dressing_again_writes_nothing(study):
    dress(study.store)
    before = attributes(study.store)
    again = dress(StudyStore.load("unit", study.storage))
    assert (again.note, again.charts, again.recipe) == (False, (), False)
    assert attributes(study.store) == before


def test_a_chart_that_outgrew_the_dashboard_says_so_in_place_of_the_former(study, monkeypatch):
    dress(study.store)
    monkeypatch.setattr("glmlab.dashboard.dressing._MOST_CHART", 100)
    assert "history" in dress(study.store).charts
    drawn = get_plotly_graph_objects(attributes(study.store))["glmlab-history"]
    assert json.loads(drawn)["data"] == []
    assert "glmlab report" in drawn


def test_a_note_of_ones_own_stays_wherever_it_stands(study):
    save_note(study.store.optuna_study, "bought in May")
    dress(study.store)
    note = get_note(study.store.optuna_study)
    assert note.rstrip().endswith("bought in May")
    save_note(study.store.optuna_study, f"on top\n\n{note.replace('As of 2 trials', 'changed by hand')}")
    assert dress(study.store).note
    again = get_note(study.store.optuna_study)
    assert again.startswith("on top")
    assert again.rstrip().endswith("bought in May")
    assert again.count(BEGIN) == 1
    assert "changed by hand" not in again


def test_the_recipe_of_an_unfinished_study_is_the_baseline_and_is_replaced_in_place(url):
    calls = iter(range(100))
    script = scripted_start(split_helps)
    study = run(url, script, stop=lambda: next(calls) >= 2, space=LIVE)
    dress(study.store)
    first = recipe_in(study.store)[1].decode()
    assert first.startswith("# The baseline: nothing is confirmed yet")
    assert "cpu_split_kv: true" in first
    study.run()
    assert dress(study.store).recipe
    assert "cpu_split_kv: false" in recipe_in(study.store)[1].decode()


def test_nothing_of_the_studys_own_is_touched_and_it_goes_on(url):
    study = run(url, scripted_start(split_helps), Budget(trials=2), space=TWO_PLANS)
    before = dict(study.store.optuna_study.user_attrs)
    dress(study.store)
    assert dict(study.store.optuna_study.user_attrs) == before
    study.run(budget=Budget(trials=4))
    assert len(study.records()) == 4


def test_a_study_that_runs_meanwhile_proposes_and_finds_the_same(tmp_path):
    url, other = (f"sqlite:///{tmp_path}/{name}.db" for name in ("dressed", "plain"))
    dressings = []

    def stop() -> bool:
        store = StudyStore.open("unit", url)
        if store is not None:
            dressings.append(dress(store).stage[0])  # as a dashboard of another process does
        return False

    dressed = run(url, scripted_start(split_helps), stop=stop, space=TWO_PLANS)
    plain = run(other, scripted_start(split_helps), space=TWO_PLANS)
    assert {1, 2, 3} <= set(dressings)
    assert proposals(dressed) == proposals(plain)
    assert dressed.summary().verdict == plain.summary().verdict


def test_the_lock_of_a_run_is_not_asked_for(study):
    with study_lock("unit", study.storage):
        assert dress(study.store).note
