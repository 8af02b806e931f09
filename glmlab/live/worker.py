"""What glmlab adds to every vLLM worker, through ``worker_extension_cls``."""

from __future__ import annotations

import os
import resource
from typing import TYPE_CHECKING, Any

import torch

from glmlab.live.attention_groups import backend_name
from glmlab.live.collectives import time_all_reduce
from glmlab.live.device_clock import DeviceClock
from glmlab.live.error_line import error_line
from glmlab.live.pipeline_buffers import make_missing_buffers
from glmlab.live.worker_knobs import WorkerKnobs

if TYPE_CHECKING:
    from vllm.v1.worker.worker_base import WorkerBase as _Worker
else:
    _Worker = object


class GlmlabWorkerExtension(_Worker):
    """Methods that the driver calls on every rank by name.

    vLLM mixes this class into its worker; nothing here may collide with a name of vLLM's, hence
    the prefix.
    """

    def glmlab_probe(self) -> dict[str, dict[str, Any]]:
        """Which knobs this worker can change: knob -> fields of a KnobStatus."""
        return self._glmlab_knobs().probe()

    def glmlab_check(self, knobs: dict[str, Any]) -> str:
        """Why this worker cannot take a change, empty if it can; compiles what would be launched."""
        try:
            self._glmlab_knobs().check(knobs)
        except ValueError as error:
            return str(error)
        except Exception as error:  # noqa: BLE001  one rank that raises would leave others' answers waiting
            return error_line(error)
        return ""

    def glmlab_apply(self, knobs: dict[str, Any], all_graphs: bool = False) -> dict[str, Any]:
        """Change knobs, then read back what this worker has.

        Parameters
        ----------
        knobs : dict
            Knob -> value.
        all_graphs : bool
            Capture every graph again, whatever changes.

        Returns
        -------
        dict
            ``{"state": ..., "kv_kept": bool, "graphs": int, "error": str}``, the state as
            :meth:`glmlab_state` gives it. An error comes back as text, so that every rank answers
            and all of them can go back together.
        """
        done: dict[str, Any] = {"kv_kept": True, "graphs": 0}
        error = ""
        try:
            done = self._glmlab_knobs().apply(knobs, all_graphs=all_graphs)
        except Exception as failure:  # noqa: BLE001  whatever it is, the driver decides
            error = error_line(failure)
        state: dict[str, Any] = {"rank": self.rank, "values": {}}
        try:
            state = self.glmlab_state()
        except Exception as failure:  # noqa: BLE001  as above
            error = error or error_line(failure)
        return {"state": state, **done, "error": error}

    def glmlab_state(self) -> dict[str, Any]:
        """Fields of a WorkerState, and what else only a worker knows."""
        knobs = self._glmlab_knobs()
        return {
            "rank": self.rank,
            "pid": os.getpid(),
            "values": knobs.values(),
            "used": knobs.used(),
            "graphs": knobs.graphs.count() if knobs.graphs.exist else {},
            "moe_tile_files": knobs.moe_tile_files(),
            "backend": backend_name(self),
            "block_size": self.cache_config.block_size,
            "cpu_threads": torch.get_num_threads(),
            "device": _device_name(self.device),
        }

    def glmlab_notes(self, batches: list[int]) -> list[str]:
        """What a reader of numbers for these batch sizes must know."""
        return self._glmlab_knobs().notes(batches)

    def glmlab_memory(self) -> dict[str, Any]:
        """Fields of a WorkerMemory."""
        on_device = self.device.type != "cpu"
        return {
            "rank": self.rank,
            "device_bytes": torch.accelerator.memory_allocated() if on_device else None,
            "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            "peak_device_bytes": torch.accelerator.max_memory_reserved() if on_device else None,
        }

    def glmlab_pipeline(self) -> bool:
        """Make this stage ready to receive; whether it was not."""
        return make_missing_buffers(self)

    def glmlab_all_reduce(self) -> list[dict[str, Any]]:
        """Time all-reduces between the tensor-parallel ranks; fields of AllReduceTimes."""
        return time_all_reduce(self.device)

    def glmlab_device_start(self) -> None:
        """Start this rank's device clock."""
        self._glmlab_clock = DeviceClock()
        self._glmlab_clock.start()

    def glmlab_device_stop(self, step_ends_ns: list[int]) -> dict[str, Any]:
        """Stop it; fields of a DeviceTime."""
        return self._glmlab_clock.stop(step_ends_ns)

    def _glmlab_knobs(self) -> WorkerKnobs:
        if not hasattr(self, "_glmlab_worker_knobs"):
            self._glmlab_worker_knobs = WorkerKnobs(self)
        return self._glmlab_worker_knobs


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return device.type
