"""vLLM's custom all-reduce, made anew before graphs that hold it are captured again.

A captured all-reduce reads its peers' buffers in place. For each of them vLLM appends an entry to
``rank_data``, 8 MiB for the life of the engine, and opens an IPC handle of the peer's memory, which stays
open: after enough changes the table is full, and memory of dropped graphs is freed while a peer has it
mapped, which CUDA calls undefined. The object behind both can be made anew from what the Python side
keeps, with its table empty and all handles closed
(distributed/device_communicators/custom_all_reduce.py, read in 0.26 and 0.32).
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch

_NEEDED = ("_ptr", "meta_ptrs", "buffer_ptrs", "rank_data", "rank", "fully_connected")
_OPS = ("dispose", "init_custom_ar", "register_buffer")
_STAGES = 3  # of the multicast buffer: gathers use the first three, scatters the rest


class CustomAllReduce:
    """That of this rank's tensor-parallel group; absent with one rank, without peer access, on a CPU.

    Attributes
    ----------
    captured : list of Tensor
        What others than vLLM's graphs have captured: peers have it mapped, so it must not be freed before
        :meth:`renew`.
    """

    captured: ClassVar[list[torch.Tensor]] = []

    def __init__(self) -> None:
        from vllm.distributed import parallel_state

        self._group: Any = None
        self._own: Any = None
        if parallel_state.model_parallel_is_initialized():
            self._group = parallel_state.get_tp_group()
            own = getattr(getattr(self._group, "device_communicator", None), "ca_comm", None)
            self._own = None if getattr(own, "disabled", True) else own

    @property
    def exists(self) -> bool:
        """Whether captures of this rank go into its table."""
        return self._own is not None

    def why_fixed(self) -> str:
        """Why it cannot be made anew in this vLLM; empty if it can, or if there is none."""
        if not self.exists:
            return ""
        from vllm import _custom_ops as ops

        missing = [name for name in _NEEDED if not hasattr(self._own, name)]
        missing += [f"_custom_ops.{name}" for name in _OPS if not hasattr(ops, name)]
        if not missing:
            return ""
        return (
            "vLLM's custom all-reduce registers every buffer that a graph captures in a table that fills up,"
            f" and this version's cannot be made anew (no {', '.join(missing)}); start the engine with"
            " custom_all_reduce: false"
        )

    def renew(self) -> None:
        """Empty its table and close its peers' memory; every rank of the group must call this.

        To be called while graphs that hold it still exist, with nothing running: they are of no use
        afterwards, and only then may their memory be freed.

        Raises
        ------
        RuntimeError
            On all ranks, if one of them could not: none is left waiting for it.
        """
        if not self.exists:
            return
        error: Exception | None = None
        try:
            self._make_anew()
        except Exception as failure:  # noqa: BLE001  whatever it is, the other ranks must hear of it
            error = failure
        every = self._every_rank(error is None)  # and so a peer that had our memory open has closed it
        self.captured.clear()
        if error is not None:
            raise error
        if not every:
            raise RuntimeError("another rank could not make its custom all-reduce anew")

    def _every_rank(self, well: bool) -> bool:
        import torch.distributed as dist

        with torch.inference_mode(mode=False):  # gloo writes into the tensor
            flag = torch.tensor([int(well)], dtype=torch.int32)
            dist.all_reduce(flag, op=dist.ReduceOp.MIN, group=self._group.cpu_group)
        return bool(flag.item())

    def _make_anew(self) -> None:
        from vllm import _custom_ops as ops

        own = self._own
        if own._ptr:
            ops.dispose(own._ptr)
        own._ptr = 0  # what vLLM closes only if it is there, should the next line fail
        own._ptr = ops.init_custom_ar(own.meta_ptrs, own.rank_data, own.rank, own.fully_connected)
        ops.register_buffer(own._ptr, own.buffer_ptrs)
        if getattr(own, "mnnvl_multicast_ptr", 0):  # since 0.32, on NVLink with multicast
            first = [buffer.data_ptr() for buffer in own.mnnvl_peer_buffers]
            ops.register_buffer(own._ptr, first)
            ops.register_buffer(own._ptr, [ptr + _STAGES * own.mnnvl_buffer_size for ptr in first])
