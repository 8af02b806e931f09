"""What a report must not do to texts: lose letters, or tell secrets."""

from __future__ import annotations

import csv
import math
from html import escape

from glmlab.errors import MeasureError
from glmlab.report import write_report
from glmlab.report.material import Material
from glmlab.report.trials import trials_csv
from tests.doubles import scripted_start
from tests.studies import LIVE, RECIPE, run, split_helps

SECRET = "hf_abc<DEF>ghi"


def test_the_csv_keeps_every_letter_of_a_reason(url):
    reason = "maintenance of nanobind; the value is nan"
    study = run(url, scripted_start(split_helps, measure_fails={2: MeasureError(reason)}), space=LIVE)
    first, failed = csv.DictReader(trials_csv(Material.read(study.store)).splitlines())
    assert failed["reason"] == reason
    assert failed["tpot_ms"] == ""
    assert math.isfinite(float(first["tpot_ms"]))


def test_no_secret_of_the_environment_is_in_it(url, tmp_path):
    recipe = {**RECIPE, "env": {"HF_TOKEN": SECRET, "VLLM_USE_KEYED_CACHE": "harmless", "MY_PWD": "1"}}
    study = run(url, scripted_start(split_helps), space=LIVE, recipe=recipe)
    page = write_report(study.store, tmp_path / "report.html").read_text(encoding="utf-8")
    assert SECRET not in page
    assert escape(SECRET) not in page
    assert "HF_TOKEN: ***" in page
    assert "harmless" in page
    assert "put them back before it is served" in page


def test_a_recipe_without_secrets_hides_nothing(url):
    study = run(url, scripted_start(split_helps), recipe={**RECIPE, "env": {"A": "b" * 9}})
    assert Material.read(study.store).secrets == []
