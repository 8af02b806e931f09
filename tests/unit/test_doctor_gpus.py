from __future__ import annotations

import json
import os
from types import SimpleNamespace
from typing import Any

import pytest

from glmlab import diagnosis, hardware
from glmlab.checkup.checks import DoctorFinding
from glmlab.checkup.gpus import of_catalog, of_gpus
from glmlab.checkup.links import of_links
from glmlab.cli import main
from glmlab.hardware import HostSettings, Machine, machine
from glmlab.machine.nvml import ask_nvml
from glmlab.vllm_install import VllmInstall
from tests.nvml_double import H100, PRO_6000, Nvml, NvmlError, process, refuse

FOR_GPU = VllmInstall(distribution="vllm", version="0.32.0")
HEALTHY = {"vllm": "0.32.0", "torch": "2.13.0", "glmlab": "0.1.0"}
P2P_OFF: dict[str, Any] = {"peers": lambda first, second, kind: 1}


@pytest.fixture(autouse=True)
def _quiet_host(monkeypatch):
    """Neither the limits nor the traces of a driver of the machine that these tests run on."""
    monkeypatch.setattr(hardware, "host_settings", lambda addresses: HostSettings())
    monkeypatch.setattr("glmlab.machine.nvml.driver_traces", tuple)
    monkeypatch.setattr("glmlab.machine.nvml.module_version", str)


def host(*tables: dict[str, Any], settings: HostSettings | None = None, **options: Any) -> Machine:
    seen = machine(Nvml(*tables, **options))
    return seen if settings is None else seen.model_copy(update={"settings": settings})


def found(*tables: dict[str, Any], **options: Any) -> list[DoctorFinding]:
    seen = host(*tables, **options)
    return [*of_gpus(seen, FOR_GPU), *of_links(seen)]


def ids(findings: list[DoctorFinding]) -> list[tuple[str, str]]:
    return [(finding.id, finding.severity) for finding in findings]


def with_(table: dict[str, Any], **answers: Any) -> dict[str, Any]:
    return table | {f"nvmlDeviceGet{name}": answer for name, answer in answers.items()}


def used(gigabytes: int) -> SimpleNamespace:
    return SimpleNamespace(total=102_641_958_912, used=gigabytes * 10**9)


# ---------------------------------------------------------------------------------- nothing wrong
@pytest.mark.parametrize(
    ("tables", "options"),
    [
        ([PRO_6000], {}),
        ([PRO_6000] * 4, {}),
        ([H100] * 8, {"peers": lambda first, second, kind: 0}),
        ([{}, {}], {}),
    ],
    ids=["one card", "four on PCIe", "eight on NVLink", "cards that tell nothing"],
)
def test_healthy_gpus_have_no_findings(tables, options):
    assert found(*tables, **options) == []


def test_limits_that_are_wide_enough_are_no_finding():
    wide = HostSettings(iommu="passthrough", open_files=4096, locked_memory_bytes=64_000_000)
    assert found(PRO_6000, PRO_6000, settings=wide) == []
    assert found(PRO_6000, PRO_6000, settings=HostSettings(iommu="off")) == []


# ---------------------------------------------------------------------------------- one card
@pytest.mark.parametrize(
    ("answers", "finding", "said"),
    [
        ({"CurrPcieLinkWidth": 8}, ("pcie-link", "notes"), "GPU 0: PCIe 5 x8, the card can PCIe 5 x16"),
        # The slot hides what the card could do; the catalog knows.
        (
            {"CurrPcieLinkWidth": 8, "MaxPcieLinkWidth": 8},
            ("pcie-link", "notes"),
            "GPU 0: PCIe 5 x8, the card can PCIe 5 x16",
        ),
        (
            {"MaxPcieLinkGeneration": 4, "GpuMaxPcieLinkGeneration": 5},
            ("pcie-link", "notes"),
            "GPU 0: PCIe 4 x16, the card can PCIe 5 x16",
        ),
        (
            {"EnforcedPowerLimit": 300_000},
            ("power-cap", "warns"),
            "GPU 0: power is capped at 300 W, 600 W is its default",
        ),
        (
            {"CurrentClocksEventReasons": 0x40},
            ("gpu-throttled", "warns"),
            "GPU 0: clocks are held down at 41 °C (too hot (hardware))",
        ),
        ({"CurrentClocksEventReasons": 0x2}, ("gpu-clocks-set", "notes"), "GPU 0: its clocks were set"),
        (
            {"TotalEccErrors": lambda kind, since: 3},
            ("gpu-ecc", "warns"),
            "GPU 0: its memory has 3 errors that could not be mended",
        ),
        ({"RemappedRows": (0, 1, 1, 0)}, ("gpu-ecc", "warns"), "GPU 0: its memory has worn rows that wait"),
        ({"MigMode": [1, 1]}, ("gpu-mig", "warns"), "GPU 0 is split into parts (MIG)"),
        ({"MemoryInfo": used(70)}, ("gpu-in-use", "warns"), "GPU 0: 70 GB are in use (processes: not shown)"),
    ],
)  # fmt: skip
def test_what_holds_a_card_back(answers, finding, said):
    findings = found(with_(PRO_6000, **answers))
    assert ids(findings) == [finding]
    assert findings[0].what.startswith(said)
    assert findings[0].why
    assert findings[0].fix


@pytest.mark.parametrize(
    "answers",
    [
        {"EnforcedPowerLimit": 599_000},
        {"EnforcedPowerLimit": 600_000, "PowerManagementDefaultLimit": 400_000},
        {"CurrPcieLinkGeneration": 1},
        {"CurrentClocksEventReasons": 0x4 | 0x1},
        {"TotalEccErrors": lambda kind, since: 0},
        {"MemoryInfo": used(2)},
    ],
)
def test_what_is_no_fault_is_no_finding(answers):
    assert found(with_(PRO_6000, **answers)) == []


def test_what_a_power_cap_costs_has_its_source():
    (finding,) = found(with_(PRO_6000, EnforcedPowerLimit=300_000))
    assert "30 %" in finding.why
    assert "blackwell-power-limit-sweep.md" in finding.source


def test_others_on_a_card_are_named_with_their_memory_and_this_process_is_not():
    rows = [process(os.getpid(), 60 * 10**9), process(4242, 8 * 10**9), process(4243)]
    (finding,) = found(with_(PRO_6000, MemoryInfo=used(70), ComputeRunningProcesses=rows))
    assert finding.what == "GPU 0: 10 GB are in use (processes: 4242 python3 8 GB, 4243 python3)"
    own = [process(os.getpid(), 69 * 10**9)]
    assert found(with_(PRO_6000, MemoryInfo=used(70), ComputeRunningProcesses=own)) == []


# ---------------------------------------------------------------------------------- between cards
def test_a_narrow_link_warns_where_ranks_talk_over_it():
    narrow = {"CurrPcieLinkWidth": 4}
    assert ids(found(PRO_6000, with_(PRO_6000, **narrow))) == [("pcie-link", "warns")]
    linked = {"peers": lambda first, second, kind: 0}
    assert ids(found(H100, with_(H100, **narrow), **linked)) == [("pcie-link", "notes")]


def test_closed_pairs_are_one_finding_a_reason():
    findings = found(PRO_6000, PRO_6000, PRO_6000, **P2P_OFF)
    assert ids(findings) == [("p2p-off", "warns")]
    assert findings[0].what == (
        "no peer access between GPUs 0 and 1, 0 and 2, 1 and 2: the chipset does not support it"
    )
    assert "13 to 42 %" in findings[0].why
    assert "IOMMU" in findings[0].fix
    assert findings[0].source
    read_only: dict[str, Any] = {"peers": lambda first, second, kind: int(kind == 1)}
    assert ids(found(PRO_6000, PRO_6000, **read_only)) == [("p2p-off", "warns")]
    mixed = {"peers": lambda first, second, kind: 0 if second == 1 else 3}
    assert [finding.what for finding in found(PRO_6000, PRO_6000, PRO_6000, **mixed)] == [
        "no peer access between GPUs 0 and 2, 1 and 2: they hang on different I/O hubs"
    ]


def test_a_geforce_is_not_sent_to_the_bios():
    geforce = with_(PRO_6000, Name="NVIDIA GeForce RTX 5090")
    (finding,) = found(geforce, geforce, **P2P_OFF)
    assert "GeForce" in finding.fix
    assert "BIOS" not in finding.fix


def test_nvlink_that_is_down():
    linked = {"peers": lambda first, second, kind: 0}
    dead = with_(H100, NvLinkState=lambda link: 0 if link < 18 else refuse())
    findings = found(dead, H100, **linked)
    assert ids(findings) == [("nvlink-down", "warns")]
    assert findings[0].what == "GPU 0 is made for NVLink and has no link up"
    half = with_(H100, NvLinkState=lambda link: link % 2 if link < 18 else refuse())
    assert found(half, H100, **linked)[0].what == "GPU 0: 9 of its NVLinks are down"
    assert "fabricmanager" in findings[0].fix
    assert found(dead) == []


def test_an_iommu_that_translates_warns_of_hangs():
    settings = HostSettings(iommu="translating")
    findings = found(PRO_6000, PRO_6000, settings=settings)
    assert ids(findings) == [("iommu-on", "warns")]
    assert "NCCL hangs" in findings[0].why
    assert "iommu=pt" in findings[0].fix
    assert "uvm_disable_hmm=1" in findings[0].fix
    assert "vLLM #33041" in findings[0].source
    (other,) = found(PRO_6000, PRO_6000, settings=settings.model_copy(update={"hmm_disabled": True}))
    assert "uvm_disable_hmm" not in other.fix
    assert found(PRO_6000, settings=settings) == []
    assert found(H100, H100, settings=settings, peers=lambda first, second, kind: 0) == []


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        ({"open_files": 1024}, ("open-files", "warns")),
        ({"locked_memory_bytes": 65_536}, ("locked-memory", "notes")),
        ({"variables": {"NCCL_P2P_DISABLE": "1"}}, ("p2p-disabled", "notes")),
        (
            {"variables": {"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:64,expandable_segments:True"}},
            ("expandable-segments", "warns"),
        ),
    ],
)
def test_what_the_system_keeps_from_ranks(settings, finding):
    findings = found(PRO_6000, PRO_6000, settings=HostSettings(**settings))
    assert ids(findings) == [finding]
    assert findings[0].why
    assert findings[0].fix
    assert found(PRO_6000, settings=HostSettings(**settings)) == []


def test_cards_of_two_kinds():
    findings = found(PRO_6000, with_(PRO_6000, Name="NVIDIA RTX PRO 6000 Blackwell Server Edition"))
    assert ids(findings) == [("gpus-differ", "warns")]
    assert "Server Edition, 103 GB" in findings[0].what


def test_every_line_is_one_line():
    worst = with_(
        PRO_6000,
        CurrPcieLinkWidth=1,
        EnforcedPowerLimit=150_000,
        CurrentClocksEventReasons=0xFF,
        RemappedRows=(9, 9, 1, 1),
        MigMode=[1, 1],
        MemoryInfo=used(90),
    )
    settings = HostSettings(
        iommu="translating", open_files=1, locked_memory_bytes=1, variables={"NCCL_P2P_DISABLE": "1"}
    )
    findings = found(worst, with_(worst, Name="other"), settings=settings, **P2P_OFF)
    assert len(findings) >= 15
    assert all("\n" not in each.what + each.why + each.fix + each.source for each in findings)


# ---------------------------------------------------------------------------------- the command
@pytest.fixture
def examine(monkeypatch, capsys):
    """Run ``glmlab doctor`` on made-up GPUs and packages."""

    def run(nvml, versions, *arguments):
        monkeypatch.setattr(hardware, "ask_nvml", lambda _: ask_nvml(nvml))
        monkeypatch.setattr(diagnosis, "installed_versions", lambda names: versions)
        monkeypatch.setattr(diagnosis, "plugin_registered", lambda: True)
        with pytest.raises(SystemExit) as stopped:
            main(["doctor", "--no-engine", *arguments])
        printed = capsys.readouterr()
        assert "Traceback" not in printed.out + printed.err
        return stopped.value.code, printed.out + printed.err

    return run


def test_a_machine_without_a_gpu(examine):
    code, out = examine(Nvml(broken={"nvmlInit": NvmlError(12)}), HEALTHY)
    assert code == 0
    assert "no NVIDIA driver on this machine" in out
    assert "pip install 'glmlab[cpu]'" in out


def test_a_gpu_without_vllm(examine):
    code, out = examine(Nvml(PRO_6000), {"torch": "2.13.0"})
    assert code == 1
    assert "NVIDIA RTX PRO 6000 Blackwell Workstation Edition, compute 12.0" in out
    assert "vLLM is not installed" in out
    assert "pip install 'glmlab[gpu]'" in out


@pytest.mark.parametrize(
    ("error", "said", "fix"),
    [
        (NvmlError(18, "Driver/library version mismatch"), "version mismatch", "reboot"),
        (NvmlError(9, "Driver Not Loaded"), "Driver Not Loaded", "modprobe nvidia"),
        (NvmlError(12), "libnvidia-ml.so.1 is missing, though nvidia-smi is there", "--gpus all"),
        (OSError("cannot open shared object"), "cannot open shared object", "run nvidia-smi"),
    ],
    ids=["mismatch", "no module", "no library", "other"],
)
def test_a_broken_driver(examine, monkeypatch, error, said, fix):
    monkeypatch.setattr("glmlab.machine.nvml.driver_traces", lambda: ("nvidia-smi is there",))
    code, out = examine(Nvml(broken={"nvmlInit": error}), HEALTHY)
    assert code == 0
    assert said in out
    assert fix in out


def test_a_lost_card_keeps_the_other(examine):
    def gone():
        raise NvmlError(15, "GPU is lost")

    code, out = examine(Nvml(PRO_6000, with_(PRO_6000, MemoryInfo=gone)), HEALTHY)
    assert code == 0
    assert "GPU 1 does not answer: GPU is lost" in out
    assert "Xid" in out


def test_findings_as_json_have_why_and_source(examine):
    code, out = examine(Nvml(PRO_6000, PRO_6000, **P2P_OFF), HEALTHY, "--json")
    finding = next(each for each in json.loads(out)["findings"] if each["id"] == "p2p-off")
    assert code == 0
    assert set(finding) == {"id", "severity", "what", "why", "fix", "source"}
    assert finding["source"].startswith("rtx6kpro")
    assert len(json.loads(out)["machine"]["gpu_pairs"]) == 1


def test_pairs_and_sources_are_shown(examine):
    _, out = examine(Nvml(PRO_6000, PRO_6000, **P2P_OFF), HEALTHY)
    assert "0-1: no (the chipset does not support it), host bridge" in out
    assert "pcie-bandwidth.md" in out
    assert "all-reduces go through the host's memory" in out


def test_a_wrong_file_of_the_user_is_a_finding_and_hides_no_other(examine, tmp_path, monkeypatch):
    (tmp_path / "gpus").mkdir()
    (tmp_path / "gpus" / "mine.yaml").write_text("title: x\nsmss: 3\n", encoding="utf-8")
    monkeypatch.setenv("GLMLAB_DATA", str(tmp_path))
    (finding,) = of_catalog()
    assert "mine.yaml line 2: smss: unknown key; did you mean sms" in finding.what
    code, out = examine(Nvml(with_(PRO_6000, EnforcedPowerLimit=300_000)), HEALTHY, "--json")
    assert code == 0
    assert {each["id"] for each in json.loads(out)["findings"]} >= {"gpu-catalog", "power-cap"}
    monkeypatch.setenv("GLMLAB_DATA", "/nowhere")
    assert examine(Nvml(PRO_6000, PRO_6000), HEALTHY)[0] == 0
