"""Diagnosis: can this machine run an engine, what can be live in it, what will disturb it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from html import escape
from typing import Any

from pydantic import BaseModel, ConfigDict

from glmlab.checkup.checks import (
    TORCH_SIBLINGS,
    DoctorFinding,
    Severity,
    of_machine,
    of_packages,
    of_plugin,
    of_vllm,
    plugin_registered,
)
from glmlab.checkup.engine_probe import EngineProbe, probe_engine
from glmlab.checkup.gpus import of_catalog, of_gpus
from glmlab.checkup.links import of_links
from glmlab.errors import EngineDiedError, EngineError
from glmlab.hardware import Machine, machine
from glmlab.units import format_bytes
from glmlab.vllm_install import (
    VLLM_DISTRIBUTIONS,
    VllmInstall,
    any_version_allowed,
    installed_versions,
    judge_vllm,
)

_SHOWN = (*VLLM_DISTRIBUTIONS, "torch", "triton", "optuna", "glmlab")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Diagnosis(_Record):
    """What :func:`doctor` found.

    Attributes
    ----------
    packages : dict
        Distribution -> installed version, or None.
    engine : EngineProbe or None
        What the installed vLLM says of itself; None where it was not asked or did not answer.
    findings : tuple of DoctorFinding
        What blocks first.
    """

    machine: Machine
    packages: dict[str, str | None]
    engine: EngineProbe | None
    findings: tuple[DoctorFinding, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing keeps an engine from starting."""
        return all(finding.severity != "blocks" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """What ``glmlab doctor --json`` prints."""
        return {"ok": self.ok, **self.model_dump(mode="json")}

    def _repr_html_(self) -> str:
        host = self.machine
        verdict = "An engine can start here." if self.ok else "No engine can start here."
        memory = f"{format_bytes(host.memory_available_bytes)} of {format_bytes(host.memory_bytes)} free"
        gpus = ", ".join(f"{gpu.index}: {gpu.name}" for gpu in host.gpus) or host.gpu_note
        facts = {
            "CPU": f"{host.cpu_model}, {len(host.allowed_cpus)} of {host.logical_cpus} CPUs",
            "Memory": memory,
            "GPUs": gpus,
            "Packages": ", ".join(f"{name} {version}" for name, version in self.packages.items() if version),
        }
        if self.engine:
            live = [name for name, knob in self.engine.knobs.items() if knob.live]
            facts["Live knobs"] = f"{', '.join(live) or 'none'} (device: {self.engine.device})"
        return (
            f"<p><b>{verdict}</b></p>"
            + _table((key, value) for key, value in facts.items())
            + _table(
                (finding.severity, finding.text, finding.fix, finding.source) for finding in self.findings
            )
            + _table(
                ("not live", name, knob.why)
                for name, knob in (self.engine.knobs if self.engine else {}).items()
                if not knob.live
            )
        )


def doctor(probe_engine: bool = True) -> Diagnosis:
    """Examine this machine and this Python environment; nothing is changed.

    Parameters
    ----------
    probe_engine : bool
        Whether to import vLLM in a child process, which takes 10 s to a minute, and so learn
        which knobs can be live. vLLM is never imported into this process.
    """
    versions = installed_versions((*_SHOWN, *TORCH_SIBLINGS))
    host = machine()
    install = judge_vllm(versions, any_version=any_version_allowed())
    findings = [
        *of_vllm(install),
        *of_packages(versions),
        *of_plugin(plugin_registered(), os.environ.get("VLLM_PLUGINS")),
        *of_machine(host),
        *of_catalog(),
        *of_gpus(host, install),
        *of_links(host),
    ]
    engine = None
    if probe_engine and isinstance(install, VllmInstall):
        engine = _probed(findings)
    order: tuple[Severity, ...] = ("blocks", "warns", "notes")
    return Diagnosis(
        machine=host,
        packages={name: versions.get(name) for name in _SHOWN},
        engine=engine,
        findings=tuple(sorted(findings, key=lambda finding: order.index(finding.severity))),
    )


def _probed(findings: list[DoctorFinding]) -> EngineProbe | None:
    """Ask vLLM itself; a failure becomes a finding."""
    try:
        return probe_engine()
    except EngineDiedError as error:
        findings.append(
            DoctorFinding(
                id="probe-timeout",
                severity="warns",
                what=str(error),
                fix="run it again: a first import reads gigabytes; python -m glmlab.live.seams shows it",
            )
        )
    except EngineError as error:
        findings.append(
            DoctorFinding(
                id="probe-failed",
                severity="blocks",
                what=str(error),
                fix="python -m glmlab.live.seams shows all of it",
            )
        )
    return None


def _table(rows: Iterator[tuple[str, ...]]) -> str:
    lines = ["".join(f"<td style='text-align:left'>{escape(cell)}</td>" for cell in row) for row in rows]
    return "<table>" + "".join(f"<tr>{line}</tr>" for line in lines) + "</table>" if lines else ""
