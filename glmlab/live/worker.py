"""What glmlab adds to every vLLM worker, through ``worker_extension_cls``."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Any

import torch

from glmlab.live.cpu_attention import KNOBS as CPU_ATTENTION_KNOBS
from glmlab.live.cpu_attention import CpuAttention, backend_name
from glmlab.live.device_clock import DeviceClock

if TYPE_CHECKING:
    from vllm.v1.worker.worker_base import WorkerBase as _Worker
else:
    _Worker = object

WORKER_KNOBS = CPU_ATTENTION_KNOBS


class GlmlabWorkerExtension(_Worker):
    """Methods that the driver calls on every rank by name.

    vLLM mixes this class into its worker; nothing here may collide with a name of vLLM's, hence
    the prefix.
    """

    def glmlab_probe(self) -> dict[str, dict[str, Any]]:
        """Which knobs this worker can change: knob -> fields of a KnobStatus."""
        return self._glmlab_knobs().probe()

    def glmlab_apply(self, knobs: dict[str, Any]) -> dict[str, Any]:
        """Change knobs, then read back what this worker has.

        Returns
        -------
        dict
            ``{"state": ..., "kv_kept": bool}``, the state as :meth:`glmlab_state` gives it.
        """
        kv_kept = True
        for name, value in knobs.items():
            kv_kept &= self._glmlab_knobs().set(name, value)
        return {"state": self.glmlab_state(), "kv_kept": kv_kept}

    def glmlab_state(self) -> dict[str, Any]:
        """Fields of a WorkerState, and what else only a worker knows."""
        knobs = self._glmlab_knobs()
        return {
            "rank": self.rank,
            "pid": os.getpid(),
            "values": knobs.values(),
            "used": knobs.used(),
            "backend": backend_name(self),
            "block_size": self.cache_config.block_size,
            "cpu_threads": torch.get_num_threads(),
            "device": _device_name(self.device),
        }

    def glmlab_memory(self) -> dict[str, Any]:
        """Fields of a WorkerMemory."""
        on_device = self.device.type != "cpu"
        return {
            "rank": self.rank,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "peak_device_bytes": torch.accelerator.max_memory_reserved() if on_device else None,
        }

    def glmlab_device_start(self) -> None:
        """Start this rank's device clock."""
        self._glmlab_clock = DeviceClock()
        self._glmlab_clock.start()

    def glmlab_device_stop(self, step_ends_ns: list[int]) -> list[float]:
        """Stop it; kernel time of each step, in ms."""
        return self._glmlab_clock.stop(step_ends_ns)

    def _glmlab_knobs(self) -> CpuAttention:
        if not hasattr(self, "_glmlab_cpu_attention"):
            self._glmlab_cpu_attention = CpuAttention(self)
        return self._glmlab_cpu_attention


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type
