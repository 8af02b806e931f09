"""The page: its parts in their order, in one file that loads nothing."""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
from importlib.resources import files

import glmlab
from glmlab.report.changes import changes, production
from glmlab.report.charts import Chart, charts_of
from glmlab.report.elements import Child, Html, fragment, hide, section, tag
from glmlab.report.ledger import ledger
from glmlab.report.material import Material
from glmlab.report.origin import limits, origin
from glmlab.report.predicted import is_predicted, predicted
from glmlab.report.sureness import sureness
from glmlab.report.trials import failures, trials, trials_csv
from glmlab.report.verdict import say, top
from glmlab.study_lock import is_held

GENERATOR = "glmlab report"
_MOST_CHART = 700_000  # characters of one packed chart
_MOST_CSV = 900_000
_SEARCH = ("history", "context", "heatmap", "parallel", "pareto")


def page(material: Material, most_rows: int) -> str:
    """A whole report.

    Parameters
    ----------
    material : Material
        The study.
    most_rows : int
        Of the table that stands under each chart.
    """
    charts = charts_of(material)
    packed = {key: _pack(chart.as_json()) for key, chart in charts.items()}
    shown = {
        key: chart.html(most_rows) if len(packed[key]) <= _MOST_CHART else _too_large(chart)
        for key, chart in charts.items()
    }
    parts: list[Html | None] = [
        top(material),
        changes(material),
        sureness(material, shown.get("rounds")),
        production(material),
        predicted(material),
        _search(shown),
        trials(material),
        failures(material),
        ledger(material, shown.get("cost")),
        limits(material),
        origin(material),
    ]
    body = fragment(
        _header(material),
        tag("main", *(part for part in parts if part is not None)),
        tag("footer", f"Written by glmlab {glmlab.__version__}. One file: it loads and sends nothing."),
        *(_blob(f"chart-data-{key}", data) for key, data in packed.items() if len(data) <= _MOST_CHART),
        _csv(material),
        _blob("plotly", _packed_plotly()),
    )
    return hide(_document(material, body), material.secrets)


def _document(material: Material, body: Html) -> str:
    style, script = _asset("report.css"), _asset("report.js")
    # Nothing may be loaded and no other script may run, whatever found its way into the study. The
    # parallel coordinates compile their shaders' inputs at run time, hence unsafe-eval.
    policy = (
        "default-src 'none'; base-uri 'none'; form-action 'none'; img-src data: blob:;"
        " style-src 'unsafe-inline';"
        f" script-src 'unsafe-eval' '{_hash(script)}' '{_hash(_plotly())}'"
    )
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=policy),
        tag("meta", name="generator", content=f"{GENERATOR} {glmlab.__version__}"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="description", content=say(material).sentence),
        tag("title", f"{material.store.name}: {say(material).badge}"),
        tag("style", Html(style)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', body, _script(script)), lang='en')}\n"


def _header(material: Material) -> Html:
    when = material.created.strftime("%Y-%m-%d %H:%M UTC")
    links = [
        ("changes", "what changed"),
        ("sure", "how sure"),
        ("production", "to production"),
        ("predicted", "predicted"),
        ("search", "charts"),
        ("trials", "trials"),
        ("cost", "cost"),
        ("limits", "limits"),
        ("origin", "where and with what"),
    ]
    has = {
        "changes": material.best is not None,
        "sure": bool(material.rounds),
        "predicted": is_predicted(material),
        "search": bool(material.records),
    }
    running = is_held(material.store.name, material.store.url)
    return tag(
        "header",
        tag("p", f"glmlab report, {when}", class_="quiet"),
        tag("h1", "Study ", material.store.name),
        tag(
            "p",
            f"A run holds this study just now: this is how it stood at {when}, after"
            f" {len(material.records)} trials.",
            class_="caution",
        )
        if running
        else None,
        tag(
            "nav",
            *(tag("a", name, href=f"#{key}") for key, name in links if has.get(key, True)),
            aria_label="parts of this report",
        ),
    )


def _search(shown: dict[str, Html]) -> Html | None:
    found: list[Child] = [shown[key] for key in _SEARCH if key in shown]
    return section("search", "What the search saw", *found) if found else None


def _too_large(chart: Chart) -> Html:
    return tag(
        "p",
        f"{chart.data.title}: more points than a page should carry; the trials are in the CSV file.",
        class_="quiet",
    )


def _csv(material: Material) -> Html | None:
    packed = _pack(trials_csv(material))
    return _blob("trials-csv", packed) if len(packed) <= _MOST_CSV else None


def _blob(identity: str, packed: str) -> Html:
    """Data that no browser looks at until the script does."""
    return tag("script", Html(packed), type="application/gzip", id=identity)


def _script(content: str) -> Html:
    return tag("script", Html(content))


def _pack(content: str) -> str:
    """Base64 of gzip: a tenth of the size, and nothing in it can end the element that holds it."""
    return base64.b64encode(gzip.compress(content.encode(), compresslevel=9, mtime=0)).decode()


def _hash(script: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


@functools.cache
def _asset(name: str) -> str:
    return files("glmlab.report").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _plotly() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


@functools.cache
def _packed_plotly() -> str:
    return _pack(_plotly())
