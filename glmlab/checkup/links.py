"""What the doctor looks at between GPUs: peer access, NVLink, and what makes NCCL hang."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from glmlab.checkup.checks import DoctorFinding
from glmlab.checkup.gpus import in_catalog
from glmlab.hardware import HostSettings, Machine
from glmlab.units import format_bytes

# torch, NCCL and vLLM's sockets of one rank take some hundred each.
_LEAST_OPEN_FILES = 4096
_LEAST_LOCKED_BYTES = 64e6
_ALLOCATORS = ("PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF")


def of_links(host: Machine) -> Iterator[DoctorFinding]:
    """All that matters only where there are several GPUs."""
    if len(host.gpus) < 2:
        return
    yield from _of_peers(host)
    yield from _of_nvlink(host)
    if host.settings is not None:
        yield from _of_iommu(host, host.settings)
        yield from _of_limits(host, host.settings)
        yield from _of_variables(host.settings)


def _of_peers(host: Machine) -> Iterator[DoctorFinding]:
    """One finding for each reason that a driver gives."""
    closed: dict[str, list[str]] = defaultdict(list)
    for pair in host.gpu_pairs:
        if pair.read is False or pair.write is False:
            closed[pair.why_not].append(f"{pair.first} and {pair.second}")
    for why_not, pairs in closed.items():
        geforce = any("geforce" in gpu.name.casefold() for gpu in host.gpus)
        yield DoctorFinding(
            id="p2p-off",
            severity="warns",
            what=f"no peer access between GPUs {', '.join(pairs)}: {why_not}",
            why="all-reduces go through the host's memory (14 µs instead of 0.4 µs a copy); with peer access"
            " decode was 13 to 42 % faster",
            fix="NVIDIA's driver does not give it to GeForce cards: keep NCCL_P2P_DISABLE=1 and expect less"
            if geforce
            else "in the BIOS: IOMMU and ACS off, Above 4G Decoding and Resizable BAR on; then nvidia-smi"
            " topo -p2p r shows OK; until then NCCL_P2P_DISABLE=1",
            source="rtx6kpro hardware/pcie-bandwidth.md; brandonmmusic-max/sm120-moe-bench",
        )


def _of_nvlink(host: Machine) -> Iterator[DoctorFinding]:
    for gpu in host.gpus:
        known = in_catalog(gpu)
        if known is None or known.link != "nvlink":
            continue
        if gpu.nvlinks_active == 0:
            what = f"GPU {gpu.index} is made for NVLink and has no link up"
        elif gpu.nvlinks_inactive:
            what = f"GPU {gpu.index}: {gpu.nvlinks_inactive} of its NVLinks are down"
        else:
            continue
        yield DoctorFinding(
            id="nvlink-down",
            severity="warns",
            what=what,
            why="ranks talk over PCIe instead, or hang at the start where the board has an NVSwitch",
            fix="systemctl status nvidia-fabricmanager (same version as the driver); nvidia-smi nvlink -s;"
            " in a virtual machine or container this may be what was given to it",
        )


def _of_iommu(host: Machine, settings: HostSettings) -> Iterator[DoctorFinding]:
    over_nvlink = bool(host.gpu_pairs) and all(pair.nvlink for pair in host.gpu_pairs)
    if settings.iommu == "translating" and not over_nvlink:
        hmm = "" if settings.hmm_disabled else "; options nvidia_uvm uvm_disable_hmm=1 in /etc/modprobe.d"
        yield DoctorFinding(
            id="iommu-on",
            severity="warns",
            what="the IOMMU translates the GPUs' addresses",
            why="copies from card to card then go wrong or NCCL hangs when ranks first talk",
            fix="boot with iommu=pt, or on AMD amd_iommu=off, and switch ACS off in the BIOS"
            f"{hmm}; last resort: NCCL_P2P_DISABLE=1",
            source="vLLM #33041, #42063; NCCL #1999; rtx6kpro #15",
        )


def _of_limits(host: Machine, settings: HostSettings) -> Iterator[DoctorFinding]:
    files = settings.open_files
    if files is not None and files < _LEAST_OPEN_FILES:
        yield DoctorFinding(
            id="open-files",
            severity="warns",
            what=f"a process may open at most {files} files; {len(host.gpus)} ranks of an engine want"
            f" {_LEAST_OPEN_FILES}",
            why="sockets of ranks and shards of weights run out of it while the engine starts",
            fix="raise the hard limit: ulimit -Hn 65535, LimitNOFILE= of the service, docker run"
            " --ulimit nofile=65535",
        )
    locked = settings.locked_memory_bytes
    if locked is not None and locked < _LEAST_LOCKED_BYTES:
        yield DoctorFinding(
            id="locked-memory",
            severity="notes",
            what=f"a process may lock {format_bytes(locked)} of memory",
            why="enough on one machine; NCCL over InfiniBand or RoCE wants it unlimited",
            fix="ulimit -l unlimited, or docker run --ulimit memlock=-1",
            source="NCCL user guide, troubleshooting",
        )


def _of_variables(settings: HostSettings) -> Iterator[DoctorFinding]:
    if settings.variables.get("NCCL_P2P_DISABLE") == "1":
        yield DoctorFinding(
            id="p2p-disabled",
            severity="notes",
            what="NCCL_P2P_DISABLE = 1: ranks talk through the host's memory",
            why="with peer access decode was 13 to 42 % faster; some machines hang with it",
            fix="unset it where nvidia-smi topo -p2p r shows OK, and see whether an engine starts",
            source="brandonmmusic-max/sm120-moe-bench; 0xSero and hermia-ai had to leave it off",
        )
    for name in _ALLOCATORS:
        if "expandable_segments:true" in settings.variables.get(name, "").casefold():
            yield DoctorFinding(
                id="expandable-segments",
                severity="warns",
                what=f"{name} has expandable_segments:True",
                why="memory allocated that way cannot be shared between ranks: custom all-reduces over PCIe"
                " fail",
                fix=f"leave it out of {name} for an engine on several GPUs",
                source="custom all-reduce over PCIe: vLLM #13719, RFC #56128",
            )
