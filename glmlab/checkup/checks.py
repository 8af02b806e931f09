"""What the doctor looks at: installed packages, the plugin, memory, load.

Each check is a function of what was found, so that it can be tried without such a machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Literal

from pydantic import BaseModel, ConfigDict

from glmlab.hardware import Machine
from glmlab.units import format_bytes
from glmlab.vllm_install import ANY_VLLM_VARIABLE, InstallFault, VllmInstall

Severity = Literal["blocks", "warns", "notes"]

PLUGIN_GROUP = "vllm.general_plugins"
PLUGIN_NAME = "glmlab"
TORCH_SIBLINGS = ("torchvision", "torchaudio", "torchcodec")

# Docker gives 64 MB unless asked for more; NCCL and vLLM's ranks want some hundred.
_LEAST_SHARED_MEMORY_BYTES = 1e9
# Two imports of vLLM and torch (the engine and a worker) and a tiny model with its KV pool.
_LEAST_FREE_MEMORY_BYTES = 4e9
# Above this, half the CPUs are somebody else's, and a decode step of a small model waits for them.
_BUSY_LOAD_PER_CPU = 0.5


class DoctorFinding(BaseModel):
    """One thing that is wrong or worth knowing here.

    Attributes
    ----------
    severity : {"blocks", "warns", "notes"}
        ``blocks``: no engine starts. ``warns``: it starts, but something will fail or disturb.
    what, why, fix : str
        One line each: what was found, what comes of it, what to do. ``why`` is empty where ``what`` says
        it, ``fix`` where there is nothing to do.
    source : str
        Who measured or met it, empty where the machine itself shows it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: str
    severity: Severity
    what: str
    why: str = ""
    fix: str
    source: str = ""

    @property
    def text(self) -> str:
        """What was found and what comes of it, in one line."""
        return f"{self.what}; {self.why}" if self.why else self.what


def of_vllm(install: VllmInstall | InstallFault) -> Iterator[DoctorFinding]:
    """Whether there is one vLLM, of a version that glmlab drives."""
    if isinstance(install, InstallFault):
        yield DoctorFinding(id=install.id, severity="blocks", what=install.what, fix=install.fix)
    elif not install.in_range:
        yield DoctorFinding(
            id="vllm-version",
            severity="warns",
            what=f"{install.distribution} {install.version} is untried; {ANY_VLLM_VARIABLE} lets it pass",
            fix="pip install a version from 0.26 to 0.33, or expect fewer live knobs",
        )


def of_packages(versions: Mapping[str, str]) -> Iterator[DoctorFinding]:
    """Packages that break vLLM."""
    torch = versions.get("torch", "")
    for name in TORCH_SIBLINGS:
        # A build for the same torch says +cpu, too; pip takes the one for CUDA unless told otherwise.
        if torch.endswith("+cpu") and name in versions and not versions[name].endswith("+cpu"):
            yield DoctorFinding(
                id="torch-sibling",
                severity="warns",
                what=f"{name} {versions[name]} is not built for torch {torch}: vLLM fails when it imports it",
                fix=f"pip uninstall {name}; GLM models do not need it",
            )


def plugin_registered() -> bool:
    """Whether glmlab's entry point is known, which installing it does."""
    return any(point.name == PLUGIN_NAME for point in metadata.entry_points(group=PLUGIN_GROUP))


def of_plugin(registered: bool, allowed: str | None) -> Iterator[DoctorFinding]:
    """Whether vLLM's processes will load glmlab; ``allowed`` is the value of ``VLLM_PLUGINS``."""
    lost = (
        "workers of several GPUs, and vllm serve, will not load glmlab: no random weights and no live knobs"
        " there (an engine on one GPU loads it by itself)"
    )
    if not registered:
        yield DoctorFinding(
            id="plugin-missing",
            severity="warns",
            what=f"glmlab is on the path but not installed, so its {PLUGIN_GROUP} entry is not known; {lost}",
            fix="pip install -e . in glmlab's folder, or pip install glmlab",
        )
    elif allowed is not None and PLUGIN_NAME not in [name.strip() for name in allowed.split(",")]:
        yield DoctorFinding(
            id="plugin-not-allowed",
            severity="warns",
            what=f"VLLM_PLUGINS = {allowed!r} leaves glmlab out; {lost}",
            fix=f"unset VLLM_PLUGINS, or add {PLUGIN_NAME} to it",
        )


def of_machine(host: Machine) -> Iterator[DoctorFinding]:
    """Memory, shared memory, load."""
    shared = host.shared_memory_free_bytes
    if shared is not None and shared < _LEAST_SHARED_MEMORY_BYTES:
        yield DoctorFinding(
            id="shared-memory",
            severity="warns",
            what=f"shared memory (/dev/shm): {format_bytes(shared)} free, the ranks of an engine want 1 GB",
            why="NCCL fails when it makes its segments there, or the engine ends with a bus error",
            source="NCCL user guide, troubleshooting",
            fix="in a container: docker run --ipc=host or --shm-size=8g",
        )
    if host.memory_available_bytes < _LEAST_FREE_MEMORY_BYTES:
        yield DoctorFinding(
            id="memory-low",
            severity="warns",
            what=f"{format_bytes(host.memory_available_bytes)} of memory are free, an engine wants 4 GB",
            fix="close other programs or notebooks with an engine in them",
        )
    # The load is the whole machine's, whichever CPUs this process may use.
    if host.load_average[0] > _BUSY_LOAD_PER_CPU * host.logical_cpus:
        yield DoctorFinding(
            id="cpu-busy",
            severity="warns",
            what=f"load average {host.load_average[0]:.2f} on {host.logical_cpus} CPUs: wall times are noisy",
            fix="wait, or stop what is running, before measuring",
        )
