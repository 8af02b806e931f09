"""The command line: a front door, without logic of its own."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from glmlab import __version__, render
from glmlab.errors import EngineError, GlmlabError, InputError

app = typer.Typer(
    name="glmlab",
    help="Tune a GLM model on your own GPUs without restarting the engine.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
Storage = Annotated[str, typer.Option(envvar="GLMLAB_STORAGE", help="Optuna storage URL, or journal://FILE.")]
_STORAGE = "sqlite:///glmlab.db"
Contexts = Annotated[str, typer.Option(help="Tokens of a sequence, with commas between.")]
BatchSizes = Annotated[str, typer.Option(help="Sequences decoded together, with commas between.")]
AllReducesOf = Annotated[
    str | None, typer.Option(help="A study on such GPUs, whose measured all-reduces are taken.")
]
Together = Annotated[bool, typer.Option("--together", help="All sequences start at once, as a study's do.")]
_CONTEXTS = "256,4096,16384,150000"


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
    _debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks.")] = False,  # see main
) -> None:
    if version:
        typer.echo(f"glmlab {__version__}")
        raise typer.Exit


@app.command()
def doctor(
    as_json: Json = False,
    engine: Annotated[
        bool, typer.Option(help="Ask the installed vLLM what can be live (takes some seconds).")
    ] = True,
) -> None:
    """Say what this machine is, what can be live on it, and what is wrong with it."""
    from glmlab.diagnosis import doctor as diagnose

    diagnosis = diagnose(probe_engine=engine)
    _show(diagnosis.to_json() if as_json else render.diagnosis(diagnosis))
    if any(finding.severity == "blocks" for finding in diagnosis.findings):
        raise typer.Exit(1)


@app.command()
def models(
    name: Annotated[str | None, typer.Argument(help="A model's name, or its folder.")] = None,
    as_json: Json = False,
) -> None:
    """List the models of the catalog, or show one, computed from its config.json."""
    from glmlab.catalog import find_model, list_models
    from glmlab.tables.models import model_in_full, models_table

    if name is None:
        found = [find_model(known) for known in list_models()]
        _show({"models": [m.to_json() for m in found]} if as_json else models_table(found))
        return
    model = find_model(name)
    _show(model.to_json() if as_json else model_in_full(model))


@app.command()
def gpus(
    name: Annotated[str | None, typer.Argument(help="A GPU's name; all of them without one.")] = None,
    as_json: Json = False,
) -> None:
    """List this machine's GPUs and those of the catalog, or show one with its sources."""
    from glmlab.gpus import find_gpu, list_gpus
    from glmlab.hardware import machine
    from glmlab.tables import gpus as gpu_tables

    if name is not None:
        found = find_gpu(name)
        _show(found.to_json() if as_json else gpu_tables.gpu_in_full(found))
        return
    catalog, host = [find_gpu(known) for known in list_gpus()], machine()
    _show(gpu_tables.gpus_json(catalog, host) if as_json else gpu_tables.gpus_tables(catalog, host))


@app.command()
def fit(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or its file.")],
    gpu: Annotated[str | None, typer.Option(help="A GPU of `glmlab gpus`; this machine's without.")] = None,
    count: Annotated[int | None, typer.Option(help="How many of them.")] = None,
    as_json: Json = False,
) -> None:
    """Say whether a recipe fits a machine's GPUs, what takes the memory, and what would have to change."""
    from glmlab.footprint.tables import fit_table
    from glmlab.footprint.target import fit_target
    from glmlab.memory import fit as fit_recipe
    from glmlab.recipe_book import find_recipe

    asked = find_recipe(recipe)
    found = fit_recipe(asked, *fit_target(asked, gpu, count))
    _show(found.to_json() if as_json else fit_table(found))
    if not found.fits:
        raise typer.Exit(1)


@app.command()
def check(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or its file.")],
    *,
    gpu: Annotated[str | None, typer.Option(help="A GPU of `glmlab gpus`; this machine's without.")] = None,
    count: Annotated[int | None, typer.Option(help="How many of them.")] = None,
    vllm: Annotated[str | None, typer.Option(help="Version of vLLM to check for.")] = None,
    sglang: Annotated[str | None, typer.Option(help="Version of sglang.")] = None,
    flashinfer: Annotated[str | None, typer.Option(help="Version of flashinfer.")] = None,
    transformers: Annotated[str | None, typer.Option(help="Version of transformers.")] = None,
    as_json: Json = False,
) -> None:
    """Say what a recipe will run into on a machine, from rules; nothing is started."""
    from glmlab.recipe_book import find_recipe
    from glmlab.rulebook.target import check_target
    from glmlab.rules import check as check_recipe
    from glmlab.rules import versions_in_force
    from glmlab.tables import rules as rule_tables

    asked = find_recipe(recipe)
    named = {"vllm": vllm, "sglang": sglang, "flashinfer": flashinfer, "transformers": transformers}
    given = {package: version for package, version in named.items() if version is not None}
    target, versions = check_target(asked, gpu, count), versions_in_force(asked, given)
    found = check_recipe(asked, target.gpu, target.count, given)
    show_as = rule_tables.findings_json if as_json else rule_tables.findings_list
    _show(show_as(found, asked, target, versions))
    if found.blocked:
        raise typer.Exit(1)


@app.command()
def predict(
    recipe: Annotated[str, typer.Argument(help="A recipe's name, or its file.")],
    *,
    gpu: Annotated[str | None, typer.Option(help="A GPU of `glmlab gpus`; this machine's without.")] = None,
    count: Annotated[int | None, typer.Option(help="How many of them.")] = None,
    contexts: Contexts = _CONTEXTS,
    batch_sizes: BatchSizes = "1",
    together: Together = False,
    all_reduces_of: AllReducesOf = None,
    storage: Storage = _STORAGE,
    as_json: Json = False,
) -> None:
    """Say how fast a recipe should decode on some GPUs, term by term; computed, with a range."""
    from glmlab.decode.tables import prediction_tables
    from glmlab.footprint.target import fit_target
    from glmlab.plans.measured_elsewhere import all_reduces_for
    from glmlab.predictor import parse_numbers
    from glmlab.predictor import predict as predict_recipe
    from glmlab.recipe_book import find_recipe

    asked = find_recipe(recipe)
    kind, present = fit_target(asked, gpu, count)
    found = predict_recipe(
        asked,
        kind,
        present,
        contexts=parse_numbers("--contexts", contexts),
        batch_sizes=parse_numbers("--batch-sizes", batch_sizes),
        all_reduce=all_reduces_for(asked, all_reduces_of, kind, storage),
        together=together,
    )
    _show(found.to_json() if as_json else prediction_tables(found))


@app.command()
def plan(
    model: Annotated[str, typer.Argument(help="A recipe's name or file, or a model's name or folder.")],
    *,
    gpu: Annotated[str | None, typer.Option(help="A GPU of `glmlab gpus`; this machine's without.")] = None,
    count: Annotated[int | None, typer.Option(help="How many of them.")] = None,
    contexts: Contexts = _CONTEXTS,
    batch_sizes: BatchSizes = "1",
    vllm: Annotated[str | None, typer.Option(help="Version of vLLM to plan for.")] = None,
    study: Annotated[Path | None, typer.Option(help="Write a study of the possible plans, new file.")] = None,
    together: Together = False,
    all_reduces_of: AllReducesOf = None,
    storage: Storage = _STORAGE,
    as_json: Json = False,
) -> None:
    """Rank the ways to spread a model over GPUs, and say why the others are not possible."""
    from glmlab.plans.request import plan_as_asked
    from glmlab.plans.study_file import write_study
    from glmlab.plans.tables import plans_tables

    measured = None if all_reduces_of is None else (all_reduces_of, storage)
    found = plan_as_asked(
        model,
        gpu,
        count,
        contexts=contexts,
        batch_sizes=batch_sizes,
        vllm=vllm,
        all_reduces_from=measured,
        together=together,
    )
    written = None if study is None or not found.possible else str(write_study(found, study))
    _show({**found.to_json(), "study": written} if as_json else plans_tables(found))
    if not found.possible:
        raise typer.Exit(1)
    if written and not as_json:
        typer.echo(f"written: {written}; run it with glmlab tune {written}")


@app.command()
def rules(as_json: Json = False) -> None:
    """List the compatibility rules with their sources."""
    from glmlab.rules import load_rules
    from glmlab.tables.rules import rules_table

    known = load_rules()
    _show({"rules": [rule.to_json() for rule in known]} if as_json else rules_table(known))


@app.command()
def tune(
    study: Annotated[Path, typer.Argument(help="The study file.")],
    storage: Storage = _STORAGE,
    budget: Annotated[
        str | None, typer.Option(help="Trials (50) or time (10m), in place of the file's.")
    ] = None,
    home: Annotated[str | None, typer.Option(help="child or kernel, in place of the file's.")] = None,
    as_json: Json = False,
) -> None:
    """Run a study, or continue it where it was."""
    from glmlab.progress import Lines, automatic
    from glmlab.study import Study
    from glmlab.study_spec import Budget, StudySpec
    from glmlab.units import parse_budget

    spec = StudySpec.load(study)
    if home is not None:
        if home not in ("child", "kernel"):
            raise InputError(f"--home = {home!r}: expected child or kernel")
        spec = spec.with_home(home)
    spent = Budget.model_validate(parse_budget(budget)) if budget is not None else None
    summary = Study(spec, storage).run(budget=spent, progress=Lines() if as_json else automatic())
    _show(summary.to_json() if as_json else render.summary(summary))


@app.command()
def show(
    study: Annotated[str, typer.Argument(help="A study's name, or its file.")],
    storage: Storage = _STORAGE,
    predicted: Annotated[
        bool, typer.Option("--predicted", help="What was predicted of each plan, beside what it gave.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show a study's trials, verdict and cost."""
    from glmlab.plans.beside_measured import beside_measured
    from glmlab.plans.beside_tables import beside_tables
    from glmlab.storage import StudyStore
    from glmlab.study_spec import named_study
    from glmlab.summary import summarize

    store = StudyStore.load(named_study(study), storage)
    if predicted:
        found = beside_measured(store)
        _show(found.to_json() if as_json else beside_tables(found))
        raise typer.Exit(1 if found.missing else 0)
    summary, work = summarize(store), store.parsed_spec.effective_workload
    if as_json:
        _show({**summary.to_json(), "all_trials": [record.to_json(work) for record in store.records()]})
    else:
        _show(render.study(summary, store.records(), work))


@app.command()
def export(
    study: Annotated[str, typer.Argument(help="A study's name, or its file.")],
    directory: Annotated[Path, typer.Argument(help="A new or empty directory.")],
    storage: Storage = _STORAGE,
    as_json: Json = False,
) -> None:
    """Write the tuned configuration with its evidence: what to take to production."""
    from glmlab.export import export_bundle
    from glmlab.storage import StudyStore
    from glmlab.study_spec import named_study

    bundle = export_bundle(StudyStore.load(named_study(study), storage), directory)
    _show(bundle.to_json() if as_json else render.bundle(bundle))


@app.command()
def report(
    study: Annotated[str, typer.Argument(help="A study's name, or its file.")],
    file: Annotated[Path, typer.Argument(help="A new HTML file, or an earlier report.")],
    storage: Storage = _STORAGE,
    as_json: Json = False,
) -> None:
    """Write a study as one HTML file that can be sent to anyone: it loads nothing."""
    from glmlab.report import write_report
    from glmlab.storage import StudyStore
    from glmlab.study_spec import named_study
    from glmlab.summary import summarize

    store = StudyStore.load(named_study(study), storage)
    written, found = write_report(store, file), summarize(store)
    facts: dict[str, Any] = {"study": found.study, "evidence": found.evidence, "headline": found.headline}
    facts |= {"report": str(written.resolve()), "bytes": written.stat().st_size}
    _show(facts if as_json else render.report(written, found))


@app.command()
def dashboard(
    storage: Storage = _STORAGE,
    port: Annotated[
        int | None, typer.Option(help="Of 127.0.0.1; 8080, or the next free one, without.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the studies of a storage in optuna-dashboard, on this machine only, until Ctrl-C."""
    from glmlab.dashboard import Dashboard

    with Dashboard(storage, port) as board:
        _show(board.to_json() if as_json else render.dashboard(board))
        sys.stdout.flush()  # whoever reads a pipe wants to know now
        board.serve()


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def lab(context: typer.Context, as_json: Json = False) -> None:
    """Open JupyterLab at the notebooks, on this machine only; other arguments go to it as they are."""
    from glmlab import notebook_server

    notebook_server.check_arguments(context.args)  # before anything is copied
    found = notebook_server.notebooks()
    command = notebook_server.lab_command(found.folder, context.args)
    _show(notebook_server.to_json(found, command) if as_json else render.notebooks(found))
    notebook_server.become_lab(command)


def _show(what: Any) -> None:
    if isinstance(what, dict):
        typer.echo(json.dumps(what, indent=2))
    else:
        render.to_terminal(what)


def main(arguments: list[str] | None = None) -> None:
    """Entry point of the ``glmlab`` command: 0 good, 1 the answer is no, 2 wrong use."""
    arguments = sys.argv[1:] if arguments is None else arguments
    debug = "--debug" in arguments or bool(os.environ.get("GLMLAB_DEBUG"))
    # Wherever it stands on the line, --debug is ours.
    arguments = [argument for argument in arguments if argument != "--debug"]
    try:
        code = app(arguments, prog_name="glmlab", standalone_mode=False)
    except GlmlabError as error:
        if debug:
            raise
        tail = error.log_tail if isinstance(error, EngineError) else ""
        code = _refuse(str(error), 1 if isinstance(error, EngineError) else 2, tail)
    except KeyboardInterrupt:
        code = _refuse("stopped; the same command continues", 130)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader is gone
        code = 0
    except Exception as error:
        if debug or not _is_usage_error(error):
            raise
        code = _refuse(error.format_message(), 2)  # type: ignore[attr-defined]
    sys.exit(code or 0)


def _is_usage_error(error: Exception) -> bool:
    """Whether typer's parser refused the command line."""
    return hasattr(error, "format_message") and hasattr(error, "exit_code")


def _refuse(message: str, code: int, log_tail: str = "") -> int:
    line = " ".join(message.split())
    if not line:  # the help has been shown
        return code
    if log_tail and sys.stderr.isatty():
        print(log_tail, file=sys.stderr)
    print(f"glmlab: {line}", file=sys.stderr)
    return code
